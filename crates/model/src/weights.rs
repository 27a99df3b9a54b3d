//! A decoder's weights, packed for the device, and how they are read from a checkpoint.
//! Does not know the order of computation.

use tiger_formats::checkpoint::Checkpoint;
use tiger_formats::safetensors::Dtype;
use tiger_formats::{Architecture, FormatError, Module, PackedFile, Rope, RopeScaling, modules};
use tiger_kernels::Cpu;
use tiger_kernels::ops::attention::{AttentionShape, KvLayer, KvShape, KvType};
use tiger_kernels::ops::linear::{Precision, Raw, RawType, Weight};
use tiger_kernels::ops::rope::RopeRows;

use crate::packed::{self, STACKS};

/// Why a model or adapter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The checkpoint is not usable.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The adapter does not fit its base.
    #[error("{0}")]
    Adapter(String),
}

/// Norms of the heads of queries and of keys, each [D].
#[derive(Debug)]
pub(crate) struct QkNorm {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
}

/// One layer's weights.
#[derive(Debug)]
pub(crate) struct Layer {
    pub attention_norm: Vec<f32>,
    /// q, k, v stacked: [(H + 2·Hkv)·D, C].
    pub qkv: Weight,
    pub qkv_bias: Option<Vec<f32>>,
    pub qk_norm: Option<QkNorm>,
    pub o: Weight,
    pub o_bias: Option<Vec<f32>>,
    pub mlp_norm: Vec<f32>,
    /// gate, up stacked: [2F, C].
    pub gate_up: Weight,
    pub gate_up_bias: Option<Vec<f32>>,
    pub down: Weight,
    pub down_bias: Option<Vec<f32>>,
}

/// A decoder ready to compute. Immutable; shared by sampling and training.
#[derive(Debug)]
pub struct Model {
    pub(crate) architecture: Architecture,
    precision: Precision,
    kv_type: KvType,
    pub(crate) embedding: Weight,
    /// None: the embedding is the head too.
    head: Option<Weight>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: Vec<f32>,
    /// [D/2], radians per position.
    inverse_frequencies: Vec<f32>,
}

/// Shape and standard deviation of synthetic weights: small enough that activations stay in a sane range.
const SYNTHETIC_STD: f32 = 0.02;

impl Model {
    /// Reads and packs a checkpoint. `progress` is told 0..1 as layers are done.
    pub fn load(cpu: &Cpu, checkpoint: &Checkpoint, precision: Precision, progress: &mut dyn FnMut(f32)) -> Result<Model, ModelError> {
        Model::load_from(cpu, checkpoint, precision, None, progress)
    }

