//! `tiger bench --train` beside another trainer, which here is a script that answers at once.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::{err, ok, run, tiger};

fn bench(options: &[&str]) -> Output {
    let data = tempfile::tempdir().unwrap();
    let fixed = ["bench", "--json", "--model", "nano", "--threads", "1", "--rounds", "1"];
    run(tiger(data.path()).args(fixed).args(options))
}

fn beside(sequences: &str) -> Output {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/python.sh");
    bench(&["--train", "--sequences", sequences, "--python", python.to_str().unwrap()])
}

#[test]
fn training_is_measured_beside_peft() {
    let found: Value = serde_json::from_str(&ok(beside("1"))).unwrap();
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(names, ["train 1 × 256", "train 1 × 256, checkpointed"]);
    for (row, theirs) in rows.iter().zip([20.0, 5.0]) {
        let ours = row["tokens_per_s"].as_f64().unwrap();
        assert_eq!(row["peft_tokens_per_s"].as_f64(), Some(theirs));
        assert_eq!(row["ratio"].as_f64(), Some(ours / theirs));
        assert_eq!(row["peft_peak_resident_bytes"].as_u64(), Some(40_000_000_000), "the allocator is told to keep its memory");
        assert!(row["llama_tokens_per_s"].is_null());
        let (own, whole) = (row["peak_resident_bytes"].as_u64().unwrap(), found["peak_resident_bytes"].as_u64().unwrap());
        assert!(own <= whole, "{own} {whole}");
    }
}

#[test]
fn training_alone_has_the_shared_prompt_too() {
    let found: Value = serde_json::from_str(&ok(bench(&["--train", "--sequences", "3"]))).unwrap();
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(names[1..], ["train 3 × 256, one pass", "train 3 × 256, checkpointed", "train 8 × (1024 + 64), shared"]);
    assert!(rows.iter().all(|row| row["peft_tokens_per_s"].is_null() && row["share"].as_f64().unwrap() > 0.0));
}

#[test]
fn an_interpreter_that_cannot_is_named() {
    let lacking = err(&beside("2"));
    assert!(lacking.contains("PyTorch and PEFT failed") && lacking.contains("No module named 'peft'"), "{lacking}");
    let talking = err(&beside("3"));
    assert!(talking.contains("python.sh printed no line with tokens_per_s"), "{talking}");
    let missing = err(&bench(&["--train", "--sequences", "1", "--python", "/nowhere/python"]));
    assert!(missing.contains("/nowhere/python does not start"), "{missing}");
    for wrong in [&["--python", "python3"][..], &["--sequences", "4"], &["--train", "--sequences", "0"]] {
        assert_eq!(bench(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
