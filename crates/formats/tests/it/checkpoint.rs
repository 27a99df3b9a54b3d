//! Checkpoint folders: one file or shards, tied or not, and whatever is missing is named.

use serde_json::{Value, json};
use tempfile::TempDir;
use tiger_formats::modules::{EMBEDDING, HEAD, attention_norm, required_tensors};
use tiger_formats::{Checkpoint, Dtype, Module};

use crate::support::{architecture, llama_config, put, raw_safetensors, refuses, weights, with, without};

type Tensors = Vec<(String, Vec<usize>)>;

fn folder(config: &Value, tensors: &Tensors) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "config.json", config.to_string());
    put(dir.path(), "model.safetensors", weights(tensors));
    dir
}

fn needed(config: &Value) -> Tensors {
    required_tensors(&architecture(config))
}

#[test]
fn a_single_file_opens() {
    let config = llama_config();
    let tensors = needed(&config);
    let dir = folder(&config, &tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.architecture(), &architecture(&config));
    assert_eq!(checkpoint.total_bytes(), 2 * checkpoint.architecture().parameters());
    for (name, shape) in &tensors {
        let view = checkpoint.tensor(name).unwrap();
        assert_eq!((view.dtype, view.shape), (Dtype::BF16, &shape[..]));
    }
    let q = checkpoint.tensor(&Module::Q.weight(1)).unwrap();
    assert_eq!((Module::Q.weight(1).as_str(), q.shape), ("model.layers.1.self_attn.q_proj.weight", &[8, 8][..]));
    refuses(checkpoint.tensor("model.layers.2.input_layernorm.weight"), &["model.layers.2"]);

    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    let built_in = Checkpoint::from_bytes(config.to_string().as_bytes(), bytes).unwrap();
    assert_eq!(built_in.tensor(EMBEDDING).unwrap().bytes, checkpoint.tensor(EMBEDDING).unwrap().bytes);
}

#[test]
fn biases_are_part_of_the_architecture() {
    let config = with(&without(&llama_config(), "architectures"), json!({"model_type": "qwen2"}));
    let tensors = needed(&config);
    assert!(tensors.contains(&("model.layers.0.self_attn.k_proj.bias".to_owned(), vec![4])));
    let checkpoint = Checkpoint::open(folder(&config, &tensors).path()).unwrap();
    assert_eq!(checkpoint.total_bytes(), 2 * checkpoint.architecture().parameters());
    // The same weights under a configuration without biases would be another model.
    let plain = folder(&llama_config(), &tensors);
    refuses(Checkpoint::open(plain.path()), &["model.safetensors", "k_proj.bias", "no place"]);
}

#[test]
fn tying_follows_the_flag_and_without_one_the_head() {
    let full = needed(&llama_config());
    let headless: Tensors = full.iter().filter(|(name, _)| name != HEAD).cloned().collect();
    let silent = without(&llama_config(), "tie_word_embeddings");
    let tied = with(&llama_config(), json!({"tie_word_embeddings": true}));
    let opens = |config: &Value, tensors: &Tensors| Checkpoint::open(folder(config, tensors).path()).map(|c| c.architecture().tied);
    assert!(!opens(&silent, &full).unwrap());
    assert!(opens(&silent, &headless).unwrap());
    assert!(opens(&tied, &headless).unwrap());
    assert!(opens(&tied, &full).unwrap());
    refuses(opens(&llama_config(), &headless), &["lm_head.weight", "is missing", "[16, 8]"]);
}

#[test]
fn wrong_tensors_are_named() {
    let config = llama_config();
    let change = |f: &dyn Fn(&mut Tensors)| {
        let mut tensors = needed(&config);
        f(&mut tensors);
        let dir = folder(&config, &tensors);
        Checkpoint::open(dir.path()).map(|_| ())
    };
    let norm = attention_norm(1);
    change(&|t| t.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), vec![1]))).unwrap();
    refuses(change(&|t| t.retain(|(name, _)| *name != norm)), &["model.safetensors", &norm, "is missing"]);
    refuses(change(&|t| t[0].1 = vec![16, 9]), &[EMBEDDING, "[16, 9]", "[16, 8]"]);
    refuses(change(&|t| t[0].1 = vec![8, 16]), &[EMBEDDING, "[8, 16]"]);
    refuses(change(&|t| t.push(("model.layers.2.input_layernorm.weight".to_owned(), vec![8]))), &["model.layers.2", "no place"]);
}

#[test]
fn a_type_that_is_no_weight_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "config.json", llama_config().to_string());
    let mut offset = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in needed(&llama_config()) {
        let end = offset + shape.iter().product::<usize>();
        header.insert(name, json!({"dtype": "I8", "shape": shape, "data_offsets": [offset, end]}));
        offset = end;
    }
    put(dir.path(), "model.safetensors", raw_safetensors(&Value::Object(header).to_string(), &vec![0; offset]));
    refuses(Checkpoint::open(dir.path()), &["I8", "F32, F16, BF16"]);
}

#[test]
fn shards_open_through_the_index() {
    let config = llama_config();
    let tensors = needed(&config);
    let (first, second) = tensors.split_at(5);
    let shard = |i: usize| format!("model-0000{}-of-00002.safetensors", i + 1);
    let index = |map: &Value| json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    let map = || {
        let place = |(i, (name, _)): (usize, &(String, Vec<usize>))| (name.clone(), json!(shard(usize::from(i >= 5))));
        Value::Object(tensors.iter().enumerate().map(place).collect())
    };
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "config.json", config.to_string());
    put(dir.path(), &shard(0), weights(first));
    put(dir.path(), &shard(1), weights(second));
    put(dir.path(), "model.safetensors.index.json", index(&map()));
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.total_bytes(), 2 * checkpoint.architecture().parameters());

    let attempt = |map: Value, parts: &[&str]| {
        put(dir.path(), "model.safetensors.index.json", index(&map));
        refuses(Checkpoint::open(dir.path()), parts);
    };
    attempt(with(&map(), json!({EMBEDDING: shard(1)})), &[&shard(1), EMBEDDING, "places it here"]);
    attempt(without(&map(), EMBEDDING), &["index.json", EMBEDDING, "is missing"]);
    attempt(with(&map(), json!({EMBEDDING: "model-00003-of-00002.safetensors"})), &["00003", "cannot be read"]);
    for name in ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", "", ".x.safetensors", "model.bin", "a\\b.safetensors"] {
        attempt(with(&map(), json!({EMBEDDING: name})), &["weight_map", "plain names"]);
    }
    attempt(json!({"a": 1}), &["index.json"]);
    let many = (0..2000).map(|i| (format!("t{i}"), json!(format!("s{i}.safetensors")))).collect();
    attempt(Value::Object(many), &["more than 1024 files"]);
    put(dir.path(), "model.safetensors.index.json", r#"{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}"#);
    refuses(Checkpoint::open(dir.path()), &["repeated key"]);

    std::fs::remove_file(dir.path().join("model.safetensors.index.json")).unwrap();
    refuses(Checkpoint::open(dir.path()), &["model.safetensors", "cannot be read"]);
}

#[test]
fn a_cut_file_is_refused() {
    let config = llama_config();
    let dir = folder(&config, &needed(&config));
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    for keep in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        refuses(Checkpoint::open(dir.path()), &["model.safetensors"]);
    }
}
