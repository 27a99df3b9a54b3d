//! The tensors of a GGUF file as a checkpoint has them: Hugging Face's names, rows in its order, quantised ones as f32. One tensor at a time.
//! Does not know which tensors an architecture needs.

use std::borrow::Cow;
use std::collections::HashMap;

use super::blocks::TensorType;
use super::read::{Gguf, GgufTensor};
use super::{LLAMA, ROPE_FACTORS, checkpoint_name, rope_factors, row_of};
use crate::architecture::Architecture;
use crate::error::{FormatError, quoted};
use crate::map::AnyBytes;
use crate::merge::module_of;
use crate::modules::Module;
use crate::safetensors::{Dtype, TensorView};

/// How far the factors of rotary frequencies may be apart: they were computed in single precision by others.
const ROPE_TOLERANCE: f32 = 1e-4;
/// Fewest values for which a thread is worth starting.
const MIN_SHARE: usize = 1 << 18;
/// Values of one step: 16 KiB.
const BUFFER: usize = 1 << 12;

/// Weights of a file.
pub(crate) struct GgufWeights {
    file: Gguf<AnyBytes>,
    /// Checkpoint's name → name in the file. A tensor that no checkpoint has keeps its name.
    names: HashMap<String, String>,
    /// Sizes of heads, where rows of queries and keys are interleaved.
    interleaved: Option<Heads>,
}

#[derive(Clone, Copy)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl GgufWeights {
    /// The tensors of `file` for a decoder of the architecture that the folder's configuration describes.
    ///
    /// # Errors
    /// Rotary frequencies scaled otherwise than the configuration says.
    pub(crate) fn new(file: Gguf<AnyBytes>, a: &Architecture) -> Result<Self, FormatError> {
        let mut names = HashMap::new();
        for (name, _) in file.tensors().filter(|(name, _)| *name != ROPE_FACTORS) {
            names.insert(checkpoint_name(name).unwrap_or_else(|| name.to_owned()), name.to_owned());
        }
        if let Some(factors) = factors(&file)?
            && !same_factors(&factors, &rope_factors(a).unwrap_or_else(|| vec![1.0; a.head_dim / 2]))
        {
            let problem = "scales rotary frequencies otherwise than config.json's rope_scaling does";
            return Err(FormatError::invalid(file.label(), &format!("tensor {}", quoted(ROPE_FACTORS)), problem));
        }
        let heads = Heads { heads: a.heads, kv_heads: a.kv_heads, head_dim: a.head_dim };
        let interleaved = (file.text("general.architecture")? == Some(LLAMA)).then_some(heads);
        Ok(GgufWeights { file, names, interleaved })
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &Gguf<AnyBytes> {
        &self.file
    }

    /// The checkpoint's names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    fn stored(&self, name: &str) -> Option<GgufTensor<'_>> {
        self.file.tensor(self.names.get(name)?)
    }

    /// Type and shape of a tensor as [`GgufWeights::tensor`] gives it.
    pub(crate) fn head(&self, name: &str) -> Option<(Dtype, &[usize])> {
        let stored = self.stored(name)?;
        Some((dtype(stored.kind), stored.shape))
    }

    /// Bytes of a tensor in the file.
    pub(crate) fn stored_bytes(&self, name: &str) -> Option<usize> {
        self.stored(name).map(|stored| stored.bytes.len())
    }

    /// A tensor by its checkpoint's name: as it lies in the file if its type is a float and its rows are in order, else made now.
    pub(crate) fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        let GgufTensor { kind, shape, bytes } = self.stored(name)?;
        let heads = self.interleaved.and_then(|of| match module_of(name) {
            Some(Module::Q) => Some((of.heads, of.head_dim)),
            Some(Module::K) => Some((of.kv_heads, of.head_dim)),
            _ => None,
        });
        // A tensor of another shape is refused by its shape; until then it may lie as it is.
        let heads = heads.filter(|(heads, head_dim)| shape[0] == heads * head_dim);
        let bytes = match heads {
            None if !kind.is_quantised() => Cow::Borrowed(bytes),
            None => Cow::Owned(values(kind, bytes)),
            Some((heads, head_dim)) => {
                let width = bytes.len() / shape[0];
                let ordered = ordered(bytes, heads, head_dim, width);
                Cow::Owned(if kind.is_quantised() { values(kind, &ordered) } else { ordered })
            }
        };
        Some(TensorView { dtype: dtype(kind), shape, bytes })
    }

    /// The file's bytes before the first tensor.
    pub(crate) fn header(&self) -> &[u8] {
        self.file.header()
    }

    /// Every tensor's bytes in the file.
    pub(crate) fn all_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.file.tensors().map(|(_, tensor)| tensor.bytes)
    }
}

