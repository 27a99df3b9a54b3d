//! The small files of a checkpoint folder, made of a GGUF file's metadata. What this program does not compute exactly is refused by name.
//! Does not know where they are written.

use serde_json::{Map, Value, json};

use super::read::Gguf;
use super::tokenizer::Vocabulary;
use super::weights::{factors, same_factors};
use super::{LLAMA, QWEN2, QWEN3, ROPE_FACTORS, rope_factors};
use crate::architecture::RopeScaling;
use crate::config::ModelConfig;
use crate::error::{FormatError, quoted};

/// Low and high end of the ramp of Llama 3's scaling: all released models have these.
const RAMP: [f64; 2] = [1.0, 4.0];
/// Contexts that the frequencies may have been trained for, powers of two; Llama 3's is 2¹³.
const CONTEXTS: std::ops::RangeInclusive<u32> = 2..=20;

/// Control tokens that end a turn or a text by their names, as llama.cpp takes them: a file names one such token only.
const ENDS: [&str; 10] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
    "</s>",
];

/// Keys of switches that this program does not have, behind the architecture's name, with the value that switches nothing.
const FOREIGN_NUMBERS: [(&str, f64); 15] = [
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("attention.scale", 0.0),
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.temperature_scale", 0.0),
    ("embedding_scale", 1.0),
    ("residual_scale", 1.0),
    ("logit_scale", 1.0),
    ("rope.scaling.attn_factor", 1.0),
    ("rope.scaling.yarn_attn_factor", 1.0),
    ("rope.scaling.yarn_ext_factor", 1.0),
    ("rope.scaling.yarn_beta_fast", 32.0),
    ("rope.scaling.yarn_beta_slow", 1.0),
    ("rope.scaling.yarn_log_multiplier", 0.0),
];

/// A file's name in the folder, and its content.
pub type SmallFile = (&'static str, Vec<u8>);

/// `config.json`, `generation_config.json`, `tokenizer.json`, `tokenizer_config.json`, and `chat_template.jinja` where the file has a template: with
/// the file itself as `model.gguf` they are a checkpoint folder.
///
/// # Errors
/// Architectures other than `llama`, `qwen2` and `qwen3`, switches that this program does not have, tokenizers that it cannot write as `tokenizer.json`.
pub fn small_files<B: AsRef<[u8]>>(file: &Gguf<B>) -> Result<Vec<SmallFile>, FormatError> {
    let vocab = vocab(file)?;
    let mut config = config(file, vocab)?;
    let tokenizer = Vocabulary::read(file, vocab)?;
    let ends = ends(file, &tokenizer)?;
    config.extend(ids(&[("bos_token_id", tokenizer.bos), ("eos_token_id", tokenizer.eos), ("pad_token_id", tokenizer.padding)]));
    let mut generation = ids(&[("bos_token_id", tokenizer.bos), ("pad_token_id", tokenizer.padding)]);
    if !ends.is_empty() {
        generation.insert("eos_token_id".to_owned(), json!(ends));
    }
    for (key, field) in [("temp", "temperature"), ("top_p", "top_p")] {
        if let Some(value) = file.number(&format!("general.sampling.{key}"))? {
            generation.insert(field.to_owned(), json!(value));
        }
    }
    if let Some(value) = file.integer("general.sampling.top_k")? {
        generation.insert("top_k".to_owned(), json!(value));
    }
    let mut names = Map::new();
    for (field, id) in
        [("bos_token", tokenizer.bos), ("eos_token", tokenizer.eos), ("unk_token", tokenizer.unknown), ("pad_token", tokenizer.padding)]
    {
        names.extend(id.map(|id| (field.to_owned(), json!(tokenizer.name(id)))));
    }
    names.insert("add_bos_token".to_owned(), json!(tokenizer.add_bos));
    names.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    let unwritable = |e: serde_json::Error| FormatError::invalid(file.label(), "tokenizer.ggml", e.to_string());
    let pretty = |map: &Map<String, Value>| serde_json::to_vec_pretty(map).map_err(unwritable);
    let mut files = vec![
        ("config.json", pretty(&config)?),
        ("generation_config.json", pretty(&generation)?),
        ("tokenizer.json", tokenizer.json().map_err(unwritable)?),
        ("tokenizer_config.json", pretty(&names)?),
    ];
    if let Some(template) = file.text("tokenizer.chat_template")? {
        files.push(("chat_template.jinja", template.as_bytes().to_vec()));
    }
    Ok(files)
}

fn ids(fields: &[(&str, Option<u32>)]) -> Map<String, Value> {
    fields.iter().filter_map(|(field, id)| id.map(|id| ((*field).to_owned(), json!(id)))).collect()
}

/// Rows of the embedding table.
fn vocab<B: AsRef<[u8]>>(file: &Gguf<B>) -> Result<usize, FormatError> {
    if file.integer("split.count")?.is_some_and(|count| count > 1) {
        let supported = "one file; `llama-gguf-split --merge` joins the parts";
        return Err(FormatError::unsupported(file.label(), "split.count", "a part of a model", supported));
    }
    let missing = || FormatError::invalid(file.label(), "tensor \"token_embd.weight\"", "is missing");
    file.tensor("token_embd.weight").map(|tensor| tensor.shape[0]).ok_or_else(missing)
}

/// Tokens that end a response.
fn ends<B: AsRef<[u8]>>(file: &Gguf<B>, tokenizer: &Vocabulary<'_>) -> Result<Vec<u32>, FormatError> {
    let mut ends: Vec<u32> = tokenizer.eos.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(file.integer(key)?.and_then(|id| u32::try_from(id).ok()).filter(|id| tokenizer.has(*id)));
    }
    ends.extend(ENDS.iter().filter_map(|name| tokenizer.control(name)));
    let mut seen = std::collections::HashSet::new();
    ends.retain(|id| seen.insert(*id));
    Ok(ends)
}

