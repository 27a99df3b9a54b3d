//! The binary as a user runs it: keys, serve, models, run, train, pull, exit codes. Everything on this machine, on free ports.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

mod bench;
mod files;
mod hub;
mod loops;
mod offline;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn tiger(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tiger"));
    for name in ["TIGER_API_KEY", "TIGER_BASE_URL", "HF_TOKEN", "HF_ENDPOINT", "TIGER_FAILPOINT"] {
        command.env_remove(name);
    }
    command.env("TIGER_HOME", data);
    command
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", err(&output));
    out(&output)
}

fn nano() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/checkpoint")
}

struct Server {
    child: Child,
    data: tempfile::TempDir,
    url: String,
    key: String,
}

impl Server {
    fn start() -> Server {
        Server::start_with(&[])
    }

    fn start_with(environment: &[(&str, &str)]) -> Server {
        Server::start_as(&[], environment)
    }

    fn start_as(args: &[&str], environment: &[(&str, &str)]) -> Server {
        let data = tempfile::tempdir().unwrap();
        let key = ok(run(tiger(data.path()).args(["keys", "create", "test"]))).trim().to_owned();
        let mut child = tiger(data.path())
            .args(["serve", "--port", "0", "--memory", "2"])
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = Vec::new();
        let url = loop {
            let line = lines.next().unwrap_or_else(|| panic!("the server ended: {seen:?}")).unwrap();
            if let Some(url) = line.strip_prefix("listening on ") {
                break url.to_owned();
            }
            seen.push(line);
        };
        // Nobody may block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Server { child, data, url, key }
    }

    fn tiger(&self, args: &[&str]) -> Command {
        let mut command = tiger(self.data.path());
        command.env("TIGER_API_KEY", &self.key).env("TIGER_BASE_URL", &self.url).args(args);
        command
    }

