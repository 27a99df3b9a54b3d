//! GGUF files, as llama.cpp reads and writes them (its `docs/gguf.md`): metadata, tokenizer, chat template and tensors in one file.
//! Here is what reading and writing share. Does not know adapters; [`crate::merge`] adds those.

mod blocks;
mod cuts;
mod describe;
mod metadata;
mod read;
mod tokenizer;
mod vocabulary;
mod weights;
mod write;

use crate::architecture::{Architecture, RopeScaling};
use crate::modules::{EMBEDDING, FINAL_NORM, HEAD, Module, attention_norm, ffn_norm, key_norm, query_norm};

pub use blocks::TensorType;
pub use describe::{SmallFile, small_files};
pub use read::{Gguf, GgufTensor};
pub(crate) use weights::GgufWeights;
pub use write::{GgufFile, GgufType};

const MAGIC: &[u8; 4] = b"GGUF";
/// What tensors' offsets are multiples of, bytes: the format's default.
const ALIGNMENT: usize = 32;
/// Factors of the rotary frequencies, where they are scaled as Llama 3's.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// llama.cpp's name of Llama and Mistral: the rows of queries and keys are interleaved, see [`row_of`].
const LLAMA: &str = "llama";
const QWEN2: &str = "qwen2";
const QWEN3: &str = "qwen3";

const NAMES: [(&str, &str); 3] = [("token_embd.weight", EMBEDDING), ("output_norm.weight", FINAL_NORM), ("output.weight", HEAD)];

fn part_of(module: Module) -> &'static str {
    match module {
        Module::Q => "attn_q",
        Module::K => "attn_k",
        Module::V => "attn_v",
        Module::O => "attn_output",
        Module::Gate => "ffn_gate",
        Module::Up => "ffn_up",
        Module::Down => "ffn_down",
    }
}

/// A checkpoint's name of a tensor by its name in the file; `None` for a tensor that no checkpoint has.
fn checkpoint_name(name: &str) -> Option<String> {
    if let Some((_, known)) = NAMES.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*known).to_owned());
    }
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    match part {
        "attn_norm.weight" => return Some(attention_norm(layer)),
        "ffn_norm.weight" => return Some(ffn_norm(layer)),
        "attn_q_norm.weight" => return Some(query_norm(layer)),
        "attn_k_norm.weight" => return Some(key_norm(layer)),
        _ => {}
    }
    let (part, kind) = part.rsplit_once('.')?;
    let module = Module::ALL.into_iter().find(|module| part_of(*module) == part)?;
    match kind {
        "weight" => Some(module.weight(layer)),
        "bias" => Some(module.bias(layer)),
        _ => None,
    }
}

/// Where row `at` of the file's head lies in the checkpoint's. Hugging Face rotates channel i with channel i + D/2, llama.cpp's Llama 2i with
/// 2i + 1: of each head, row j·D/2 + i of the checkpoint is row 2i + j of the file.
fn row_of(at: usize, head_dim: usize) -> usize {
    at % 2 * (head_dim / 2) + at / 2
}

/// What divides each rotary frequency under Llama 3's scaling (the reference implementation of Llama 3.1).
fn rope_factors(a: &Architecture) -> Option<Vec<f32>> {
    let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } = a.rope.scaling else { return None };
    let context = original_context as f64;
    let of = |i: usize| {
        let frequency = a.rope.theta.powf(-((2 * i) as f64) / a.head_dim as f64);
        let wavelength = 2.0 * std::f64::consts::PI / frequency;
        if wavelength < context / high_freq_factor {
            return 1.0;
        }
        if wavelength > context / low_freq_factor {
            return factor as f32;
        }
        let smooth = (context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
        (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
    };
    Some((0..a.head_dim / 2).map(of).collect())
}