/// `config.json` without token ids, checked by its own reader.
fn config<B: AsRef<[u8]>>(file: &Gguf<B>, vocab: usize) -> Result<Map<String, Value>, FormatError> {
    let keys = Keys::new(file)?;
    keys.refuse_foreign()?;
    let (hidden, heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
    let head_dim = match keys.optional("attention.key_length")? {
        Some(d) => d,
        None => hidden.checked_div(heads).ok_or_else(|| keys.invalid("attention.head_count", "is 0"))?,
    };
    for field in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = keys.optional(field)?.filter(|other| *other != head_dim) {
            return Err(keys.unsupported(field, other.to_string(), &head_dim.to_string()));
        }
    }
    let biased = |part: &str| json!(file.tensor(&format!("blk.0.{part}.bias")).is_some());
    let theta = keys.number("rope.freq_base")?.unwrap_or(10_000.0);
    let eps = keys.number("attention.layer_norm_rms_epsilon")?;
    let eps = eps.ok_or_else(|| keys.invalid("attention.layer_norm_rms_epsilon", "is missing"))?;
    // Only Mistral has a window, beyond which the context is not computed.
    let window = keys.optional("attention.sliding_window")?.filter(|window| *window > 0);
    let (family, class) = match (keys.family, window) {
        (QWEN2, _) => (QWEN2, "Qwen2ForCausalLM"),
        (QWEN3, _) => (QWEN3, "Qwen3ForCausalLM"),
        (_, None) => (LLAMA, "LlamaForCausalLM"),
        (_, Some(_)) => ("mistral", "MistralForCausalLM"),
    };
    let mut config = Map::new();
    for (field, value) in [
        ("architectures", json!([class])),
        ("model_type", json!(family)),
        ("hidden_act", json!("silu")),
        ("hidden_size", json!(hidden)),
        ("num_hidden_layers", json!(keys.size("block_count")?)),
        ("num_attention_heads", json!(heads)),
        ("num_key_value_heads", json!(keys.optional("attention.head_count_kv")?.unwrap_or(heads))),
        ("head_dim", json!(head_dim)),
        ("intermediate_size", json!(keys.size("feed_forward_length")?)),
        ("vocab_size", json!(vocab)),
        ("max_position_embeddings", json!(keys.size("context_length")?)),
        ("rms_norm_eps", json!(eps)),
        ("rope_theta", json!(theta)),
        ("tie_word_embeddings", json!(file.tensor("output.weight").is_none())),
    ] {
        config.insert(field.to_owned(), value);
    }
    if let Some(window) = window {
        config.insert("sliding_window".to_owned(), json!(window));
    }
    if keys.family != QWEN2 {
        config.insert("attention_bias".to_owned(), biased("attn_q"));
        config.insert("mlp_bias".to_owned(), biased("ffn_gate"));
    }
    scale_rotation(&keys, &mut config)?;
    Ok(config)
}

/// Puts `rope_scaling` into a configuration that is whole but for it.
fn scale_rotation<B: AsRef<[u8]>>(keys: &Keys<'_, B>, config: &mut Map<String, Value>) -> Result<(), FormatError> {
    let label = keys.file.label();
    if let Some(scaling) = keys.named_scaling()? {
        config.insert("rope_scaling".to_owned(), scaling);
    }
    let parse = |config: &Map<String, Value>| ModelConfig::parse(label, Value::Object(config.clone()).to_string().as_bytes());
    let parsed = parse(config)?;
    let Some(factors) = factors(keys.file)? else { return Ok(()) };
    match llama3(&factors, parsed) {
        Some(None) => {}
        Some(Some(scaling)) => {
            config.insert("rope_scaling".to_owned(), scaling);
        }
        None => {
            let field = format!("tensor {}", quoted(ROPE_FACTORS));
            let supported = "those of Llama 3.1 to 3.3: low_freq_factor 1, high_freq_factor 4, a power of two as original context";
            return Err(FormatError::unsupported(label, &field, "this scaling of rotary frequencies", supported));
        }
    }
    parse(config).map(|_| ())
}

