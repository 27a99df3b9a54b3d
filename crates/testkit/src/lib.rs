//! For tests only: a whole checkpoint folder, tiny, from a seed, that every part of the program can open.
//! Does not know what is tested with it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tiger_formats::modules::required_tensors;
use tiger_formats::{FormatError, ModelConfig};

/// What a tiny checkpoint is like.
#[derive(Debug, Clone)]
pub struct Tiny {
    /// Seed of the weights.
    pub seed: u64,
    /// Context, tokens.
    pub context: usize,
    /// The template opens a thought, as DeepSeek R1's does.
    pub reasoning: bool,
    /// `<|end|>` is improbable, so that answers go on to `max_tokens`.
    pub talkative: bool,
}

impl Default for Tiny {
    fn default() -> Tiny {
        Tiny { seed: 1, context: 512, reasoning: false, talkative: false }
    }
}

/// Id of the first added token; below it are the bytes and the merges.
const ADDED: usize = 262;
/// Vocabulary: bytes, merges, added tokens, padding.
pub const VOCAB: usize = 272;
/// `<|end|>`, which ends a turn.
pub const END: u32 = 263;
const ADDED_TOKENS: [(&str, bool); 7] = [
    ("<|begin|>", true),
    ("<|end|>", true),
    ("<|system|>", true),
    ("<|user|>", true),
    ("<|assistant|>", true),
    ("<think>", false),
    ("</think>", false),
];
/// Standard deviation of the weights: logits of a few units, so that text is neither fixed nor uniform.
const STD: f64 = 0.3;

const TEMPLATE: &str = "{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'system' %}
        {{- '<|system|>' + message['content'] + '<|end|>' }}
    {%- elif message['role'] == 'user' %}
        {%- if not loop.first and messages[loop.index0 - 1]['role'] == 'user' %}
            {{- raise_exception('user and assistant must take turns') }}
        {%- endif %}
        {{- '<|user|>' + message['content'] + '<|end|>' }}
    {%- else %}
        {{- '<|assistant|>' + message['content'] + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
";

const REASONING_TEMPLATE: &str = "{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '<|user|>' + message['content'] + '<|end|>' }}
    {%- else %}
        {%- set content = message['content'] %}
        {%- if '</think>' in content %}
            {%- set content = content.split('</think>')[-1] %}
        {%- endif %}
        {{- '<|assistant|>' + content + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|><think>\\n' }}
{%- endif %}
";

/// Writes `config.json`, `generation_config.json`, `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and
/// `model.safetensors` into `dir`, which is made where it does not exist.
///
/// # Errors
/// What the operating system says.
pub fn tiny_checkpoint(dir: &Path, tiny: &Tiny) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let write = |file: &str, value: &Value| std::fs::write(dir.join(file), value.to_string());
    let config = config(tiny);
    write("config.json", &config)?;
    write("generation_config.json", &json!({"eos_token_id": END, "bos_token_id": ADDED, "temperature": 0.7, "top_p": 0.9}))?;
    write("tokenizer.json", &tokenizer())?;
    write("tokenizer_config.json", &json!({"bos_token": "<|begin|>", "eos_token": "<|end|>"}))?;
    std::fs::write(dir.join("chat_template.jinja"), if tiny.reasoning { REASONING_TEMPLATE } else { TEMPLATE })?;
    let weights = weights(&config, tiny).map_err(|error| std::io::Error::other(error.to_string()))?;
    std::fs::write(dir.join("model.safetensors"), weights)
}

fn config(tiny: &Tiny) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": tiny.context, "tie_word_embeddings": true, "hidden_act": "silu", "bos_token_id": ADDED, "eos_token_id": END
    })
}

/// GPT-2's alphabet: a printable character for every byte.
fn alphabet() -> Vec<char> {
    let mut next = 256;
    let stands = |byte: u32| {
        let printable = (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
        let code = if printable { byte } else { next };
        next += u32::from(!printable);
        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    (0..256).map(stands).collect()
}

/// Byte-level BPE: token `b` is byte `b`, then six merges, then the added tokens.
fn tokenizer() -> Value {
    let mut vocab: BTreeMap<String, usize> = alphabet().iter().enumerate().map(|(i, c)| (c.to_string(), i)).collect();
    let merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["Ġ", "w"], ["ð", "Ł"]];
    for (i, [a, b]) in merges.iter().enumerate() {
        vocab.insert(format!("{a}{b}"), 256 + i);
    }
    let added: Vec<Value> = ADDED_TOKENS
        .iter()
        .enumerate()
        .map(|(i, (content, special))| {
            json!({"id": ADDED + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": merges}
    })
}

/// A safetensors file of f32 tensors: length of the header, header, data.
fn weights(config: &Value, tiny: &Tiny) -> Result<Vec<u8>, FormatError> {
    let architecture = ModelConfig::parse("config.json", config.to_string().as_bytes())?.architecture;
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    let mut state = tiny.seed;
    for (name, shape) in required_tensors(&architecture) {
        let begin = data.len();
        let norm = shape.len() == 1;
        // An embedding of zeros has the logit 0, far below the largest of the others (embeddings are tied).
        let silent = (tiny.talkative && name.contains("embed_tokens")).then_some(END as usize);
        let width = shape.last().copied().unwrap_or(1);
        for at in 0..shape.iter().product::<usize>() {
            let value = if norm { 1.0 } else { (normal(&mut state) * STD) as f32 };
            let value = if silent == Some(at / width) { 0.0 } else { value };
            data.extend_from_slice(&value.to_le_bytes());
        }
        header.insert(name, json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(&header);
    file.extend_from_slice(&data);
    Ok(file)
}

/// The next number of SplitMix64 (Steele et al. 2014), for tests that need many.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sum of twelve uniforms: close enough to a normal, the same on every machine.
fn normal(state: &mut u64) -> f64 {
    let uniform = |state: &mut u64| (split_mix(state) >> 11) as f64 / (1u64 << 53) as f64;
    (0..12).map(|_| uniform(state)).sum::<f64>() - 6.0
}
