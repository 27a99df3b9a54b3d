//! `config.json` of a Llama-family checkpoint → [`Architecture`]. A new family is a new arm of [`Family`].
//! Does not know the weights; whatever it does not compute exactly, it refuses by name.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;

use crate::architecture::{Architecture, Rope, RopeScaling, yarn_mscale};
use crate::error::{FormatError, quoted};
use crate::fields::{Fields, file_label, parse_object, read_limited};

/// Longest `config.json`, bytes; real ones have under 10 kB.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Most end-of-sequence ids; real models have up to three.
pub const MAX_EOS_IDS: usize = 64;

// Upper bounds of sizes. Each is several times beyond the largest published decoder, and together they keep the
// product of any three in a u64.
const HIDDEN: RangeInclusive<u64> = 1..=1 << 16;
const LAYERS: RangeInclusive<u64> = 1..=1 << 10;
const HEADS: RangeInclusive<u64> = 1..=1 << 10;
const HEAD_DIM: RangeInclusive<u64> = 2..=1 << 10;
const FFN: RangeInclusive<u64> = 1..=1 << 20;
const VOCAB: RangeInclusive<u64> = 1..=1 << 22;
/// Longest context, tokens.
const CONTEXT: RangeInclusive<u64> = 1..=1 << 24;
const EPSILON: RangeInclusive<f64> = 1e-12..=1e-1;
const THETA: RangeInclusive<f64> = 1.0..=1e12;
const FACTOR: RangeInclusive<f64> = 1.0..=1e6;
const RAMP: RangeInclusive<f64> = 1e-3..=1e6;
/// YaRN's factor of cosines and sines, and the weights that it may be made of.
const ATTENTION_FACTOR: RangeInclusive<f64> = 1e-3..=1e3;
const MSCALE: RangeInclusive<f64> = 0.0..=1e2;

/// Window and number of lower layers without one, where a file that needs them names none: the families' published defaults.
const DEFAULT_WINDOW: usize = 4096;
const DEFAULT_WINDOW_LAYERS: usize = 28;

/// What `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Shape of the decoder. `tied` is false when the file does not say; [`crate::Checkpoint`] then looks for a head.
    pub architecture: Architecture,
    /// `tie_word_embeddings` as written, `None` when absent.
    pub declared_tied: Option<bool>,
    /// Context as written or the family's, tokens: above `architecture.context_length` where a sliding window of attention ends that earlier.
    pub declared_context: usize,
    /// First token of a sequence, when named.
    pub bos_id: Option<u32>,
    /// Tokens that end a sequence; may be empty.
    pub eos_ids: Vec<u32>,
}

impl ModelConfig {
    /// Reads a `config.json`.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::parse(&file_label(path), &read_limited(path, MAX_CONFIG_BYTES)?)
    }

    /// Parses the content of a `config.json`; `file` is its name for error messages.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        let map = parse_object(file, bytes)?;
        let fields = Fields::new(file, &map);
        let family = Family::of(&fields)?;
        refuse_foreign(&fields, family)?;
        let mut architecture = architecture(&fields, family)?;
        let declared_context = architecture.context_length;
        let window = window(&fields, family, architecture.layers)?;
        architecture.context_length = window.map_or(declared_context, |window| window.min(declared_context));
        let vocab = architecture.vocab;
        let bos_id = fields.token_ids("bos_token_id", 1)?.first().copied();
        let eos_ids = fields.token_ids("eos_token_id", MAX_EOS_IDS)?;
        for (field, id) in bos_id.iter().map(|id| ("bos_token_id", id)).chain(eos_ids.iter().map(|id| ("eos_token_id", id))) {
            if *id as usize >= vocab {
                return Err(fields.invalid(field, format!("is {id}, outside the vocabulary of {vocab}")));
            }
        }
        Ok(Self { architecture, declared_tied: fields.flag("tie_word_embeddings")?, declared_context, bos_id, eos_ids })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
}

impl Family {
    const SUPPORTED: &'static str = "llama, mistral, qwen2, qwen3";

    fn of(fields: &Fields<'_>) -> Result<Self, FormatError> {
        let name = fields.text("model_type")?.ok_or_else(|| fields.invalid("model_type", "is missing"))?;
        match name {
            "llama" => Ok(Self::Llama),
            "mistral" => Ok(Self::Mistral),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            other => Err(fields.unsupported("model_type", quoted(other), Self::SUPPORTED)),
        }
    }

