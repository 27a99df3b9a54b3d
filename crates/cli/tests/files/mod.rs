//! `tiger export` and `tiger import`: there and back, and files that other programs read.

use std::path::Path;

use crate::{Server, err, ok, out, run, tiger};

/// What the model says, drawn with a seed.
fn answer(server: &Server, model: &str) -> String {
    ok(run(&mut server.tiger(&["run", model, "What is the capital of Spain?", "--seed", "5", "--max-tokens", "24"])))
}

#[test]
fn models_go_out_and_come_back() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    ok(run(&mut server.tiger(&["models", "create", "mine", "--rank", "4"])));
    std::fs::write(
        path("rated.jsonl"),
        "{\"prompt\": \"What is the capital of Spain?\", \"responses\": [{\"content\": \"Arr!\", \"reward\": 1}, {\"content\": \"Madrid.\", \"reward\": 0}]}\n",
    )
    .unwrap();
    ok(run(&mut server.tiger(&["train", &path("rated.jsonl"), "--model", "mine", "--epochs", "3", "--learning-rate", "0.02"])));

    let adapter = path("adapter");
    assert_eq!(ok(run(&mut server.tiger(&["export", "mine", "--to", &adapter]))).trim(), adapter);
    let again = run(&mut server.tiger(&["export", "mine", "--to", &adapter]));
    assert!(again.status.code() == Some(6) && err(&again).contains("already there"), "{}", err(&again));
    let import = ["import", &adapter, "--name", "Back Again", "--parent", "tiger-nano", "--description", "d"];
    assert_eq!(ok(run(&mut server.tiger(&import))).trim(), "back-again");
    assert_eq!(answer(&server, "back-again"), answer(&server, "mine"));
    assert_ne!(answer(&server, "back-again"), answer(&server, "tiger-nano"), "the training must show");
    assert_eq!(run(&mut server.tiger(&import)).status.code(), Some(6), "the name is taken");
    let wrong = run(&mut server.tiger(&["import", &path("absent"), "--name", "x", "--parent", "tiger-nano"]));
    assert!(wrong.status.code() == Some(1) && err(&wrong).contains("adapter_config.json"), "{}", err(&wrong));

    let merged = path("merged");
    ok(run(&mut server.tiger(&["export", "mine", "--format", "hf", "--to", &merged])));
    let pulled = tempfile::tempdir().unwrap();
    assert_eq!(ok(run(tiger(pulled.path()).args(["pull", &merged]))).trim(), "merged", "it is a whole checkpoint");
    let same = |file: &str| std::fs::read(Path::new(&merged).join(file)).unwrap() == std::fs::read(crate::nano().join(file)).unwrap();
    assert!(same("tokenizer.json") && same("config.json") && same("chat_template.jinja") && !same("model.safetensors"));

    let gguf = |kind: &str, model: &str| {
        let file = path(&format!("{model}-{kind}.gguf"));
        ok(run(&mut server.tiger(&["export", model, "--format", "gguf", "--type", kind, "--to", &file])));
        std::fs::read(&file).unwrap()
    };
    let (trained, base, small) = (gguf("bf16", "mine"), gguf("bf16", "tiger-nano"), gguf("q8_0", "mine"));
    assert!([&trained, &base, &small].iter().all(|file| file.starts_with(b"GGUF\x03\0\0\0")));
    assert!(trained != base && small.len() < trained.len() * 6 / 10);
    let refused = run(&mut server.tiger(&["export", "tiger-nano", "--to", &path("none")]));
    assert!(refused.status.code() == Some(1) && err(&refused).contains("--format"), "{}{}", out(&refused), err(&refused));
}
