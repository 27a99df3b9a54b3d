//! LoRA adapters of one model: weights, gradients, moments, and their files.
//! Does not know who owns an adapter nor how it is trained.
//!
//! LoRA (Hu et al. 2021): y += (alpha / rank) · (x A) B with A ~ U(±1/√K) and B = 0 at the start.

use tiger_formats::peft;
use tiger_formats::{Architecture, Module};
use tiger_kernels::ops::lora::LoraPair;

use crate::random::uniform;
use crate::weights::ModelError;

/// Lanes that the rank of A is padded to.
const RANK_LANES: usize = 16;

/// Low-rank weights on all seven linear maps of every layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    rank: usize,
    alpha: f32,
    pub(crate) layers: Vec<[LoraPair; 7]>,
}

impl Adapter {
    /// A fresh adapter: A uniform in ±1/√K from `seed`, B zero, so that the model answers as its base.
    pub fn new(architecture: &Architecture, rank: usize, alpha: f32, seed: u64) -> Adapter {
        let mut stream = seed;
        let layers = (0..architecture.layers)
            .map(|_| {
                Module::ALL.map(|module| {
                    let (k, n) = (module.inputs(architecture), module.outputs(architecture));
                    let mut pair = empty_pair(k, n, rank);
                    let bound = 1.0 / (k as f64).sqrt();
                    let padded = padded_rank(rank);
                    for row in pair.a.chunks_exact_mut(padded) {
                        for value in &mut row[..rank] {
                            *value = ((2.0 * uniform(&mut stream) - 1.0) * bound) as f32;
                        }
                    }
                    pair
                })
            })
            .collect();
        Adapter { rank, alpha, layers }
    }

    /// R.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// alpha / rank.
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.tensors().map(|t| t.len() * 4).sum()
    }

    /// Trainable values, padding excluded.
    pub fn parameters(&self) -> usize {
        self.layers.iter().flatten().map(|p| p.rank * (p.k + p.n)).sum()
    }

    /// One module's pair.
    pub fn pair(&self, layer: usize, module: Module) -> &LoraPair {
        &self.layers[layer][module as usize]
    }

    /// One module's pair, writable (tests and imports).
    pub fn pair_mut(&mut self, layer: usize, module: Module) -> &mut LoraPair {
        &mut self.layers[layer][module as usize]
    }

    /// A and B of every module in one fixed order: layer, module, A then B. A is [K][rank padded to 16], B is [R][N].
    pub fn tensors(&self) -> impl Iterator<Item = &Vec<f32>> {
        self.layers.iter().flatten().flat_map(|p| [&p.a, &p.b])
    }

    /// The same, writable.
    pub fn tensors_mut(&mut self) -> impl Iterator<Item = &mut Vec<f32>> {
        self.layers.iter_mut().flatten().flat_map(|p| [&mut p.a, &mut p.b])
    }

    /// In PEFT's layout: A [R, K] and B [N, R].
    pub fn to_peft(&self) -> peft::Adapter {
        let layer = |(index, pairs): (usize, &[LoraPair; 7])| {
            Module::ALL.map(|module| ((index, module), pair_to_file(&pairs[module as usize]))).into_iter()
        };
        let tensors = self.layers.iter().enumerate().flat_map(layer).collect();
        peft::Adapter { rank: self.rank, alpha: self.alpha, tensors }
    }

    /// From PEFT's layout; modules that the file leaves out get zero factors.
    pub fn from_peft(architecture: &Architecture, file: &peft::Adapter) -> Result<Adapter, ModelError> {
        let mut layers = Vec::with_capacity(architecture.layers);
        for index in 0..architecture.layers {
            let mut pairs = Module::ALL.map(|m| empty_pair(m.inputs(architecture), m.outputs(architecture), file.rank));
            for (module, pair) in Module::ALL.into_iter().zip(&mut pairs) {
                let Some(t) = file.tensors.get(&(index, module)) else { continue };
                if t.a.len() != file.rank * pair.k || t.b.len() != file.rank * pair.n {
                    return Err(ModelError::Adapter(format!(
                        "adapter, layer {index}, {}: A has {} and B {} values; the base needs {} and {} at rank {}",
                        module.name(),
                        t.a.len(),
                        t.b.len(),
                        file.rank * pair.k,
                        file.rank * pair.n,
                        file.rank
                    )));
                }
                fill_pair(pair, t);
            }
            layers.push(pairs);
        }
        Ok(Adapter { rank: file.rank, alpha: file.alpha, layers })
    }

    /// One self-contained file: length of the PEFT configuration (u64, little-endian), the configuration, the weights as safetensors.
    pub fn to_bytes(&self) -> Vec<u8> {
        let file = self.to_peft();
        let config = file.config_bytes("");
        let weights = file.weights_bytes().expect("pairs have the lengths of their rank");
        [&(config.len() as u64).to_le_bytes(), &config[..], &weights].concat()
    }

    /// Reads [`Adapter::to_bytes`].
    pub fn from_bytes(architecture: &Architecture, bytes: &[u8]) -> Result<Adapter, ModelError> {
        let cut = || ModelError::Adapter("the adapter file is cut short".into());
        let (head, rest) = bytes.split_first_chunk::<8>().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*head)).map_err(|_| cut())?;
        let (config, weights) = rest.split_at_checked(length).ok_or_else(cut)?;
        Adapter::from_peft(architecture, &peft::Adapter::from_bytes(config, weights, architecture)?)
    }
}