    /// Class of the causal language model; other heads share the model type but not the tensors.
    fn class(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// Context length when the file names none: the family's published default, tokens.
    fn default_context(self) -> usize {
        match self {
            Self::Llama => 2048,
            Self::Mistral => 131_072,
            Self::Qwen2 | Self::Qwen3 => 32_768,
        }
    }
}

/// Refuses switches that would make the model compute something else than this decoder does.
fn refuse_foreign(fields: &Fields<'_>, family: Family) -> Result<(), FormatError> {
    if let Some(Value::Array(classes)) = fields.get("architectures")
        && !classes.iter().any(|c| c.as_str() == Some(family.class()))
    {
        let found = quoted(&Value::Array(classes.clone()).to_string());
        return Err(fields.unsupported("architectures", found, family.class()));
    }
    for field in ["quantization_config", "compression_config"] {
        if let Some(value) = fields.get(field) {
            let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("a quantised checkpoint");
            return Err(fields.unsupported(field, quoted(method), "plain F32, F16 or BF16 weights"));
        }
    }
    for field in ["num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok"] {
        if let Some(value) = fields.get(field) {
            return Err(fields.unsupported(field, format!("{} (mixture of experts)", quoted(&value.to_string())), "dense models"));
        }
    }
    let activation = fields.text("hidden_act")?.unwrap_or("silu");
    if activation != "silu" {
        return Err(fields.unsupported("hidden_act", quoted(activation), "silu"));
    }
    if fields.number("partial_rotary_factor", 0.0..=1.0)?.is_some_and(|f| f != 1.0) {
        return Err(fields.unsupported("partial_rotary_factor", "a partly rotated head", "1.0"));
    }
    if fields.flag("use_mrope")? == Some(true) {
        return Err(fields.unsupported("use_mrope", "true", "false"));
    }
    Ok(())
}

fn architecture(fields: &Fields<'_>, family: Family) -> Result<Architecture, FormatError> {
    let hidden = fields.required_integer("hidden_size", HIDDEN)?;
    let heads = fields.required_integer("num_attention_heads", HEADS)?;
    let kv_heads = fields.integer("num_key_value_heads", HEADS)?.unwrap_or(heads);
    if heads % kv_heads != 0 {
        return Err(fields.invalid("num_key_value_heads", format!("{kv_heads} does not divide {heads} heads")));
    }
    let head_dim = match fields.integer("head_dim", HEAD_DIM)? {
        Some(d) => d,
        // The family's published default, whatever the hidden size.
        None if family == Family::Qwen3 => 128,
        None if hidden % heads == 0 => hidden / heads,
        None => return Err(fields.invalid("head_dim", format!("is missing and {heads} heads do not divide {hidden}"))),
    };
    if head_dim % 2 != 0 || !HEAD_DIM.contains(&(head_dim as u64)) {
        return Err(fields.invalid("head_dim", format!("is {head_dim}, must be even and from 2 to {}", HEAD_DIM.end())));
    }
    // The other families have biases or none, whatever the file says.
    let on = |field: &str, families: &[Family]| Ok::<_, FormatError>(families.contains(&family) && fields.flag(field)? == Some(true));
    let attention_bias = on("attention_bias", &[Family::Llama, Family::Qwen3])?;
    let context = fields.integer("max_position_embeddings", CONTEXT)?.unwrap_or(family.default_context());
    let rope = rope(fields, context)?;
    Ok(Architecture {
        hidden,
        layers: fields.required_integer("num_hidden_layers", LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        ffn: fields.required_integer("intermediate_size", FFN)?,
        vocab: fields.required_integer("vocab_size", VOCAB)?,
        norm_eps: fields.number("rms_norm_eps", EPSILON)?.unwrap_or(1e-6) as f32,
        context_length: stretched(context, &rope.scaling),
        rope,
        tied: fields.flag("tie_word_embeddings")?.unwrap_or(false),
        qkv_bias: family == Family::Qwen2 || attention_bias,
        o_bias: attention_bias,
        mlp_bias: on("mlp_bias", &[Family::Llama])?,
        qk_norm: family == Family::Qwen3,
    })
}

/// Cards of models ask people to add YaRN to the configuration and to leave `max_position_embeddings` as it is: the context is then what YaRN
/// makes of the one that was trained.
fn stretched(context: usize, scaling: &RopeScaling) -> usize {
    match scaling {
        RopeScaling::Yarn { factor, original_context, .. } => {
            context.max((*original_context as f64 * factor).min(*CONTEXT.end() as f64) as usize)
        }
        _ => context,
    }
}

/// Rotary parameters, old style (`rope_theta` beside `rope_scaling`) or new (`rope_parameters`). `context` is the configured one, tokens.
fn rope(fields: &Fields<'_>, context: usize) -> Result<Rope, FormatError> {
    let outer_theta = fields.number("rope_theta", THETA)?;
    let old = fields.object("rope_scaling")?;
    let new = fields.object("rope_parameters")?;
    let theta = match &new {
        Some(p) => p.number("rope_theta", THETA)?,
        None => None,
    };
    if let (Some(a), Some(b)) = (outer_theta, theta)
        && a != b
    {
        return Err(fields.invalid("rope_theta", format!("is {a}, but rope_parameters.rope_theta is {b}")));
    }
    let scaling = match (&old, &new) {
        (Some(a), Some(b)) => {
            let (a, b) = (scaling(a, context)?, scaling(b, context)?);
            if a != b {
                return Err(fields.invalid("rope_scaling", "contradicts rope_parameters"));
            }
            a
        }
        (Some(one), None) | (None, Some(one)) => scaling(one, context)?,
        (None, None) => RopeScaling::None,
    };
    let theta = theta.or(outer_theta).unwrap_or(10_000.0);
    // All frequencies are one there, and YaRN divides by the logarithm.
    if theta == 1.0 && matches!(scaling, RopeScaling::Yarn { .. }) {
        return Err(fields.invalid("rope_theta", "must be above 1 beside a yarn scaling"));
    }
    Ok(Rope { theta, scaling })
}

fn scaling(p: &Fields<'_>, context: usize) -> Result<RopeScaling, FormatError> {
    if p.number("partial_rotary_factor", 0.0..=1.0)?.is_some_and(|f| f != 1.0) {
        return Err(p.unsupported("partial_rotary_factor", "a partly rotated head", "1.0"));
    }
    let field = if p.get("rope_type").is_some() { "rope_type" } else { "type" };
    match p.text(field)? {
        Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: p.required_number("factor", FACTOR)? }),
        Some("llama3") => {
            let low_freq_factor = p.required_number("low_freq_factor", RAMP)?;
            let high_freq_factor = p.required_number("high_freq_factor", RAMP)?;
            // Equal ends would divide by zero in the ramp between them.
            if low_freq_factor >= high_freq_factor {
                return Err(p.invalid("high_freq_factor", "must be above low_freq_factor"));
            }
            Ok(RopeScaling::Llama3 {
                factor: p.required_number("factor", FACTOR)?,
                low_freq_factor,
                high_freq_factor,
                original_context: p.required_integer("original_max_position_embeddings", CONTEXT)?,
            })
        }
        Some("yarn") => yarn(p, context),
        Some(other) => Err(p.unsupported(field, quoted(other), "default, linear, llama3, yarn")),
        None if p.get("factor").is_none() && p.get("full_attention").is_none() => Ok(RopeScaling::None),
        None => Err(p.invalid("rope_type", "is missing; supported: default, linear, llama3, yarn")),
    }
}