    /// The same, with the packed weights from a file of this very checkpoint and precision, where there is one.
    pub(crate) fn load_from(
        cpu: &Cpu,
        checkpoint: &Checkpoint,
        precision: Precision,
        packed: Option<&PackedFile>,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Model, ModelError> {
        let architecture = checkpoint.architecture().clone();
        let read = Reader { cpu, checkpoint, precision, packed };
        let table = if architecture.tied { head_precision(precision) } else { embedding_precision(precision) };
        let embedding = Reader { precision: table, ..read }.linear(packed::EMBEDDING, architecture.hidden, &[modules::EMBEDDING])?;
        let head_reader = Reader { precision: head_precision(precision), ..read };
        let head = || head_reader.linear(packed::HEAD, architecture.hidden, &[modules::HEAD]);
        let head = if architecture.tied { None } else { Some(head()?) };
        let mut layers = Vec::with_capacity(architecture.layers);
        for index in 0..architecture.layers {
            layers.push(read.layer(&architecture, index)?);
            progress((index + 1) as f32 / architecture.layers as f32);
        }
        let norm = read.vector(modules::FINAL_NORM)?;
        let inverse_frequencies = inverse_frequencies(&architecture);
        Ok(Model { architecture, precision, kv_type: default_kv_type(precision), embedding, head, layers, norm, inverse_frequencies })
    }

    /// Weights from a seed: real shapes for speed and memory, not for sense.
    pub fn synthetic(cpu: &Cpu, architecture: &Architecture, precision: Precision, seed: u64) -> Model {
        let a = architecture;
        let (c, q, kv) = (a.hidden, a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let mut next = seed;
        let mut weight = |precision, n, k| {
            next = next.wrapping_add(1);
            Weight::synthetic(cpu, precision, n, k, next, SYNTHETIC_STD)
        };
        let bias = |on: bool, n: usize| on.then(|| (0..n).map(|i| ((i * 37 % 19) as f32 - 9.0) * 0.002).collect::<Vec<f32>>());
        let layers = (0..a.layers)
            .map(|_| Layer {
                attention_norm: vec![1.0; c],
                qkv: weight(precision, q + 2 * kv, c),
                qkv_bias: bias(a.qkv_bias, q + 2 * kv),
                qk_norm: a.qk_norm.then(|| QkNorm { q: vec![1.0; a.head_dim], k: vec![1.0; a.head_dim] }),
                o: weight(precision, c, q),
                o_bias: bias(a.o_bias, c),
                mlp_norm: vec![1.0; c],
                gate_up: weight(precision, 2 * a.ffn, c),
                gate_up_bias: bias(a.mlp_bias, 2 * a.ffn),
                down: weight(precision, c, a.ffn),
                down_bias: bias(a.mlp_bias, c),
            })
            .collect();
        let table = if a.tied { head_precision(precision) } else { embedding_precision(precision) };
        let embedding = weight(table, a.vocab, c);
        let head = (!a.tied).then(|| weight(head_precision(precision), a.vocab, c));
        let inverse_frequencies = inverse_frequencies(a);
        Model {
            architecture: a.clone(),
            precision,
            kv_type: default_kv_type(precision),
            embedding,
            head,
            layers,
            norm: vec![1.0; c],
            inverse_frequencies,
        }
    }

    /// The same model with keys and values kept in another form (default: bf16; f32 beside f32 weights). Sampling and training both use it.
    #[must_use]
    pub fn with_kv_type(self, kv_type: KvType) -> Model {
        Model { kv_type, ..self }
    }

    /// Sizes and switches.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// How the linear maps are stored.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of packed weights.
    pub fn bytes(&self) -> u64 {
        self.weights().iter().map(|(_, w)| w.bytes() as u64).sum()
    }

    /// Every linear map, by its name in a file of packed weights.
    pub(crate) fn weights(&self) -> Vec<(String, &Weight)> {
        let mut all = vec![(packed::EMBEDDING.to_owned(), &self.embedding)];
        all.extend(self.head.iter().map(|head| (packed::HEAD.to_owned(), head)));
        for (index, l) in self.layers.iter().enumerate() {
            let named = STACKS.iter().zip([&l.qkv, &l.o, &l.gate_up, &l.down]);
            all.extend(named.map(|(stack, weight)| (packed::layer_slot(index, stack), weight)));
        }
        all
    }

    /// Bytes of packed weights that loading would take, without loading.
    pub fn bytes_of(architecture: &Architecture, precision: Precision) -> u64 {
        let per_value = |p: Precision| match p {
            Precision::F32 => 4.0,
            Precision::Bf16 => 2.0,
            // Integers and a share of a group's scale.
            Precision::Int8 => 1.0 + 2.0 / 32.0,
            Precision::Int4 => 0.5 + 2.0 / 32.0,
        };
        let table = (architecture.vocab * architecture.hidden) as f64;
        let tables = if architecture.tied { 1.0 } else { 2.0 };
        let inner = architecture.parameters() as f64 - tables * table;
        let embedding = if architecture.tied { 0.0 } else { table * per_value(embedding_precision(precision)) };
        (inner * per_value(precision) + table * per_value(head_precision(precision)) + embedding) as u64
    }

    /// Bytes of one KV page, all layers.
    pub fn kv_bytes_per_page(&self) -> usize {
        self.architecture.layers * KvLayer::bytes_per_page(self.kv_shape(), self.kv_type())
    }

    pub(crate) fn head(&self) -> &Weight {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn kv_shape(&self) -> KvShape {
        KvShape { kv_heads: self.architecture.kv_heads, head_dim: self.architecture.head_dim }
    }

    /// How keys and values are kept.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    pub(crate) fn attention_shape(&self) -> AttentionShape {
        let a = &self.architecture;
        AttentionShape { heads: a.heads, kv_heads: a.kv_heads, head_dim: a.head_dim, scale: 1.0 / (a.head_dim as f32).sqrt() }
    }

    /// Cosines and sines of each row's position, shared by all layers of a step.
    pub(crate) fn rope_rows(&self, positions: impl Iterator<Item = usize>) -> RopeRows {
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        let scale = match self.architecture.rope.scaling {
            RopeScaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        };
        for position in positions {
            for frequency in &self.inverse_frequencies {
                // The product in f32, then exact functions in f64: what transformers computes, up to its own rounding.
                let angle = f64::from(position as f32 * frequency);
                cos.push(angle.cos() as f32 * scale);
                sin.push(angle.sin() as f32 * scale);
            }
        }
        RopeRows { cos, sin }
    }
}

fn default_kv_type(precision: Precision) -> KvType {
    if precision == Precision::F32 { KvType::F32 } else { KvType::Bf16 }
}

/// A table that is only looked up costs no time: more bits for accuracy.
pub(crate) fn embedding_precision(precision: Precision) -> Precision {
    match precision {
        Precision::F32 => Precision::F32,
        Precision::Bf16 | Precision::Int8 => Precision::Bf16,
        Precision::Int4 => Precision::Int8,
    }
}

/// The head decides between tokens whose logits lie close together: four bits would cost more there than anywhere else.
pub(crate) fn head_precision(precision: Precision) -> Precision {
    if precision == Precision::Int4 { Precision::Int8 } else { precision }
}

/// θ^(−2i/D) with the scaling of the config (Llama-3: Meta's reference `apply_scaling`, as published with Llama 3.1).
fn inverse_frequencies(architecture: &Architecture) -> Vec<f32> {
    let d = architecture.head_dim;
    let stretch = |i: usize, frequency: f64| match &architecture.rope.scaling {
        RopeScaling::None => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let turns = *original_context as f64 * frequency / std::f64::consts::TAU;
            if turns > *high_freq_factor {
                frequency
            } else if turns < *low_freq_factor {
                frequency / factor
            } else {
                let smooth = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
        RopeScaling::Yarn { factor, .. } => {
            let divided = yarn_ramp(&architecture.rope, d, i);
            frequency * (1.0 - divided) + frequency / factor * divided
        }
    };
    (0..d / 2).map(|i| stretch(i, architecture.rope.theta.powf(-2.0 * i as f64 / d as f64)) as f32).collect()
}

/// Share of channel `i` of D/2 that YaRN divides (arXiv 2309.00071, equations 17 to 23, with the ramp over channels as in the authors' code and
/// in transformers): 0 up to the channel that turns `beta_fast` times over the original context, 1 from the one that turns `beta_slow` times.
fn yarn_ramp(rope: &Rope, d: usize, i: usize) -> f64 {
    let RopeScaling::Yarn { beta_fast, beta_slow, truncate, original_context, .. } = &rope.scaling else { return 0.0 };
    let channel = |turns: f64| d as f64 * (*original_context as f64 / (turns * std::f64::consts::TAU)).ln() / (2.0 * rope.theta.ln());
    let (low, high) = (channel(*beta_fast), channel(*beta_slow));
    let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(d as f64 - 1.0));
    let width = if low == high { 0.001 } else { high - low };
    ((i as f64 - low) / width).clamp(0.0, 1.0)
}

/// Reads tensors of one checkpoint.
#[derive(Clone, Copy)]
struct Reader<'a> {
    cpu: &'a Cpu,
    checkpoint: &'a Checkpoint,
    precision: Precision,
    packed: Option<&'a PackedFile>,
}

impl Reader<'_> {
    fn layer(&self, architecture: &Architecture, index: usize) -> Result<Layer, ModelError> {
        let [qkv, o, gate_up, down] = STACKS;
        let weight = |modules: &[Module]| {
            let names: Vec<String> = modules.iter().map(|m| m.weight(index)).collect();
            self.linear(&packed::layer_slot(index, modules), modules[0].inputs(architecture), &names)
        };
        let bias = |modules: &[Module]| {
            let names: Vec<String> = modules.iter().map(|m| m.bias(index)).collect();
            if modules[0].has_bias(architecture) { self.stacked(&names).map(Some) } else { Ok(None) }
        };
        let head_norms =
            || Ok::<_, ModelError>(QkNorm { q: self.vector(&modules::query_norm(index))?, k: self.vector(&modules::key_norm(index))? });
        Ok(Layer {
            attention_norm: self.vector(&modules::attention_norm(index))?,
            qkv: weight(qkv)?,
            qkv_bias: bias(qkv)?,
            qk_norm: if architecture.qk_norm { Some(head_norms()?) } else { None },
            o: weight(o)?,
            o_bias: bias(o)?,
            mlp_norm: self.vector(&modules::ffn_norm(index))?,
            gate_up: weight(gate_up)?,
            gate_up_bias: bias(gate_up)?,
            down: weight(down)?,
            down_bias: bias(down)?,
        })
    }

