//! GGUF files: the very bytes that Python's `gguf` read and found right (`golden/gguf/check.py`), and refusals by name.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tiger_formats::digest::sha256_bytes;
use tiger_formats::{Checkpoint, FormatError, GgufFile, GgufType, Merged};

use crate::support::{put, refuses, with};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn files_are_those_that_were_checked() {
    let checked: Value = serde_json::from_slice(&std::fs::read(root("golden/gguf/checked.json")).unwrap()).unwrap();
    let checked = checked.as_object().unwrap();
    assert_eq!(checked.len(), 9);
    for (case, digest) in checked {
        let (base, kind) = case.rsplit_once('.').unwrap();
        let nano = root("models/nano/checkpoint");
        let (base, tokenizer) = if base == "nano" { (nano.clone(), nano) } else { (root("golden/model").join(base), root("golden/gguf")) };
        let checkpoint = Checkpoint::open(&base).unwrap();
        let merged = Merged::new(&checkpoint, None);
        let kind = if kind == "q8_0" { GgufType::Q8_0 } else { GgufType::Bf16 };
        let mut out = Vec::new();
        GgufFile::new(&merged, &tokenizer, "golden", kind).unwrap().write(&mut out).unwrap();
        assert_eq!(sha256_bytes(&out), digest.as_str().unwrap(), "{case}: run golden/gguf/check.py");
    }
}

#[test]
fn what_llama_cpp_would_read_otherwise_is_refused() {
    let checkpoint = Checkpoint::open(&root("golden/model/mha_untied_f32")).unwrap();
    let merged = Merged::new(&checkpoint, None);
    let folder = tempfile::tempdir().unwrap();
    let good: Value = serde_json::from_slice(&std::fs::read(root("golden/gguf/tokenizer.json")).unwrap()).unwrap();
    let written = |tokenizer: Value| -> Result<Vec<u8>, FormatError> {
        put(folder.path(), "tokenizer.json", tokenizer.to_string());
        let mut out = Vec::new();
        GgufFile::new(&merged, folder.path(), "x", GgufType::Bf16)?.write(&mut out).unwrap();
        Ok(out)
    };
    let read = |tokenizer: Value| written(tokenizer).map(|_| ());
    read(good.clone()).unwrap();
    let split = |regex: &str| {
        json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]})
    };
    refuses(read(with(&good, json!({"pre_tokenizer": split("a+")}))), &["pre_tokenizer", "Llama 3"]);
    refuses(read(with(&good, json!({"pre_tokenizer": {"type": "Whitespace"}}))), &["pre_tokenizer"]);
    let digits = |alone: bool| {
        json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": alone},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]})
    };
    // llama.cpp's name of these rules: `\p{N}`, then GPT-2's.
    let named = written(with(&good, json!({"pre_tokenizer": digits(true)}))).unwrap();
    assert!(named.windows(6).any(|bytes| bytes == b"smollm"));
    refuses(read(with(&good, json!({"pre_tokenizer": digits(false)}))), &["pre_tokenizer", "SmolLM"]);
    refuses(read(with(&good, json!({"normalizer": {"type": "Lowercase"}}))), &["normalizer", "NFC"]);
    let fallback = with(&good["model"], json!({"byte_fallback": true}));
    refuses(read(with(&good, json!({"model": fallback}))), &["model.type", "byte-level BPE"]);
    let mut large = good.clone();
    large["model"]["vocab"]["beyond"] = json!(97);
    refuses(read(large), &["beyond", "97"]);
    let biases = Checkpoint::open(&root("golden/model/qwen3_biases_f32")).unwrap();
    let written = GgufFile::new(&Merged::new(&biases, None), &root("golden/gguf"), "x", GgufType::Bf16).map(|_| ());
    refuses(written, &["attention_bias", "norms of queries and keys"]);
    let yarn = Checkpoint::open(&root("golden/model/qwen3_yarn_f32")).unwrap();
    let written = GgufFile::new(&Merged::new(&yarn, None), &root("golden/gguf"), "x", GgufType::Bf16).map(|_| ());
    refuses(written, &["rope_type", "yarn with defaults"]);
}
