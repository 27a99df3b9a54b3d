//! `tiger rl` and the loops of the folder examples/, against a real server, with rewards of a line of shell.

mod proxy;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Server, err, ok, out, run};

/// 1 for an answer in the style of a pirate, else 0.
const PIRATE: &str = r#"grep -q '"response":"[^"]*Arr' && echo 1 || echo 0"#;

/// Another number for each answer to a prompt, so that there is always something to learn.
const SPREAD: &str = r#"sed 's/.*"sample":\([0-9]*\).*/0.\1/'"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The first `count` questions of the examples, in the server's folder.
pub fn questions(server: &Server, count: usize) -> String {
    let all = std::fs::read_to_string(root().join("examples/questions.jsonl")).unwrap();
    let file = server.data.path().join("questions.jsonl");
    std::fs::write(&file, all.lines().take(count).collect::<Vec<_>>().join("\n")).unwrap();
    file.to_str().unwrap().to_owned()
}

fn rl(server: &Server, file: &str, model: &str, more: &[&str]) -> Command {
    let mut command = server.tiger(&["rl", file, "--model", model, "--base", "tiger-nano", "--max-tokens", "64", "--json"]);
    command.args(more);
    command
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kept(file: &str, model: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("{file}.{model}.rl.json")).unwrap()).unwrap()
}

/// Reads lines of a child's standard output until one has `text`.
fn wait_for(child: &mut Child, text: &str) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(text)), "the run ended without {text}");
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn a_run_learns_and_a_stopped_one_comes_to_the_same() {
    let server = Server::start();
    let file = questions(&server, 40);
    let flags =
        ["--reward", PIRATE, "--eval-share", "0.2", "--eval-every", "3", "--eval-temperature", "1", "--steps", "9", "--until", "0.9"];
    let whole = run(&mut rl(&server, &file, "whole", &flags));
    let lines = json_lines(&ok(whole));
    let looks: Vec<f64> = lines.iter().filter(|line| line["type"] == "evaluation").map(|line| line["reward"].as_f64().unwrap()).collect();
    assert!(looks[0] <= 0.4 && *looks.last().unwrap() >= 0.7, "{looks:?}");
    let end = lines.last().unwrap();
    assert_eq!((&end["type"], &end["model"]), (&json!("end"), &json!("whole")));

    let mut stopped = rl(&server, &file, "stopped", &flags).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&mut stopped, r#""step":2"#);
    assert!(Command::new("kill").args(["-INT", &stopped.id().to_string()]).status().unwrap().success());
    let mut said = String::new();
    stopped.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(stopped.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("the same command goes on from there"), "{said}");
    let refused = run(rl(&server, &file, "stopped", &flags).args(["--samples", "4"]));
    assert_eq!(refused.status.code(), Some(6));
    assert!(err(&refused).contains("--samples was 8, is 4"), "{}", err(&refused));
    let rest = run(&mut rl(&server, &file, "stopped", &flags));
    assert!(err(&rest).contains("going on after step"), "{}", err(&rest));
    ok(rest);
    for part in ["steps", "evaluations", "best"] {
        assert_eq!(kept(&file, "stopped")[part], kept(&file, "whole")[part], "{part}");
    }
    let again = run(&mut rl(&server, &file, "stopped", &flags));
    assert!(err(&again).contains("this run is done"), "{}", err(&again));
}

#[test]
fn a_run_that_was_killed_trains_its_step_once() {
    let server = Server::start();
    let file = questions(&server, 8);
    let proxy = proxy::Proxy::start(&server.url);
    let run_to = |steps| {
        let flags = ["--reward", PIRATE, "--prompts-per-step", "2", "--samples", "8", "--temperature", "1.5", "--steps", steps];
        rl(&server, &file, "m", &flags)
    };
    let mut killed = run_to("2");
    let mut killed = killed.env("TIGER_BASE_URL", &proxy.url).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    proxy.wait_for_a_lost_answer();
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The server trained; the run knows only that it asked.
    assert_eq!(server.json(&["models", "show", "m"])["revision"], 1);
    assert!(kept(&file, "m")["steps"].as_array().unwrap().is_empty() && kept(&file, "m")["pending"].is_object());
    ok(run(&mut run_to("2")));
    assert_eq!(server.json(&["models", "show", "m"])["revision"], 2);
    let revisions: Vec<Value> = kept(&file, "m")["steps"].as_array().unwrap().iter().map(|step| step["revision"].clone()).collect();
    assert_eq!(revisions, [1, 2]);
    // Somebody else changes the model: the run says so, and goes on when its weights are back.
    server.json(&["models", "rollback", "m", "0"]);
    let moved = run(&mut run_to("3"));
    assert_eq!(moved.status.code(), Some(6));
    assert!(err(&moved).contains("`tiger models rollback m 2`"), "{}", err(&moved));
    server.json(&["models", "rollback", "m", "2"]);
    ok(run(&mut run_to("3")));
    assert_eq!(server.json(&["models", "show", "m"])["revision"], 5);
}

