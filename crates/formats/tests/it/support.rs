//! Tiny files written from a counter, so that every run sees the same bytes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tiger_formats::safetensors::{TensorData, write};
use tiger_formats::{Architecture, Dtype, FormatError, ModelConfig};

/// A valid tiny Llama configuration.
pub fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 12,
        "vocab_size": 16,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": false,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": [2, 3]
    })
}

/// `base` with `changes` put over it; null removes nothing, it is what the file then says.
pub fn with(base: &Value, changes: Value) -> Value {
    let mut out = base.clone();
    for (key, value) in changes.as_object().unwrap() {
        out[key] = value.clone();
    }
    out
}

/// `base` without `key`.
pub fn without(base: &Value, key: &str) -> Value {
    let mut out = base.clone();
    out.as_object_mut().unwrap().remove(key);
    out
}

pub fn architecture(config: &Value) -> Architecture {
    ModelConfig::parse("config.json", config.to_string().as_bytes()).unwrap().architecture
}

/// Deterministic bytes that are not all alike.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

/// A safetensors file of BF16 noise with these names and shapes.
pub fn weights(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let data: Vec<Vec<u8>> = tensors.iter().enumerate().map(|(i, (_, s))| noise(2 * s.iter().product::<usize>(), i as u32)).collect();
    let list: Vec<TensorData<'_>> = tensors
        .iter()
        .zip(&data)
        .map(|((name, shape), bytes)| TensorData { name: name.clone(), dtype: Dtype::BF16, shape: shape.clone(), bytes })
        .collect();
    let mut out = Vec::new();
    write(&mut out, &list, &BTreeMap::new()).unwrap();
    out
}

/// A raw safetensors file with this header text.
pub fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

pub fn put(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), content).unwrap();
}

/// Asserts that `result` is an error whose message holds every one of `parts`.
#[track_caller]
pub fn refuses<T: std::fmt::Debug>(result: Result<T, FormatError>, parts: &[&str]) {
    let message = result.unwrap_err().to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}
