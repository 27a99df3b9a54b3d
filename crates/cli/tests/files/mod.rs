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
    a_gguf_file_is_a_base(&server, Path::new(&path("tiger-nano-bf16.gguf")), Path::new(&path("mine-q8_0.gguf")));
    let refused = run(&mut server.tiger(&["export", "tiger-nano", "--to", &path("none")]));
    assert!(refused.status.code() == Some(1) && err(&refused).contains("--format"), "{}{}", out(&refused), err(&refused));
}

/// Two files of the server's models, pulled while it runs: `exact` holds the built-in model, `small` a trained copy in Q8_0.
fn a_gguf_file_is_a_base(server: &Server, exact: &Path, small: &Path) {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    assert_eq!(ok(run(&mut server.tiger(&["pull", &text(exact), "--name", "Same Nano"]))), "same-nano\n");
    assert_eq!(ok(run(&mut server.tiger(&["pull", &text(small)]))), "mine-q8_0\n");
    assert_eq!(answer(server, "same-nano"), answer(server, "tiger-nano"), "the same bits");
    assert!(!answer(server, "mine-q8_0").is_empty());
    let folder = server.data.path().join("models/same-nano");
    let names = ["model.gguf", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    assert!(names.iter().all(|name| folder.join(name).is_file()));
    let listed = server.json(&["models", "show", "same-nano"]);
    assert_eq!(listed["size_bytes"], std::fs::metadata(exact).unwrap().len(), "{listed}");

    ok(run(&mut server.tiger(&["models", "create", "of-gguf", "--parent", "mine-q8_0", "--rank", "4"])));
    let before = answer(server, "of-gguf");
    let (rated, opposite) = (exact.with_file_name("rated.jsonl"), exact.with_file_name("opposite.jsonl"));
    let swapped = std::fs::read_to_string(rated).unwrap().replace("Arr!", "x").replace("Madrid.", "Arr!").replace("\"x\"", "\"Madrid.\"");
    std::fs::write(&opposite, swapped).unwrap();
    ok(run(&mut server.tiger(&["train", &text(&opposite), "--model", "of-gguf", "--epochs", "3", "--learning-rate", "0.05"])));
    assert_ne!(answer(server, "of-gguf"), before, "the training must show");
    let merged = text(&exact.with_file_name("of-gguf"));
    ok(run(&mut server.tiger(&["export", "of-gguf", "--format", "hf", "--to", &merged])));
    let pulled = tempfile::tempdir().unwrap();
    assert_eq!(ok(run(tiger(pulled.path()).args(["pull", &merged]))), "of-gguf\n", "it is a whole checkpoint");
    let again = text(&exact.with_file_name("again.gguf"));
    ok(run(&mut server.tiger(&["export", "same-nano", "--format", "gguf", "--to", &again])));
    assert!(std::fs::metadata(&again).unwrap().len() > 0);

    let beside = Server::start_as(&["--model-dir", &text(exact)], &[]);
    assert_eq!(answer(&beside, "tiger-nano-bf16"), answer(server, "tiger-nano"), "from where it lies");
    assert_eq!(beside.json(&["models", "show", "tiger-nano-bf16"])["size_bytes"], std::fs::metadata(exact).unwrap().len());

    let import = run(&mut server.tiger(&["import", &text(exact)]));
    assert!(import.status.code() == Some(2) && err(&import).contains("tiger pull"), "{}", err(&import));
    let cut = exact.with_file_name("cut.gguf");
    std::fs::write(&cut, &std::fs::read(exact).unwrap()[..100_000]).unwrap();
    let refused = run(&mut server.tiger(&["pull", &text(&cut)]));
    assert!(refused.status.code() == Some(1) && err(&refused).contains("may be cut"), "{}", err(&refused));
    let several = run(&mut server.tiger(&["pull", &text(exact.parent().unwrap())]));
    assert!(several.status.code() == Some(1) && err(&several).contains("several GGUF files"), "{}", err(&several));
}
