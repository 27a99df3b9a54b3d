//! A checkpoint as a GGUF file, written tensor by tensor. Does not know how such files are read.

use std::io::{self, Write};
use std::path::Path;

use half::f16;

use super::read::Gguf;
use crate::architecture::{Architecture, RopeScaling};
use crate::checkpoint::Checkpoint;
use crate::error::FormatError;
use crate::map::AnyBytes;
use crate::merge::{Merged, encoded, module_of};
use crate::modules::{EMBEDDING, FINAL_NORM, HEAD, Module, attention_norm, ffn_norm, key_norm, query_norm};
use crate::safetensors::{Dtype, f32_bytes};
use crate::template::ChatTemplate;
use crate::tokenizer::Tokenizer;

use super::metadata::{self, Metadata};
use super::{ALIGNMENT, LLAMA, MAGIC, QWEN2, QWEN3, ROPE_FACTORS, part_of, rope_factors, row_of, vocabulary};

const VERSION: u32 = 3;
/// Values of a block of Q8_0.
const BLOCK: usize = 32;

/// How matrices are stored; vectors are always F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufType {
    /// bfloat16.
    Bf16,
    /// Blocks of 32 bytes with one half-precision scale; matrices whose rows are no multiple of 32 stay bf16.
    Q8_0,
}

/// Number of a tensor's type in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Stored {
    F32 = 0,
    Q8_0 = 8,
    Bf16 = 30,
}

impl Stored {
    fn bytes(self, values: usize) -> usize {
        match self {
            Stored::F32 => values * 4,
            Stored::Bf16 => values * 2,
            Stored::Q8_0 => values / BLOCK * (BLOCK + 2),
        }
    }
}

/// Where a tensor's values come from.
enum Origin {
    /// A tensor of the checkpoint by its name.
    Weight(String),
    /// Values that the configuration implies.
    Values(Vec<f32>),
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    stored: Stored,
    origin: Origin,
}

/// A file that is ready to be written.
pub struct GgufFile<'a> {
    weights: &'a Merged<'a>,
    metadata: Metadata,
    tensors: Vec<Tensor>,
}

impl std::fmt::Debug for GgufFile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufFile").field("tensors", &self.tensors.len()).finish_non_exhaustive()
    }
}

impl<'a> GgufFile<'a> {
    /// Reads tokenizer and template from the checkpoint's folder. `name` is what the file calls the model.
    ///
    /// # Errors
    /// A tokenizer that is no byte-level BPE with one of the pre-tokenizers that llama.cpp knows by name; that of a GGUF base may be SentencePiece's.
    pub fn new(weights: &'a Merged<'a>, folder: &Path, name: &str, kind: GgufType) -> Result<Self, FormatError> {
        let a = weights.checkpoint().architecture();
        let mut metadata = Metadata::default();
        architecture(&mut metadata, a, name, kind)?;
        let template = ChatTemplate::open(folder)?;
        match sentencepiece(weights.checkpoint())? {
            Some(file) => file.raw_pairs("tokenizer.ggml.").for_each(|pair| metadata.raw(pair)),
            None => byte_level(&mut metadata, weights.checkpoint(), folder, template.as_ref())?,
        }
        if let Some(template) = &template {
            metadata.text("tokenizer.chat_template", template.source());
        }
        Ok(GgufFile { weights, metadata, tensors: tensors(a, kind) })
    }

    /// Writes the file.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        head.extend_from_slice(&self.metadata.count.to_le_bytes());
        head.extend_from_slice(&self.metadata.bytes);
        let mut offset = 0u64;
        for tensor in &self.tensors {
            metadata::put_text(&mut head, &tensor.name);
            head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            // The innermost dimension comes first.
            tensor.shape.iter().rev().for_each(|n| head.extend_from_slice(&(*n as u64).to_le_bytes()));
            head.extend_from_slice(&(tensor.stored as u32).to_le_bytes());
            head.extend_from_slice(&offset.to_le_bytes());
            let bytes = tensor.stored.bytes(tensor.shape.iter().product());
            offset += bytes.next_multiple_of(ALIGNMENT) as u64;
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        out.write_all(&head)?;
        for tensor in &self.tensors {
            let mut bytes = self.content(tensor).map_err(io::Error::other)?;
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            out.write_all(&bytes)?;
        }
        out.flush()
    }