/// Gradients, laid out as the adapter's tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterGradients {
    pub(crate) layers: Vec<[LoraGradient; 7]>,
}

/// Gradient of one pair: da [K][rank padded], db [R][N].
#[derive(Debug, Clone, PartialEq)]
pub struct LoraGradient {
    /// dL/dA.
    pub da: Vec<f32>,
    /// dL/dB.
    pub db: Vec<f32>,
}

impl AdapterGradients {
    /// All zero, shaped like `adapter`.
    pub fn zeros(adapter: &Adapter) -> AdapterGradients {
        let layers = adapter
            .layers
            .iter()
            .map(|pairs| std::array::from_fn(|i| LoraGradient { da: vec![0.0; pairs[i].a.len()], db: vec![0.0; pairs[i].b.len()] }))
            .collect();
        AdapterGradients { layers }
    }

    /// The same order as [`Adapter::tensors`].
    pub fn tensors(&self) -> impl Iterator<Item = &Vec<f32>> {
        self.layers.iter().flatten().flat_map(|g| [&g.da, &g.db])
    }

    /// One module's gradient.
    pub fn pair(&self, layer: usize, module: Module) -> &LoraGradient {
        &self.layers[layer][module as usize]
    }
}

/// Bit of the step's word in an optimizer file: a [`Record`] follows. Files of 0.1 have none.
const HAS_RECORD: u64 = 1 << 63;

/// AdamW's running means, in the order of [`Adapter::tensors`].
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Mean of gradients.
    pub first: Vec<Vec<f32>>,
    /// Mean of squared gradients.
    pub second: Vec<Vec<f32>>,
    /// Optimizer steps done.
    pub step: u64,
}

impl Moments {
    /// All zero.
    pub fn zeros(adapter: &Adapter) -> Moments {
        let zeros: Vec<Vec<f32>> = adapter.tensors().map(|t| vec![0.0; t.len()]).collect();
        Moments { first: zeros.clone(), second: zeros, step: 0 }
    }
}

/// What earlier training calls leave for later ones besides the moments: running means, zero at first.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Record {
    /// Of the rewards of sampled responses that came alone, each within −1..=1.
    pub reward: f64,
    /// Of the distance from the parent, nats per token.
    pub kl: f64,
}

/// What a training starts from and ends with.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterState {
    /// Weights.
    pub adapter: Adapter,
    /// Optimizer state.
    pub moments: Moments,
    /// What earlier calls saw.
    pub record: Record,
}

impl AdapterState {
    /// Fresh optimizer state for `adapter`.
    pub fn new(adapter: Adapter) -> AdapterState {
        let moments = Moments::zeros(&adapter);
        AdapterState { adapter, moments, record: Record::default() }
    }

