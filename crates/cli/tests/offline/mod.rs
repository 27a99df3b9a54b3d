//! `tiger train` on demonstrations and preference pairs: validation, early stop, the way back.

use serde_json::{Value, json};

use super::loops::questions;
use super::{Server, err, ok, out, run};

/// Questions of the examples as lines of training data.
fn lines(file: &str, line: impl Fn(&str, &str) -> Value) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let asked = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    asked.map(|asked| format!("{}\n", line(asked["prompt"].as_str().unwrap(), asked["answer"].as_str().unwrap()))).collect()
}

fn pirate(answer: &str) -> String {
    format!("Arr, it be {answer}, matey!")
}

fn train(server: &Server, lines: &str, more: &[&str]) -> std::process::Output {
    let file = server.data.path().join("lines.jsonl");
    std::fs::write(&file, lines).unwrap();
    run(server.tiger(&["train", file.to_str().unwrap(), "--model", "m"]).args(more))
}

/// The lines of one kind of a run with `--json`.
fn with(text: &str, field: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| !line[field].is_null()).collect()
}

#[test]
fn demonstrations_are_learnt_and_validated() {
    let server = Server::start();
    let file = questions(&server, 40);
    ok(run(&mut server.tiger(&["models", "create", "m"])));
    let demonstrations = lines(&file, |question, answer| json!({"prompt": question, "completion": pirate(answer)}));
    let trained = train(&server, &demonstrations, &["--epochs", "3", "--validation-share", "0.2", "--objective", "sft", "--json"]);
    assert!(!err(&trained).contains("single_response"), "{}", err(&trained));
    assert!(err(&trained).contains("epoch 3: validation loss "), "{}", err(&trained));
    assert!(err(&trained).matches("low_entropy: ").count() <= 1, "each kind of note is said once: {}", err(&trained));
    let text = ok(trained);
    let losses: Vec<f64> = with(&text, "validation_loss").iter().map(|line| line["validation_loss"].as_f64().unwrap()).collect();
    assert_eq!(losses.len(), 4);
    assert!(losses.windows(2).all(|pair| pair[1] < pair[0]), "{losses:?}");
    // 32 lines, 8 a call, 3 epochs; measuring makes no revision.
    assert_eq!(with(&text, "kl_parent").len(), 12);
    assert_eq!(server.json(&["models", "show", "m"])["revision"], 12);
    let answer = ok(run(&mut server.tiger(&["run", "m", "What is the capital of France?", "--temperature", "0"])));
    assert!(answer.contains("Arr"), "{answer}");
}

#[test]
fn pairs_that_make_it_worse_are_stopped_early_and_undone() {
    let server = Server::start();
    let file = questions(&server, 16);
    ok(run(&mut server.tiger(&["models", "create", "m"])));
    // What is validated is the opposite of what is trained, so the loss can only rise.
    let prefer = |chosen: fn(&str) -> String, rejected: fn(&str) -> String| {
        lines(&file, |question, answer| json!({"prompt": question, "chosen": chosen(answer), "rejected": rejected(answer)}))
    };
    let plain = |answer: &str| answer.to_owned();
    let opposite = server.data.path().join("opposite.jsonl");
    std::fs::write(&opposite, prefer(plain, pirate)).unwrap();
    let pairs = prefer(pirate, plain);
    let flags = ["--epochs", "9", "--learning-rate", "0.001", "--validation", opposite.to_str().unwrap(), "--json"];
    let stopped = train(&server, &pairs, &[&flags[..], &["--patience", "2"]].concat());
    assert!(err(&stopped).contains("stopped after epoch 2") && err(&stopped).contains("of pairs"), "{}", err(&stopped));
    let text = ok(stopped);
    let seen = with(&text, "validation_loss");
    let preferred: Vec<f64> = seen.iter().filter_map(|line| line["preferred"].as_f64()).collect();
    assert!(preferred.len() == 3 && preferred[2] < preferred[0], "{preferred:?}");
    let back = text.lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap()).unwrap();
    assert_eq!((&back["rolled_back_to"], &back["revision"]), (&json!(0), &json!(5)));
    assert_eq!(server.json(&["models", "show", "m", "--revisions"])["revisions"][0]["rolled_back_to"], 0);
    // Without --patience it is measured only.
    let measured = train(&server, &pairs, &["--validation-share", "0.25"]);
    assert!(out(&measured).contains("revision 7, 2 of 2 calls changed it"), "{}{}", out(&measured), err(&measured));
}

#[test]
fn lines_that_do_not_go_together_are_named() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("lines.jsonl");
    let pair = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
    for (line, says) in [
        (json!({"prompt": "q", "completion": "a"}), "lines.jsonl, line 2 is a demonstration and line 1 is a preference pair"),
        (json!({"prompt": "q", "chosen": "a"}), "lines.jsonl, line 2: it lacks `rejected`"),
        (json!({"messages": [{"role": "user", "content": "q"}]}), "lines.jsonl, line 2: `messages` must end with an assistant message"),
    ] {
        std::fs::write(&file, format!("{pair}\n{line}\n")).unwrap();
        let refused = run(super::tiger(data.path()).args(["train", file.to_str().unwrap(), "--model", "m", "--api-key", "k"]));
        assert!(refused.status.code() == Some(1) && err(&refused).contains(says), "{}", err(&refused));
    }
}