/// YaRN with the defaults that transformers has.
fn yarn(p: &Fields<'_>, context: usize) -> Result<RopeScaling, FormatError> {
    let factor = p.required_number("factor", FACTOR)?;
    let beta_fast = p.number("beta_fast", RAMP)?.unwrap_or(32.0);
    let beta_slow = p.number("beta_slow", RAMP)?.unwrap_or(1.0);
    if beta_fast < beta_slow {
        return Err(p.invalid("beta_fast", format!("is {beta_fast}, must be at least beta_slow ({beta_slow})")));
    }
    let weights = (p.number("mscale", MSCALE)?.unwrap_or(0.0), p.number("mscale_all_dim", MSCALE)?.unwrap_or(0.0));
    let attention_factor = match (p.number("attention_factor", ATTENTION_FACTOR)?, weights) {
        (Some(given), _) => given,
        (None, (one, all)) if one > 0.0 && all > 0.0 => yarn_mscale(factor, one) / yarn_mscale(factor, all),
        (None, _) => RopeScaling::yarn_attention_factor(factor),
    };
    let original_context = p.integer("original_max_position_embeddings", CONTEXT)?.unwrap_or(context);
    let truncate = p.flag("truncate")?.unwrap_or(true);
    Ok(RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, attention_factor, original_context })
}

/// The sliding window of attention, tokens, where the model has layers with one. Within it attention is full in every layer, so that a context
/// that ends there is computed exactly.
fn window(fields: &Fields<'_>, family: Family, layers: usize) -> Result<Option<usize>, FormatError> {
    // Qwen writes a window but switches it off by a second field.
    let used = family == Family::Mistral || fields.flag("use_sliding_window")? == Some(true);
    let written = fields.integer("sliding_window", CONTEXT)?;
    let window = if fields.names("sliding_window") { written } else { Some(DEFAULT_WINDOW) }.filter(|_| used);
    let kinds = match fields.get("layer_types") {
        Some(Value::Array(kinds)) => &kinds[..],
        _ => &[],
    };
    let slides = |kind: &Value| kind == "sliding_attention";
    if let Some(kind) = kinds.iter().find(|kind| **kind != "full_attention" && !(window.is_some() && slides(kind))) {
        let supported = "full_attention; sliding_attention beside a sliding_window that is in use";
        return Err(fields.unsupported("layer_types", quoted(&kind.to_string()), supported));
    }
    // Qwen's lower layers have none.
    let lower = fields.integer("max_window_layers", 0..=*LAYERS.end())?.unwrap_or(DEFAULT_WINDOW_LAYERS);
    let some_slide = if kinds.is_empty() { lower < layers } else { kinds.iter().any(slides) };
    Ok(window.filter(|_| family == Family::Mistral || some_slide))
}