    /// The optimizer's part as a file: the number of steps (its highest bit says that a record follows), the record, the length of what comes
    /// next, then first and second moments as safetensors in the adapter's layout. Integers and floats are little-endian, 8 bytes each.
    pub fn optimizer_to_bytes(&self) -> Vec<u8> {
        let part = |tensors: &[Vec<f32>]| {
            let mut shaped = self.adapter.clone();
            for (to, from) in shaped.tensors_mut().zip(tensors) {
                to.copy_from_slice(from);
            }
            shaped.to_bytes()
        };
        let (first, second) = (part(&self.moments.first), part(&self.moments.second));
        let mut bytes = Vec::with_capacity(32 + first.len() + second.len());
        bytes.extend_from_slice(&(self.moments.step | HAS_RECORD).to_le_bytes());
        bytes.extend_from_slice(&self.record.reward.to_le_bytes());
        bytes.extend_from_slice(&self.record.kl.to_le_bytes());
        bytes.extend_from_slice(&(first.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&first);
        bytes.extend_from_slice(&second);
        bytes
    }

    /// Joins an adapter with [`AdapterState::optimizer_to_bytes`].
    pub fn from_parts(architecture: &Architecture, adapter: Adapter, optimizer: &[u8]) -> Result<AdapterState, ModelError> {
        let corrupt = || ModelError::Adapter("the optimizer state is cut short or belongs to another adapter".into());
        let word = |at: usize| -> Result<u64, ModelError> {
            let bytes = optimizer.get(at..at + 8).ok_or_else(corrupt)?;
            Ok(u64::from_le_bytes(bytes.try_into().map_err(|_| corrupt())?))
        };
        let step = word(0)?;
        let (record, head) = match step & HAS_RECORD {
            0 => (Record::default(), 8),
            _ => (Record { reward: f64::from_bits(word(8)?), kl: f64::from_bits(word(16)?) }, 24),
        };
        if !(record.reward.is_finite() && record.kl.is_finite()) {
            return Err(corrupt());
        }
        let first_len = usize::try_from(word(head)?).map_err(|_| corrupt())?;
        let rest = optimizer.get(head + 8..).ok_or_else(corrupt)?;
        if first_len > rest.len() {
            return Err(corrupt());
        }
        let (first, second) = rest.split_at(first_len);
        let tensors = |bytes: &[u8]| -> Result<Vec<Vec<f32>>, ModelError> {
            let part = Adapter::from_bytes(architecture, bytes)?;
            if part.rank != adapter.rank {
                return Err(corrupt());
            }
            Ok(part.layers.into_iter().flatten().flat_map(|p| [p.a, p.b]).collect())
        };
        let moments = Moments { first: tensors(first)?, second: tensors(second)?, step: step & !HAS_RECORD };
        Ok(AdapterState { adapter, moments, record })
    }
}

fn padded_rank(rank: usize) -> usize {
    rank.next_multiple_of(RANK_LANES)
}

fn empty_pair(k: usize, n: usize, rank: usize) -> LoraPair {
    LoraPair { k, n, rank, a: vec![0.0; k * padded_rank(rank)], b: vec![0.0; rank * n] }
}

fn pair_to_file(pair: &LoraPair) -> peft::LoraPair {
    let padded = padded_rank(pair.rank);
    let mut a = vec![0.0; pair.rank * pair.k];
    for k in 0..pair.k {
        for r in 0..pair.rank {
            a[r * pair.k + k] = pair.a[k * padded + r];
        }
    }
    let mut b = vec![0.0; pair.n * pair.rank];
    for r in 0..pair.rank {
        for n in 0..pair.n {
            b[n * pair.rank + r] = pair.b[r * pair.n + n];
        }
    }
    peft::LoraPair { a, b }
}

fn fill_pair(pair: &mut LoraPair, tensors: &peft::LoraPair) {
    let padded = padded_rank(pair.rank);
    for r in 0..pair.rank {
        for i in 0..pair.k {
            pair.a[i * padded + r] = tensors.a[r * pair.k + i];
        }
        for i in 0..pair.n {
            pair.b[r * pair.n + i] = tensors.b[i * pair.rank + r];
        }
    }
}