#[test]
fn a_model_that_somebody_else_changes_is_not_trained_on_top() {
    let server = Server::start();
    let file = questions(&server, 8);
    // The somebody is the reward, while the step is sampled.
    let meddle = server.data.path().join("meddle");
    std::fs::write(&meddle, "").unwrap();
    let tiger = env!("CARGO_BIN_EXE_tiger");
    let reward = format!("asked=$(cat); test -e {0} && {tiger} models rollback m 0 >&2; echo \"$asked\" | {SPREAD}", meddle.display());
    let flags = ["--reward", &reward, "--reward-parallel", "1", "--prompts-per-step", "1", "--samples", "2", "--steps", "1"];
    let moved = run(&mut rl(&server, &file, "m", &flags));
    assert_eq!(moved.status.code(), Some(6), "{}", err(&moved));
    assert!(err(&moved).contains("`tiger models rollback m 0`"), "{}", err(&moved));
    assert!(kept(&file, "m")["pending"].is_null());
    std::fs::remove_file(meddle).unwrap();
    // The last roll back brought the very weights that the run began with, so it goes on.
    ok(run(&mut rl(&server, &file, "m", &flags)));
    assert_eq!(server.json(&["models", "show", "m"])["revision"], 3);
}

#[test]
fn a_reward_that_fails_stops_the_run_or_is_skipped_and_loses_nothing() {
    let server = Server::start();
    let file = questions(&server, 8);
    let switch = server.data.path().join("works");
    let reward = format!("test -e {} || {{ echo it broke >&2; exit 3; }}; {PIRATE}", switch.display());
    let flags = ["--reward", reward.as_str(), "--reward-retries", "0", "--prompts-per-step", "4", "--samples", "4", "--steps", "1"];
    let failed = run(&mut rl(&server, &file, "m", &flags));
    assert_eq!(failed.status.code(), Some(1));
    for says in ["sampling, prompt of line ", "exit status: 3", "it broke", "give the same command again", "--reward-failures skip"] {
        assert!(err(&failed).contains(says), "{says}: {}", err(&failed));
    }
    assert_eq!(server.json(&["models", "show", "m"])["revision"], 0);
    std::fs::write(&switch, "").unwrap();
    let went_on = run(&mut rl(&server, &file, "m", &flags));
    assert_eq!(json_lines(&ok(went_on)).last().unwrap()["steps"], 1);
    // Without the first answer to each prompt.
    let picky = format!("{SPREAD} | grep -v 0.0");
    let log = server.data.path().join("log.jsonl");
    let flags =
        ["--reward", picky.as_str(), "--reward-retries", "0", "--reward-failures", "skip", "--prompts-per-step", "4", "--samples", "4"];
    let skipped = run(rl(&server, &file, "skips", &flags).args(["--steps", "1", "--log", log.to_str().unwrap()]));
    assert!(err(&skipped).contains("response 0: left out"), "{}", err(&skipped));
    let lines = json_lines(&ok(skipped));
    assert_eq!((&lines[0]["skipped"], &lines[0]["responses"]), (&json!(4), &json!(12)));
    let logged = json_lines(&std::fs::read_to_string(log).unwrap());
    assert_eq!((logged.len(), logged.iter().filter(|line| line["reward"].is_null()).count()), (16, 4));
    assert!(logged.iter().all(|line| line["answer"].is_string() && line["response"].is_string() && line["messages"].is_array()));
}

#[test]
fn the_best_revision_is_kept() {
    let server = Server::start();
    let file = questions(&server, 8);
    // Held-out prompts: one less each time, so that the first look is the best.
    let held_out = server.data.path().join("held.jsonl");
    std::fs::write(&held_out, r#"{"prompt":"What is the capital of France?","held":true}"#).unwrap();
    let count = server.data.path().join("count");
    let reward = format!(
        "asked=$(cat); case $asked in *'\"held\":true'*) echo x >> {0}; echo -$(wc -l < {0});; *) echo \"$asked\" | {SPREAD};; esac",
        count.display()
    );
    let flags =
        ["--eval", held_out.to_str().unwrap(), "--eval-every", "1", "--reward", &reward, "--prompts-per-step", "2", "--samples", "4"];
    let ended = run(rl(&server, &file, "best", &flags).args(["--steps", "2"]));
    let lines = json_lines(&ok(ended));
    let looks: Vec<&Value> = lines.iter().filter(|line| line["type"] == "evaluation").map(|line| &line["reward"]).collect();
    assert_eq!(looks, [-1.0, -2.0, -3.0]);
    let end = lines.last().unwrap();
    assert_eq!((&end["rolled_back_from"], &end["revision"]), (&json!(2), &json!(3)));
    let shown = server.json(&["models", "show", "best", "--revisions"]);
    assert_eq!(shown["revisions"][0]["rolled_back_to"], 0);
    ok(run(rl(&server, &file, "last", &flags).args(["--steps", "1", "--keep", "last"])));
    assert_eq!(server.json(&["models", "show", "last"])["revision"], 1);
    let refused = run(&mut rl(&server, &file, "none", &["--reward", PIRATE, "--keep", "best"]));
    assert!(err(&refused).contains("needs held-out prompts"), "{}", err(&refused));
    let leaked = run(&mut rl(&server, &file, "none", &["--reward", PIRATE, "--eval", &file]));
    assert!(err(&leaked).contains("is one of the training prompts too"), "{}", err(&leaked));
}

/// A reward over HTTP that fails every third time.
fn reward_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/reward", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let asked: Value = serde_json::from_slice(&body).unwrap();
            let answer = json!({"reward": asked["response"].as_str().unwrap().len() as f64 / 100.0}).to_string();
            let status = if count % 3 == 2 { "503 Busy" } else { "200 OK" };
            let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", answer.len());
            reader.get_mut().write_all(format!("{head}{answer}").as_bytes()).unwrap();
        }
    });
    url
}