    fn linear(&self, slot: &str, k: usize, names: &[impl AsRef<str>]) -> Result<Weight, ModelError> {
        if let Some(file) = self.packed {
            let mut rows = 0;
            for name in names {
                rows += self.checkpoint.head(name.as_ref())?.1[0];
            }
            return packed::read_weight(self.cpu, file, slot, self.precision, [rows, k]);
        }
        let views = names.iter().map(|name| self.checkpoint.tensor(name.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let mut parts = Vec::with_capacity(names.len());
        for (name, view) in names.iter().zip(&views) {
            parts.push(Raw { dtype: raw_type(name.as_ref(), view.dtype)?, bytes: &view.bytes, rows: view.shape[0] });
        }
        Ok(Weight::pack(self.cpu, self.precision, k, &parts))
    }

    fn stacked(&self, names: &[String]) -> Result<Vec<f32>, ModelError> {
        let parts = names.iter().map(|name| self.vector(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(parts.concat())
    }

    fn vector(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let view = self.checkpoint.tensor(name)?;
        view.to_f32().ok_or_else(|| unsupported(name, view.dtype))
    }
}

fn unsupported(name: &str, dtype: Dtype) -> ModelError {
    ModelError::Adapter(format!("tensor {name} is {dtype:?}; F32, F16 and BF16 are supported"))
}

fn raw_type(name: &str, dtype: Dtype) -> Result<RawType, ModelError> {
    match dtype {
        Dtype::F32 => Ok(RawType::F32),
        Dtype::F16 => Ok(RawType::F16),
        Dtype::BF16 => Ok(RawType::Bf16),
        other => Err(unsupported(name, other)),
    }
}
