//! A checkpoint's weights with an adapter added, tensor by tensor: W + (alpha / rank) · B A, rounded once to what is stored.
//! Never holds more than one tensor. Does not know files' names.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use crate::checkpoint::Checkpoint;
use crate::error::FormatError;
use crate::modules::{Module, required_tensors};
use crate::peft::{Adapter, LoraPair};
use crate::safetensors::{Dtype, TensorHead, f32_bytes, write_streamed};

/// A checkpoint and an adapter of it.
#[derive(Debug)]
pub struct Merged<'a> {
    checkpoint: &'a Checkpoint,
    /// Factors by the name of the weight.
    pairs: HashMap<String, &'a LoraPair>,
    rank: usize,
    scale: f32,
}

impl<'a> Merged<'a> {
    /// The checkpoint's tensors as they are without an adapter.
    ///
    /// # Panics
    /// When the adapter was read for another architecture.
    pub fn new(checkpoint: &'a Checkpoint, adapter: Option<&'a Adapter>) -> Self {
        let a = checkpoint.architecture();
        let (rank, alpha) = adapter.map_or((1, 0.0), |adapter| (adapter.rank, adapter.alpha));
        let mut pairs = HashMap::new();
        for (&(layer, module), pair) in adapter.iter().flat_map(|adapter| &adapter.tensors) {
            let fits = layer < a.layers && pair.a.len() == rank * module.inputs(a) && pair.b.len() == rank * module.outputs(a);
            assert!(fits, "the adapter belongs to another base");
            pairs.insert(module.weight(layer), pair);
        }
        Merged { checkpoint, pairs, rank, scale: alpha / rank as f32 }
    }

    /// The base.
    pub fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    /// Every tensor of the architecture as the base stores it: name, type, shape.
    pub fn heads(&self) -> Result<Vec<TensorHead>, FormatError> {
        let head = |(name, shape): (String, Vec<usize>)| Ok(TensorHead { dtype: self.checkpoint.head(&name)?.0, name, shape });
        required_tensors(self.checkpoint.architecture()).into_iter().map(head).collect()
    }

    /// A tensor's values.
    pub fn values(&self, name: &str) -> Result<Vec<f32>, FormatError> {
        let stored = self.checkpoint.tensor(name)?;
        // A checkpoint holds no other types.
        let mut values = stored.to_f32().unwrap_or_default();
        if let Some(pair) = self.pairs.get(name) {
            add(&mut values, pair, self.rank, self.scale);
        }
        Ok(values)
    }

    /// A tensor's bytes in the base's type; those of the base itself where nothing is added.
    pub fn bytes(&self, name: &str) -> Result<Cow<'a, [u8]>, FormatError> {
        match self.pairs.contains_key(name) {
            false => Ok(self.checkpoint.tensor(name)?.bytes),
            true => Ok(Cow::Owned(encoded(&self.values(name)?, self.checkpoint.head(name)?.0))),
        }
    }

    /// Writes all tensors as one `model.safetensors`.
    pub fn write_safetensors(&self, out: impl Write) -> io::Result<()> {
        let heads = self.heads().map_err(io::Error::other)?;
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        write_streamed(out, &heads, &metadata, |i| self.bytes(&heads[i].name).map_err(io::Error::other))
    }
}

/// Weight [N, K] += scale · B A.
fn add(weight: &mut [f32], pair: &LoraPair, rank: usize, scale: f32) {
    let inputs = pair.a.len() / rank;
    for (row, factors) in weight.chunks_exact_mut(inputs).zip(pair.b.chunks_exact(rank)) {
        for (factor, a) in factors.iter().zip(pair.a.chunks_exact(inputs)) {
            let factor = scale * factor;
            if factor != 0.0 {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
            }
        }
    }
}

/// Little-endian bytes in a float type, rounded to nearest even.
pub(crate) fn encoded(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        Dtype::BF16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
        _ => f32_bytes(values),
    }
}

/// Which linear map of a layer a weight or bias belongs to.
pub(crate) fn module_of(name: &str) -> Option<Module> {
    Module::ALL.into_iter().find(|module| name.contains(module.path()))
}