/// What a checkpoint would store.
fn dtype(kind: TensorType) -> Dtype {
    match kind {
        TensorType::F16 => Dtype::F16,
        TensorType::Bf16 => Dtype::BF16,
        _ => Dtype::F32,
    }
}

/// All values as f32, little-endian. Large tensors are shared among the machine's threads: a model of 8 billion weights would otherwise take half a
/// minute.
fn values(kind: TensorType, bytes: &[u8]) -> Vec<u8> {
    let blocks = bytes.len() / kind.block_bytes();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = blocks.div_ceil(threads).max(MIN_SHARE / kind.block_values());
    let mut out = vec![0; blocks * kind.block_values() * size_of::<f32>()];
    let shares = bytes.chunks(share * kind.block_bytes()).zip(out.chunks_mut(share * kind.block_values() * size_of::<f32>()));
    std::thread::scope(|scope| {
        let mut shares = shares.peekable();
        while let Some((bytes, out)) = shares.next() {
            // The last share needs no thread of its own.
            match shares.peek() {
                Some(_) => drop(scope.spawn(move || fill(kind, bytes, out))),
                None => fill(kind, bytes, out),
            }
        }
    });
    out
}

/// Writes values by way of a buffer that stays in the cache.
fn fill(kind: TensorType, bytes: &[u8], out: &mut [u8]) {
    let at_once = BUFFER / kind.block_values();
    let mut buffer = Vec::with_capacity(BUFFER);
    for (bytes, out) in bytes.chunks(at_once * kind.block_bytes()).zip(out.chunks_mut(at_once * kind.block_values() * size_of::<f32>())) {
        buffer.clear();
        kind.dequantise(bytes, &mut buffer);
        out.as_chunks_mut::<4>().0.iter_mut().zip(&buffer).for_each(|(to, value)| *to = value.to_le_bytes());
    }
}

/// Rows of `width` bytes in Hugging Face's order, see [`row_of`]. A row is a whole number of blocks, so they move as they are.
fn ordered(bytes: &[u8], heads: usize, head_dim: usize, width: usize) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    for (row, bytes) in bytes.chunks_exact(width.max(1)).enumerate().take(heads * head_dim) {
        let to = (row / head_dim * head_dim + row_of(row % head_dim, head_dim)) * width;
        out[to..to + width].copy_from_slice(bytes);
    }
    out
}

/// What divides the rotary frequencies, [D/2], if the file says so.
pub(super) fn factors<B: AsRef<[u8]>>(file: &Gguf<B>) -> Result<Option<Vec<f32>>, FormatError> {
    let Some(tensor) = file.tensor(ROPE_FACTORS) else { return Ok(None) };
    let field = format!("tensor {}", quoted(ROPE_FACTORS));
    if tensor.kind != TensorType::F32 {
        return Err(FormatError::unsupported(file.label(), &field, tensor.kind.name(), "F32"));
    }
    let mut factors = Vec::new();
    tensor.kind.dequantise(tensor.bytes, &mut factors);
    Ok(Some(factors))
}

/// Whether two lists of factors are the same but for rounding.
pub(super) fn same_factors(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= ROPE_TOLERANCE * b.abs())
}
