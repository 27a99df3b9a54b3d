//! One entry for each kind of untrusted file, shared by the fuzz targets and by the test that replays their corpora.
//! Not part of the public interface. An entry must return for every input; what it returns does not matter.

use crate::architecture::{Architecture, Rope, RopeScaling};
use crate::checkpoint::parse_index;
use crate::config::ModelConfig;
use crate::generation::GenerationConfig;
use crate::peft::Adapter;
use crate::safetensors::SafeTensors;
use crate::template::{ChatTemplate, Ending, Message, Render};

/// An entry.
pub type Entry = fn(&[u8]);

/// Every entry by the name of its target and of its corpus folder.
pub const ENTRIES: [(&str, Entry); 7] = [
    ("safetensors", safetensors),
    ("config", config),
    ("index", index),
    ("tokenizer_config", tokenizer_config),
    ("template", template),
    ("peft", peft),
    ("packed", packed),
];

/// A safetensors file; every tensor is read to its last byte.
pub fn safetensors(data: &[u8]) {
    if let Ok(file) = SafeTensors::from_bytes("fuzz", data) {
        for (name, tensor) in file.iter() {
            let elements: usize = tensor.shape.iter().product();
            assert_eq!(elements * tensor.dtype.bytes(), tensor.bytes.len(), "{name}");
            let _ = tensor.to_f32();
        }
    }
}

/// `config.json`, then the same bytes as `generation_config.json`.
pub fn config(data: &[u8]) {
    if let Ok(config) = ModelConfig::parse("fuzz", data) {
        let a = &config.architecture;
        assert!(a.head_dim.is_multiple_of(2) && a.heads.is_multiple_of(a.kv_heads) && a.parameters() > 0);
    }
    let _ = GenerationConfig::parse("fuzz", data, 1000);
}

/// `model.safetensors.index.json`.
pub fn index(data: &[u8]) {
    if let Ok(map) = parse_index(data) {
        assert!(map.values().all(|file| !file.contains(['/', '\\'])));
    }
}

/// `tokenizer_config.json`: its template renders a conversation.
pub fn tokenizer_config(data: &[u8]) {
    if let Ok(Some(template)) = ChatTemplate::from_bytes(None, Some(data), Some(data)) {
        render(&template);
    }
}

/// `chat_template.jinja`.
pub fn template(data: &[u8]) {
    if let Ok(Some(template)) = ChatTemplate::from_bytes(Some(data), None, None) {
        render(&template);
    }
}

fn render(template: &ChatTemplate) {
    let messages = [Message::new("system", "Be brief."), Message::new("user", "Hi <b>"), Message::new("assistant", "<think>x</think>y")];
    for ending in [Ending::Closed, Ending::GenerationPrompt, Ending::ContinueFinal] {
        let _ = template.render(&messages, &Render { ending, tools: None, now_unix_s: 0 });
    }
}

/// The beginning of a file of packed weights.
pub fn packed(data: &[u8]) {
    crate::packed::fuzz(data);
}

/// An adapter: its configuration, a zero byte, its weights.
pub fn peft(data: &[u8]) {
    let base = Architecture {
        hidden: 8,
        layers: 1,
        heads: 4,
        kv_heads: 2,
        head_dim: 2,
        ffn: 12,
        vocab: 16,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        context_length: 64,
        tied: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
    };
    let (config, weights) = match data.iter().position(|b| *b == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[][..]),
    };
    if let Ok(adapter) = Adapter::from_bytes(config, weights, &base) {
        let again = adapter
            .weights_bytes()
            .and_then(|bytes| Adapter::from_bytes(&adapter.config_bytes("fuzz"), &bytes, &base).map_err(std::io::Error::other));
        assert!(again.is_ok_and(|again| again == adapter), "a read adapter must survive writing");
    }
}