/// `rope_scaling` whose factors are these; `Some(None)` for factors that scale nothing.
fn llama3(factors: &[f32], mut config: ModelConfig) -> Option<Option<Value>> {
    if !matches!(config.architecture.rope.scaling, RopeScaling::None) {
        return None;
    }
    if same_factors(factors, &vec![1.0; config.architecture.head_dim / 2]) {
        return Some(None);
    }
    // The lowest frequency is divided by the whole factor.
    let factor = f64::from(*factors.last()?);
    let [low, high] = RAMP;
    for context in CONTEXTS.map(|power| 1_usize << power) {
        config.architecture.rope.scaling =
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context: context };
        if same_factors(factors, &rope_factors(&config.architecture)?) {
            return Some(Some(json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": context,
            })));
        }
    }
    None
}

/// The keys of one architecture.
struct Keys<'a, B> {
    file: &'a Gguf<B>,
    family: &'a str,
}

impl<'a, B: AsRef<[u8]>> Keys<'a, B> {
    fn new(file: &'a Gguf<B>) -> Result<Self, FormatError> {
        const KEY: &str = "general.architecture";
        match file.text(KEY)? {
            Some(family @ (LLAMA | QWEN2 | QWEN3)) => Ok(Keys { file, family }),
            Some(other) => Err(FormatError::unsupported(file.label(), KEY, quoted(other), "llama (Llama and Mistral), qwen2, qwen3")),
            None => Err(FormatError::invalid(file.label(), KEY, "is missing")),
        }
    }

    fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.family)
    }

    fn invalid(&self, field: &str, problem: &str) -> FormatError {
        FormatError::invalid(self.file.label(), &self.key(field), problem)
    }

    fn unsupported(&self, field: &str, found: String, supported: &str) -> FormatError {
        FormatError::unsupported(self.file.label(), &self.key(field), found, supported)
    }

    fn optional(&self, field: &str) -> Result<Option<u64>, FormatError> {
        self.file.integer(&self.key(field))
    }

    fn size(&self, field: &str) -> Result<u64, FormatError> {
        self.optional(field)?.ok_or_else(|| self.invalid(field, "is missing"))
    }

    fn number(&self, field: &str) -> Result<Option<f64>, FormatError> {
        self.file.number(&self.key(field))
    }

    /// Refuses switches that would make the model compute something else than this decoder does.
    fn refuse_foreign(&self) -> Result<(), FormatError> {
        for (field, neutral) in FOREIGN_NUMBERS {
            if let Some(value) = self.number(field)?.filter(|value| *value != neutral) {
                return Err(self.unsupported(field, value.to_string(), &format!("{neutral}, or nothing")));
            }
        }
        if self.file.flag(&self.key("attention.causal"))? == Some(false) {
            return Err(self.unsupported("attention.causal", "false".to_owned(), "true"));
        }
        let window = self.optional("attention.sliding_window")?.filter(|window| *window > 0 && self.family != LLAMA);
        if let Some(window) = window {
            return Err(self.unsupported("attention.sliding_window", window.to_string(), "nothing"));
        }
        match self.file.has(&self.key("rope.dimension_sections")) {
            true => Err(self.unsupported("rope.dimension_sections", "several positions a token".to_owned(), "nothing")),
            false => Ok(()),
        }
    }

    /// `rope_scaling` of the scaling that the file names.
    fn named_scaling(&self) -> Result<Option<Value>, FormatError> {
        let kind = self.file.text(&self.key("rope.scaling.type"))?;
        // An older key for the same.
        let old = self.number("rope.scale_linear")?;
        let factor = self.number("rope.scaling.factor")?.or(old).filter(|factor| *factor != 1.0 && *factor != 0.0);
        match (kind, factor) {
            (None | Some("none"), None) | (Some("linear"), None) => Ok(None),
            (None | Some("linear"), Some(factor)) => Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
            (Some("none"), Some(_)) => Ok(None),
            (Some("yarn"), Some(factor)) => {
                let original = self.size("rope.scaling.original_context_length")?;
                Ok(Some(json!({"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original})))
            }
            (Some(other), _) => Err(self.unsupported(
                "rope.scaling.type",
                quoted(other),
                "none, linear, yarn with a factor, and Llama 3's as rope_freqs.weight",
            )),
        }
    }
}
