//! `generation_config.json`: advice within bounds.

use serde_json::json;
use tiger_formats::GenerationConfig;

use crate::support::{put, refuses};

#[test]
fn advice_is_read_and_checked() {
    let parse = |value: serde_json::Value| GenerationConfig::parse("generation_config.json", value.to_string().as_bytes(), 100);
    assert_eq!(parse(json!({"do_sample": "whatever", "max_length": 20})).unwrap(), GenerationConfig::default());
    let full = parse(json!({"eos_token_id": 7, "bos_token_id": 1, "temperature": 0.6, "top_p": 0.9, "top_k": 50})).unwrap();
    let expected = GenerationConfig { eos_ids: vec![7], bos_id: Some(1), temperature: Some(0.6), top_p: Some(0.9), top_k: Some(50) };
    assert_eq!(full, expected);
    assert_eq!(parse(json!({"eos_token_id": [3, 4], "top_k": 0})).unwrap().eos_ids, [3, 4]);
    for (value, field) in [
        (json!({"eos_token_id": 100}), "eos_token_id"),
        (json!({"bos_token_id": [1, 2]}), "bos_token_id"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"top_p": 1.5}), "top_p"),
        (json!({"top_k": -1}), "top_k"),
        (json!([]), "file"),
    ] {
        refuses(parse(value), &["generation_config.json", field]);
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(GenerationConfig::open(dir.path(), 100).unwrap().is_none());
    put(dir.path(), "generation_config.json", "{}");
    assert!(GenerationConfig::open(dir.path(), 100).unwrap().is_some());
}