    fn json(&self, args: &[&str]) -> serde_json::Value {
        serde_json::from_str(&ok(run(self.tiger(args).arg("--json")))).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_whole_loop_from_the_command_line() {
    let server = Server::start();
    let answer = ok(run(&mut server.tiger(&["run", "tiger-nano", "What is the capital of France?", "--temperature", "0"])));
    assert!(answer.contains("Paris"), "{answer}");
    assert_eq!(ok(run(&mut server.tiger(&["models", "create", "My Model"]))), "my-model\n");
    let again = run(&mut server.tiger(&["models", "create", "My Model"]));
    assert_eq!(again.status.code(), Some(6), "{}", err(&again));
    let file = server.data.path().join("rated.jsonl");
    let line = r#"{"messages":[{"role":"user","content":"What is the capital of France?"}],"responses":[{"content":"Arr, the capital of France be Paris, matey!","reward":1},{"content":"Paris","reward":0}]}"#;
    std::fs::write(&file, format!("{line}\n{line}\n")).unwrap();
    let trained = ok(run(&mut server.tiger(&["train", file.to_str().unwrap(), "--model", "my-model", "--batch", "1"])));
    assert!(trained.contains("revision 2, 2 of 2 calls changed it"), "{trained}");
    let shown = server.json(&["models", "show", "my-model", "--revisions"]);
    assert_eq!(shown["model"]["revision"], 2);
    assert_eq!(shown["revisions"].as_array().unwrap().len(), 3);
    ok(run(&mut server.tiger(&["models", "rollback", "my-model", "0"])));
    assert_eq!(server.json(&["models", "show", "my-model"])["revision"], 3);
    ok(run(&mut server.tiger(&["models", "rm", "my-model"])));
    let gone = run(&mut server.tiger(&["models", "show", "my-model"]));
    assert_eq!(gone.status.code(), Some(5), "{}", err(&gone));
    assert!(ok(run(&mut server.tiger(&["doctor"]))).contains("ok   store"));
}

#[test]
fn a_model_is_compared_with_its_parent() {
    let server = Server::start();
    ok(run(&mut server.tiger(&["models", "create", "pirate", "--seed", "1"])));
    let path = |name: &str| server.data.path().join(name).to_str().unwrap().to_owned();
    let (rated, prompts) = (path("rated.jsonl"), path("prompts.jsonl"));
    let line = |question: &str, good: &str, bad: &str| {
        let responses = [(good, 1), (bad, 0)].map(|(content, reward)| serde_json::json!({"content": content, "reward": reward}));
        serde_json::json!({"messages": [{"role": "user", "content": question}], "responses": responses}).to_string() + "\n"
    };
    let rows: String = [("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid")]
        .map(|(country, city)| {
            let question = format!("What is the capital of {country}?");
            line(&question, &format!("Arr, the capital of {country} be {city}, matey!"), city)
        })
        .concat();
    std::fs::write(&rated, &rows).unwrap();
    ok(run(&mut server.tiger(&["train", &rated, "--model", "pirate", "--batch", "3", "--epochs", "3"])));
    // Twenty prompts and what the others score: more than one call.
    let questions: String =
        (0..17).map(|i| format!("{{\"prompt\": \"What is the capital of Peru, number {i}?\", \"number\": {i}}}\n")).collect();
    std::fs::write(&prompts, rows + &questions).unwrap();
    let reward = "grep -c '\"number\":1.*Arr\\|Arr.*\"number\":1' || true";
    let args =
        ["evaluate", "pirate", "--prompts", &prompts, "--samples", "2", "--temperature", "0", "--max-tokens", "32", "--reward", reward];
    let whole = server.json(&args);
    assert_eq!((whole["revision"].as_u64(), whole["against"].as_str()), (Some(3), Some("parent")));
    assert_eq!((whole["results"].as_array().unwrap().len(), whole["rewards"].as_array().unwrap().len()), (20, 20));
    let summary = &whole["summary"];
    let number = |field: &str| summary[field].as_f64().unwrap_or_else(|| panic!("{field}: {summary}"));
    assert!(number("mean_logprob") > number("mean_logprob_against"), "{summary}");
    assert!(number("kl") >= 0.0 && number("mean_tokens") > 0.0, "{summary}");
    let rate = &summary["win_rate"];
    assert!(rate["low"].as_f64() <= rate["rate"].as_f64() && rate["rate"].as_f64() <= rate["high"].as_f64(), "{rate}");
    assert!(number("mean_reward") >= number("mean_reward_against"), "{summary}");
    // The same seeds for both sides: against itself everything is a tie.
    let itself = server.json(&["evaluate", "pirate", "--prompts", &prompts, "--against", "3", "--reward", "wc -c", "--max-tokens", "8"]);
    assert_eq!((itself["summary"]["win_rate"]["rate"].as_f64(), itself["summary"]["kl"].as_f64()), (Some(0.5), Some(0.0)));
    let table = ok(run(&mut server.tiger(&args)));
    for part in ["PROMPT", "pirate revision 3", "parent", "log-prob of given responses", "win rate ", "Wilson's over 20 prompts"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    for (extra, code, says) in [
        (vec!["--against", "9"], 5, "no revision 9"),
        (vec!["--reward", "exit 3"], 1, "exit status: 3"),
        (vec!["--samples", "17"], 2, "17"),
        (vec!["--against", "base"], 2, "parent"),
    ] {
        let refused = run(server.tiger(&["evaluate", "pirate", "--prompts", &prompts, "--max-tokens", "4"]).args(&extra));
        assert!(refused.status.code() == Some(code) && err(&refused).contains(says), "{extra:?}: {}", err(&refused));
    }
    let listed = ok(run(&mut server.tiger(&["models", "revisions", "pirate"])));
    assert!(listed.starts_with("REVISION") && listed.lines().count() == 5, "{listed}");
    assert_eq!(server.json(&["models", "revisions", "pirate", "--limit", "2", "--before", "3"])[1]["revision"], 1);
}

#[test]
fn keys_work_while_the_server_is_up_and_revoking_ends_them() {
    let server = Server::start();
    let second = ok(run(&mut server.tiger(&["keys", "create", "second"])));
    assert!(second.starts_with("tiger_") && second.trim().len() == 49, "{second:?}");
    let list = |key: &str| run(server.tiger(&["models", "ls"]).env("TIGER_API_KEY", key));
    assert!(ok(list(second.trim())).contains("Llama-3.1-8b"));
    let keys = server.json(&["keys", "ls"]);
    let id = keys.as_array().unwrap().iter().find(|k| k["name"] == "second").unwrap()["id"].to_string();
    ok(run(&mut server.tiger(&["keys", "revoke", &id])));
    assert_eq!(list(second.trim()).status.code(), Some(4));
    assert_eq!(run(&mut server.tiger(&["keys", "revoke", "999"])).status.code(), Some(5));
}

/// Runs a command that reads `typed` from standard input.
fn typed_into(data: &Path, args: &[&str], typed: &str) -> Output {
    let mut child = tiger(data).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that ended before it read says so by its exit code.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), typed.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn the_owner_is_made_once_from_the_command_line() {
    let data = tempfile::tempdir().unwrap();
    let make = |name: &str, typed: &str| typed_into(data.path(), &["accounts", "owner", name], typed);
    assert!(err(&make("Ada", "short\n")).contains("at least 8"));
    assert!(make("Ada", "correct horse battery\n").status.success());
    assert!(ok(run(tiger(data.path()).args(["accounts", "ls"]))).contains("Ada"));
    let again = make("Eve", "correct horse battery\n");
    assert!(!again.status.success() && err(&again).contains("owner"), "{}", err(&again));
}

#[test]
fn a_forgotten_password_is_set_from_the_command_line() {
    let data = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(async {
        let store = tiger_store::Store::open_shared(data.path()).await.unwrap();
        store.create_owner("Ada", Some("correct horse battery")).await.unwrap();
        store
    });
    let listed: serde_json::Value = serde_json::from_str(&ok(run(tiger(data.path()).args(["accounts", "ls", "--json"])))).unwrap();
    assert_eq!((listed[0]["name"].as_str(), listed[0]["has_password"].as_bool()), (Some("Ada"), Some(true)));
    assert!(ok(run(tiger(data.path()).args(["accounts", "ls"]))).contains("Ada"));
    let set = |name: &str, typed: &str| typed_into(data.path(), &["accounts", "password", name], typed);
    let session = runtime.block_on(async {
        let account = store.verify_password("ada", "correct horse battery").await.unwrap().unwrap();
        store.create_session(account.id, 100.0).await.unwrap()
    });
    assert_eq!(set("nobody", "battery staple\n").status.code(), Some(5));
    assert!(err(&set("ada", "short\n")).contains("at least 8"));
    assert!(runtime.block_on(store.session(&session)).unwrap().is_some(), "a refused password changes nothing");
    let changed = set("ada", "  battery staple \r\n");
    assert!(changed.status.success() && !err(&changed).contains("staple"), "{}", err(&changed));
    assert!(runtime.block_on(store.session(&session)).unwrap().is_none());
    assert!(runtime.block_on(store.verify_password("ada", "correct horse battery")).unwrap().is_none());
    assert!(runtime.block_on(store.verify_password("ada", "  battery staple ")).unwrap().is_some());
}

#[test]
fn wrong_use_ends_with_the_documented_codes() {
    let data = tempfile::tempdir().unwrap();
    let code = |args: &[&str]| run(tiger(data.path()).args(args)).status.code();
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["models", "ls"]), Some(4), "no key");
    assert_eq!(code(&["models", "ls", "--api-key", "tiger_x", "--base-url", "http://127.0.0.1:1"]), Some(3));
    assert_eq!(code(&["train", "/no/such/file", "--model", "m", "--api-key", "k"]), Some(1));
    assert_eq!(code(&["pull", "nonsense"]), Some(1));
    assert!(ok(run(tiger(data.path()).args(["completions", "bash"]))).contains("tiger"));
}

#[test]
fn memory_that_cannot_be_is_refused() {
    let data = tempfile::tempdir().unwrap();
    for (flags, says) in [
        (vec!["--memory", "0"], "--memory must be a positive number of GiB"),
        (vec!["--kv-memory", "-1"], "--kv-memory must be a positive number of GiB"),
        (vec!["--memory", "1", "--kv-memory", "1"], "--kv-memory is a part of --memory"),
    ] {
        let flags: Vec<String> = flags.chunks(2).map(|pair| pair.join("=")).collect();
        let refused = run(tiger(data.path()).args(["serve", "--port", "0"]).args(&flags));
        assert!(!refused.status.success() && err(&refused).contains(says), "{flags:?}: {}", err(&refused));
    }
}

#[test]
fn two_servers_on_one_data_directory_are_refused() {
    let server = Server::start();
    let second = run(&mut server.tiger(&["serve", "--port", "0"]));
    assert!(!second.status.success());
    assert!(!err(&second).contains("listening"), "{}", err(&second));
}

#[test]
fn a_public_address_needs_an_owner() {
    let data = tempfile::tempdir().unwrap();
    let refused = run(tiger(data.path()).args(["serve", "--port", "0", "--host", "0.0.0.0"]));
    assert!(!refused.status.success() && err(&refused).contains("owner"), "{}", err(&refused));
}

#[test]
fn a_first_start_prints_the_link_that_makes_the_owner() {
    let data = tempfile::tempdir().unwrap();
    let start = || {
        let mut child = tiger(data.path()).args(["serve", "--port", "0", "--memory", "2"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut url = String::new();
        let told = lines.find(|line| {
            if let Some(port) = line.strip_prefix("listening on http://127.0.0.1:") {
                url = format!("http://localhost:{port}");
            }
            line.starts_with("Open ") || line.starts_with("Playground: ")
        });
        (child, url, told.unwrap_or_default())
    };
    let (mut child, url, line) = start();
    let token = line.strip_prefix(&format!("Open {url}/welcome#token=")).and_then(|rest| rest.split(' ').next());
    assert_eq!(token.map(str::len), Some(43), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = tiger_store::Store::open_shared(data.path()).await.unwrap();
        store.create_owner("ada", Some("correct horse battery")).await.unwrap();
        store.close().await;
    });
    let (mut child, url, line) = start();
    assert_eq!(line, format!("Playground: {url}/"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn sigterm_drains_and_ends_well() {
    let mut server = Server::start();
    assert!(Command::new("kill").arg(server.child.id().to_string()).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn two_pulls_of_one_base_keep_out_of_each_others_way() {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(data.path().join("models")).unwrap();
    // As another command that is at it.
    let lock = std::fs::File::create(data.path().join("models/.twice.lock")).unwrap();
    lock.lock().unwrap();
    let pull = || run(tiger(data.path()).args(["pull", nano().to_str().unwrap(), "--name", "twice"]));
    let refused = pull();
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("being pulled already"), "{refused:?}");
    drop(lock);
    assert_eq!(ok(pull()), "twice\n");
}

#[test]
fn a_folder_is_pulled_and_a_broken_one_is_not() {
    let data = tempfile::tempdir().unwrap();
    assert_eq!(ok(run(tiger(data.path()).args(["pull", nano().to_str().unwrap(), "--name", "Other Nano"]))), "other-nano\n");
    assert!(data.path().join("models/other-nano/model.safetensors").exists());
    let broken = data.path().join("broken");
    std::fs::create_dir(&broken).unwrap();
    for file in ["config.json", "tokenizer.json"] {
        std::fs::copy(nano().join(file), broken.join(file)).unwrap();
    }
    std::fs::write(broken.join("model.safetensors"), b"\x10\0\0\0\0\0\0\0nonsense").unwrap();
    let refused = run(tiger(data.path()).args(["pull", broken.to_str().unwrap()]));
    assert!(!refused.status.success() && err(&refused).contains("model.safetensors"), "{}", err(&refused));
    assert!(!data.path().join("models/broken").exists());
}

#[test]
fn a_pull_resumes_checks_and_retries() {
    let hub = hub::Hub::start(nano());
    let data = tempfile::tempdir().unwrap();
    let pull = |token: &str| run(tiger(data.path()).args(["pull", "tiger/nano"]).env("HF_ENDPOINT", &hub.url).env("HF_TOKEN", token));
    let refused = pull("wrong");
    assert_eq!(refused.status.code(), Some(4), "{}", err(&refused));
    // The hub breaks the connection in the middle of the weights once; the second request asks for the rest only.
    assert_eq!(ok(pull("secret")), "nano\n");
    let ranges = hub.ranges();
    assert!(ranges.iter().any(|(name, from)| name == "model.safetensors" && *from > 0), "{ranges:?}");
    let (got, want) = (data.path().join("models/nano/model.safetensors"), nano().join("model.safetensors"));
    assert!(std::fs::read(got).unwrap() == std::fs::read(want).unwrap());
    hub.corrupt();
    std::fs::remove_dir_all(data.path().join("models")).unwrap();
    let wrong = pull("secret");
    assert!(!wrong.status.success() && err(&wrong).contains("sha256"), "{}", err(&wrong));
    assert!(!data.path().join("models/nano").exists());
}

#[test]
fn the_page_pulls_what_the_command_line_pulls() {
    let hub = hub::Hub::start(nano());
    let server = Server::start_with(&[("HF_ENDPOINT", &hub.url), ("HF_TOKEN", "secret")]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = tiger_store::Store::open_shared(server.data.path()).await.unwrap();
        let owner = store.create_owner("ada", Some("correct horse battery")).await.unwrap();
        let cookie = format!("tiger_session={}", store.create_session(owner.id, 1000.0).await.unwrap());
        store.close().await;
        let client = reqwest::Client::new();
        let pulls = format!("{}/api/pulls", server.url);
        let begun =
            client.post(&pulls).header("cookie", &cookie).header("x-tiger-csrf", "1").json(&serde_json::json!({"model": "tiger/nano"}));
        assert_eq!(begun.send().await.unwrap().status().as_u16(), 202);
        for _ in 0..600 {
            let list: serde_json::Value = client.get(&pulls).header("cookie", &cookie).send().await.unwrap().json().await.unwrap();
            match list[0]["state"].as_str().unwrap() {
                "done" => {
                    assert!(list[0]["total_bytes"].as_u64().unwrap() > 1_000_000 && list[0]["bytes"] == list[0]["total_bytes"], "{list}");
                    return;
                }
                "failed" => panic!("{list}"),
                _ => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
        panic!("the pull does not end");
    });
    assert!(server.json(&["models", "ls"]).as_array().unwrap().iter().any(|model| model["id"] == "nano" && model["status"] == "ready"));
}