    fn content(&self, tensor: &Tensor) -> Result<Vec<u8>, FormatError> {
        let values = match &tensor.origin {
            Origin::Values(values) => values.clone(),
            Origin::Weight(name) => {
                let a = self.weights.checkpoint().architecture();
                let values = self.weights.values(name)?;
                let heads = match module_of(name) {
                    Some(Module::Q) => Some(a.heads),
                    Some(Module::K) => Some(a.kv_heads),
                    _ => None,
                };
                match heads.filter(|_| family(a) == LLAMA) {
                    Some(heads) => interleaved(&values, heads, a.head_dim),
                    None => values,
                }
            }
        };
        Ok(match tensor.stored {
            Stored::F32 => f32_bytes(&values),
            Stored::Bf16 => encoded(&values, Dtype::BF16),
            Stored::Q8_0 => q8_0(&values),
        })
    }
}

/// The file that a checkpoint is, if its tokenizer is SentencePiece's: scores are there only, and are taken over as they are.
fn sentencepiece(checkpoint: &Checkpoint) -> Result<Option<&Gguf<AnyBytes>>, FormatError> {
    let Some(file) = checkpoint.gguf() else { return Ok(None) };
    Ok((file.text("tokenizer.ggml.model")? == Some("llama")).then_some(file))
}

/// The tokenizer of the folder.
fn byte_level(metadata: &mut Metadata, checkpoint: &Checkpoint, folder: &Path, template: Option<&ChatTemplate>) -> Result<(), FormatError> {
    let (config, tokenizer) = (checkpoint.config(), Tokenizer::open(folder)?);
    vocabulary::describe(metadata, &vocabulary::read(folder)?, config.architecture.vocab)?;
    let id = |token: &str| template.and_then(|t| t.special_token(token)).and_then(|text| tokenizer.token_id(text));
    let bos = id("bos_token").or(config.bos_id);
    if let Some(bos) = bos {
        metadata.u32("tokenizer.ggml.bos_token_id", bos);
    }
    if let Some(eos) = id("eos_token").or(config.eos_ids.first().copied()) {
        metadata.u32("tokenizer.ggml.eos_token_id", eos);
    }
    if let Some(pad) = id("pad_token") {
        metadata.u32("tokenizer.ggml.padding_token_id", pad);
    }
    let begins = tokenizer.encode("a", true)?.first().copied();
    metadata.bool("tokenizer.ggml.add_bos_token", bos.is_some() && begins == bos);
    Ok(())
}

/// llama.cpp's name of the family. Qwen 2 is a Llama with biases at queries, keys and values only, Qwen 3 one with norms of queries and keys.
fn family(a: &Architecture) -> &'static str {
    match (a.qk_norm, a.qkv_bias && !a.o_bias) {
        (true, _) => QWEN3,
        (false, true) => QWEN2,
        (false, false) => LLAMA,
    }
}