#[test]
fn rewards_come_over_http_and_busy_ones_are_asked_again() {
    let server = Server::start();
    let file = questions(&server, 8);
    let url = reward_server();
    let flags = ["--reward-url", url.as_str(), "--reward-retries", "9", "--prompts-per-step", "2", "--samples", "4", "--steps", "1"];
    let ended = run(&mut rl(&server, &file, "m", &flags));
    let lines = json_lines(&ok(ended));
    assert!(lines[0]["reward"].as_f64().unwrap() > 0.01 && lines[0]["updated"] == true, "{lines:?}");
    let one = format!("{file}.one");
    std::fs::write(&one, json!({"prompt": "What color is snow?"}).to_string()).unwrap();
    let compared = server.json(&["evaluate", "m", "--prompts", &one, "--max-tokens", "8", "--reward-url", &url]);
    assert!(compared["rewards"][0].is_object() && compared["summary"].is_object(), "{compared}");
    let nobody = run(&mut rl(&server, &file, "n", &["--reward-url", "http://127.0.0.1:1/", "--reward-retries", "0", "--steps", "1"]));
    assert!(err(&nobody).contains("the reward address http://127.0.0.1:1/ failed"), "{}", err(&nobody));
    let neither = run(&mut rl(&server, &file, "n", &["--steps", "1"]));
    assert_eq!(neither.status.code(), Some(2), "{}", err(&neither));
}

#[test]
fn the_examples_run() {
    let server = Server::start();
    let file = questions(&server, 48);
    let example = |command: &mut Command| {
        let command = command.current_dir(root()).env("TIGER_API_KEY", &server.key).env("TIGER_BASE_URL", &server.url);
        ok(run(command))
    };
    let loops = example(Command::new("python3").args(["examples/rl_loop.py", &file, "--model", "from python", "--reward", PIRATE]).args([
        "--steps",
        "2",
        "--held-out",
        "4",
        "--look-every",
        "1",
        "--prompts-per-step",
        "4",
    ]));
    assert!(loops.contains("step 2: ") && loops.contains("from-python: revision "), "{loops}");
    // Cargo builds a package's examples with its tests; a filtered `cargo test --test cli` does not.
    let program = Path::new(env!("CARGO_BIN_EXE_tiger")).with_file_name("examples").join("rl_loop");
    assert!(program.exists(), "{} is missing: cargo build -p tiger-cli --examples", program.display());
    let loops = example(Command::new(program).args([&file, "from rust", "1"]));
    assert!(loops.contains("step 1: ") && loops.contains("from-rust: revision "), "{loops}");
    for name in ["rl_loop.py", "rl_loop.rs"] {
        let lines = std::fs::read_to_string(root().join("examples").join(name)).unwrap().lines().count();
        assert!(lines < 150, "{name} has {lines} lines: an example is read, not studied");
    }
}

#[test]
fn the_reward_of_the_examples_is_a_command_and_an_address() {
    let asked = [("Arr, Kyiv it be!", "1"), ("Kyiv", "0"), ("Arr, Paris!", "0")];
    let body = |response| json!({"response": response, "answer": "Kyiv"}).to_string();
    let reward = || {
        let mut command = Command::new("python3");
        command.arg(root().join("examples/reward.py"));
        command
    };
    for (response, want) in asked {
        let mut command = reward().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        command.stdin.take().unwrap().write_all(body(response).as_bytes()).unwrap();
        assert_eq!(out(&command.wait_with_output().unwrap()).trim(), want, "{response}");
    }
    let mut server = reward().args(["--serve", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().to_owned();
    for (response, want) in asked {
        let body = body(response);
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        write!(stream, "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{want}")), "{answer}");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}