fn architecture(metadata: &mut Metadata, a: &Architecture, name: &str, kind: GgufType) -> Result<(), FormatError> {
    let family = family(a);
    if a.qk_norm && (a.qkv_bias || a.o_bias || a.mlp_bias) {
        return Err(FormatError::unsupported("config.json", "attention_bias", "true beside norms of queries and keys", "false"));
    }
    let key = |field: &str| format!("{family}.{field}");
    metadata.text("general.architecture", family);
    metadata.text("general.type", "model");
    metadata.text("general.name", name);
    metadata.u32("general.file_type", if kind == GgufType::Bf16 { 32 } else { 7 });
    metadata.u32("general.quantization_version", 2);
    for (field, value) in [
        ("block_count", a.layers),
        ("context_length", a.context_length),
        ("embedding_length", a.hidden),
        ("feed_forward_length", a.ffn),
        ("attention.head_count", a.heads),
        ("attention.head_count_kv", a.kv_heads),
        ("attention.key_length", a.head_dim),
        ("attention.value_length", a.head_dim),
        ("rope.dimension_count", a.head_dim),
        ("vocab_size", a.vocab),
    ] {
        // Every size of an architecture is below 2³².
        metadata.u32(&key(field), value as u32);
    }
    metadata.f32(&key("attention.layer_norm_rms_epsilon"), a.norm_eps);
    metadata.f32(&key("rope.freq_base"), a.rope.theta as f32);
    match a.rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            metadata.text(&key("rope.scaling.type"), "linear");
            metadata.f32(&key("rope.scaling.factor"), factor as f32);
        }
        // llama.cpp has these as defaults, and the attention factor from `factor` alone.
        RopeScaling::Yarn { factor, beta_fast: 32.0, beta_slow: 1.0, truncate: true, attention_factor, original_context }
            if attention_factor == RopeScaling::yarn_attention_factor(factor) =>
        {
            metadata.text(&key("rope.scaling.type"), "yarn");
            metadata.f32(&key("rope.scaling.factor"), factor as f32);
            metadata.u32(&key("rope.scaling.original_context_length"), original_context as u32);
        }
        RopeScaling::Yarn { .. } => {
            let problem = "yarn with its own attention_factor, mscale, betas or truncate";
            return Err(FormatError::unsupported("config.json", "rope_type", problem, "yarn with defaults"));
        }
        RopeScaling::Llama3 { .. } if family == LLAMA => {}
        RopeScaling::Llama3 { .. } => {
            let problem = "llama3 in a model that llama.cpp knows as another family's";
            return Err(FormatError::unsupported("config.json", "rope_type", problem, "default, linear"));
        }
    }
    Ok(())
}

/// Every tensor of the file, in its order.
fn tensors(a: &Architecture, kind: GgufType) -> Vec<Tensor> {
    let matrix = |name: String, weight: String, [n, k]: [usize; 2]| {
        let stored = if kind == GgufType::Q8_0 && k.is_multiple_of(BLOCK) { Stored::Q8_0 } else { Stored::Bf16 };
        Tensor { name, shape: vec![n, k], stored, origin: Origin::Weight(weight) }
    };
    let vector =
        |name: String, weight: String, n: usize| Tensor { name, shape: vec![n], stored: Stored::F32, origin: Origin::Weight(weight) };
    let mut list = vec![
        matrix("token_embd.weight".into(), EMBEDDING.into(), [a.vocab, a.hidden]),
        vector("output_norm.weight".into(), FINAL_NORM.into(), a.hidden),
    ];
    if !a.tied {
        list.push(matrix("output.weight".into(), HEAD.into(), [a.vocab, a.hidden]));
    }
    if let Some(factors) = rope_factors(a) {
        list.push(Tensor { name: ROPE_FACTORS.into(), shape: vec![factors.len()], stored: Stored::F32, origin: Origin::Values(factors) });
    }
    for layer in 0..a.layers {
        let name = |part: &str| format!("blk.{layer}.{part}");
        list.push(vector(name("attn_norm.weight"), attention_norm(layer), a.hidden));
        list.push(vector(name("ffn_norm.weight"), ffn_norm(layer), a.hidden));
        if a.qk_norm {
            list.push(vector(name("attn_q_norm.weight"), query_norm(layer), a.head_dim));
            list.push(vector(name("attn_k_norm.weight"), key_norm(layer), a.head_dim));
        }
        for module in Module::ALL {
            let part = part_of(module);
            list.push(matrix(name(&format!("{part}.weight")), module.weight(layer), [module.outputs(a), module.inputs(a)]));
            if module.has_bias(a) {
                list.push(vector(name(&format!("{part}.bias")), module.bias(layer), module.outputs(a)));
            }
        }
    }
    list
}

/// Rows as llama.cpp's Llama has them, see [`row_of`].
fn interleaved(values: &[f32], heads: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / (heads * head_dim);
    let rows = (0..heads).flat_map(|head| (0..head_dim).map(move |at| head * head_dim + row_of(at, head_dim)));
    rows.flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect()
}

/// Per 32 values: the largest magnitude / 127 as f16, then each value over it, rounded, halves away from zero.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(Stored::Q8_0.bytes(values.len()));
    for block in values.as_chunks::<BLOCK>().0 {
        let scale = block.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        out.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
        out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    }
    out
}
