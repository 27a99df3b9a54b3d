//! The forward pass over a ragged batch: decode, chunked prefill and training rows are the same rows here.
//! Does not know why a row is computed nor what becomes of its hidden state.

use std::ops::Range;

use tiger_kernels::Cpu;
use tiger_kernels::cpu::memory::zeros;
use tiger_kernels::ops::attention::{self, AttentionOutput, KvLayer, KvRead, PageId};
use tiger_kernels::ops::linear::{Epilogue, Weight, add_bias, gather_rows, linear};
use tiger_kernels::ops::lora::{LoraRun, lora_forward};
use tiger_kernels::ops::rmsnorm::{rmsnorm, rmsnorm_heads};
use tiger_kernels::ops::rope::{Heads, RopeRows, Turn, rope};
use tiger_kernels::ops::rows::{Rows as View, RowsMut};
use tiger_kernels::ops::swiglu::swiglu;

use crate::adapter::Adapter;
use crate::kv::Kv;
use crate::train::DropoutMask;
use crate::weights::{Layer, Model, QkNorm};
use tiger_formats::{Architecture, Module};

/// Consecutive rows of one sequence.
#[derive(Clone)]
pub struct Segment<'a> {
    /// Rows of the step.
    pub rows: Range<usize>,
    /// Absolute position of the first row.
    pub start: usize,
    /// Block table: pages that cover positions 0 .. start + rows.
    pub pages: &'a [PageId],
    /// None: the bare base.
    pub adapter: Option<&'a Adapter>,
}

/// One step's rows, packed: T tokens in segments that tile 0..T in order.
pub struct Step<'a> {
    /// [T] token ids, each below V.
    pub tokens: &'a [u32],
    /// Who owns which rows.
    pub segments: &'a [Segment<'a>],
    /// Rows whose hidden state is wanted, ascending.
    pub outputs: &'a [usize],
}

/// Buffers that live from step to step, so that a token costs no allocation.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) x: Vec<f32>,
    pub(crate) layer: LayerBuffers,
    pub(crate) norm: Vec<f32>,
    /// [T, F] of a layer, or some rows of [R, V] of the head: never needed at once, and each among the largest.
    pub(crate) wide: Vec<f32>,
    pub(crate) masked: Vec<f32>,
    pub(crate) logits_reference: Vec<f32>,
    /// Of layers that a backward is through with, and their inputs: the next forward fills them again instead of touching fresh pages.
    pub(crate) spare: Vec<LayerBuffers>,
    pub(crate) spare_inputs: Vec<Vec<f32>>,
    /// One layer of pages for training: every sequence of a batch is computed in it from its start.
    pub(crate) train_kv: Option<KvLayer>,
}

/// What one layer computes and its backward needs.
#[derive(Debug, Default)]
pub(crate) struct LayerBuffers {
    /// [T, (H + 2·Hkv)·D], q and k after rotation.
    pub qkv: Vec<f32>,
    /// [T, (H + Hkv)·D], q and k before their norms (kept for training only, and only of models that have these).
    pub qk: Vec<f32>,
    /// [T, H·D].
    pub o: Vec<f32>,
    /// [T, H], log-sum-exp of the scores.
    pub lse: Vec<f32>,
    /// [T, 2F].
    pub gate_up: Vec<f32>,
    /// x A of each module, [T, Rp].
    pub h: [Vec<f32>; 7],
    /// [T, C], the residual stream between attention and MLP (kept for training only).
    pub x_middle: Vec<f32>,
}

/// Everything about the rows of a step that does not change from layer to layer.
pub(crate) struct Rows<'a> {
    pub cpu: &'a Cpu,
    pub count: usize,
    pub segments: Vec<attention::Segment<'a>>,
    /// Rows by adapter, neighbours with the same one merged.
    pub adapters: Vec<(Range<usize>, &'a Adapter)>,
    pub rope: RopeRows,
    pub dropout: Option<DropoutMask>,
    /// Width of h: the largest padded rank, 0 without adapters.
    pub rank_padded: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(model: &Model, cpu: &'a Cpu, segments: &[Segment<'a>], dropout: Option<DropoutMask>) -> Rows<'a> {
        let mut adapters: Vec<(Range<usize>, &'a Adapter)> = Vec::new();
        for segment in segments {
            let Some(adapter) = segment.adapter else { continue };
            match adapters.last_mut() {
                Some((rows, last)) if std::ptr::eq(*last, adapter) && rows.end == segment.rows.start => rows.end = segment.rows.end,
                _ => adapters.push((segment.rows.clone(), adapter)),
            }
        }
        let rank_padded = adapters.iter().map(|(_, a)| a.rank().next_multiple_of(16)).max().unwrap_or(0);
        let count = segments.last().map_or(0, |s| s.rows.end);
        let rope = model.rope_rows(segments.iter().flat_map(|s| s.start..s.start + s.rows.len()));
        let segments = segments.iter().map(|s| attention::Segment { rows: s.rows.clone(), start: s.start, pages: s.pages }).collect();
        Rows { cpu, count, segments, adapters, rope, dropout, rank_padded }
    }

    /// Runs of one module, for the LoRA op.
    pub(crate) fn runs(&self, layer: usize, module: Module) -> Vec<LoraRun<'a>> {
        let run = |(rows, adapter): &(Range<usize>, &'a Adapter)| LoraRun {
            rows: rows.clone(),
            pair: adapter.pair(layer, module),
            scale: adapter.scale(),
        };
        self.adapters.iter().map(run).collect()
    }
}

/// Places of q, k and v in a qkv row.
pub(crate) struct QkvColumns {
    pub k: usize,
    pub v: usize,
    pub stride: usize,
}

impl QkvColumns {
    /// Column, heads and norm of the queries and of the keys.
    pub(crate) fn normed<'a>(&self, norms: &'a QkNorm, a: &Architecture) -> [(usize, Heads, &'a [f32]); 2] {
        let heads = |count| Heads { count, size: a.head_dim };
        [(0, heads(a.heads), &norms.q), (self.k, heads(a.kv_heads), &norms.k)]
    }
}

impl Model {
    /// Computes a step: writes keys and values of its rows into `kv`, returns the final-norm hidden states of `step.outputs`, [O, C].
    pub fn forward(&self, cpu: &Cpu, kv: &mut Kv, step: &Step<'_>, workspace: &mut Workspace) -> Vec<f32> {
        assert_eq!(step.segments.last().map_or(0, |s| s.rows.end), step.tokens.len(), "segments tile the step");
        let rows = Rows::new(self, cpu, step.segments, None);
        let c = self.architecture.hidden;
        let mut x = std::mem::take(&mut workspace.x);
        resize(&mut x, rows.count * c);
        gather_rows(cpu, &self.embedding, step.tokens, &mut x);
        let mut buffers = std::mem::take(&mut workspace.layer);
        for index in 0..self.layers.len() {
            self.layer_forward(&rows, index, &mut kv.layers[index], LayerIo { x: &mut x, buffers: &mut buffers, keep: false }, workspace);
        }
        workspace.layer = buffers;
        let hidden = self.final_norm(cpu, &x, step.outputs);
        workspace.x = x;
        hidden
    }

    /// Logits of hidden states [R, C] → [R, V], into `logits`. The caller keeps R small: [R, V] is large.
    pub fn logits(&self, cpu: &Cpu, hidden: &[f32], logits: &mut Vec<f32>) {
        let rows = hidden.len() / self.architecture.hidden;
        resize(logits, rows * self.architecture.vocab);
        linear(cpu, hidden, self.head(), logits, Epilogue::Store);
    }

    /// Final norm of some rows, [O, C].
    pub(crate) fn final_norm(&self, cpu: &Cpu, x: &[f32], outputs: &[usize]) -> Vec<f32> {
        let gathered = pick_rows(x, outputs, self.architecture.hidden);
        let mut hidden = vec![0.0; gathered.len()];
        rmsnorm(cpu, &gathered, &self.norm, self.architecture.norm_eps, &mut hidden);
        hidden
    }

    pub(crate) fn qkv_columns(&self) -> QkvColumns {
        let a = &self.architecture;
        let k = a.heads * a.head_dim;
        let v = k + a.kv_heads * a.head_dim;
        QkvColumns { k, v, stride: v + a.kv_heads * a.head_dim }
    }

    /// One decoder layer: x → x, [T, C], in place.
    pub(crate) fn layer_forward(&self, rows: &Rows<'_>, index: usize, kv: &mut KvLayer, io: LayerIo<'_>, workspace: &mut Workspace) {
        let LayerIo { x, buffers, keep } = io;
        let (cpu, layer, a) = (rows.cpu, &self.layers[index], &self.architecture);
        let norm = &mut workspace.norm;
        resize(norm, rows.count * a.hidden);
        rmsnorm(cpu, x, &layer.attention_norm, a.norm_eps, norm);
        let mut project = Projection { rows, index, masked: &mut workspace.masked };
        self.attention_forward(&mut project, kv, norm, buffers, keep);
        project.run(&buffers.o, &layer.o, layer.o_bias.as_deref(), (&mut *x, Epilogue::Add), &mut [(Module::O, 0, &mut buffers.h[3])]);
        if keep {
            copy(x, &mut buffers.x_middle);
        }
        rmsnorm(cpu, x, &layer.mlp_norm, a.norm_eps, norm);
        resize(&mut buffers.gate_up, rows.count * 2 * a.ffn);
        let [.., h_gate, h_up, h_down] = &mut buffers.h;
        let modules = &mut [(Module::Gate, 0, h_gate), (Module::Up, a.ffn, h_up)];
        project.run(norm, &layer.gate_up, layer.gate_up_bias.as_deref(), (&mut buffers.gate_up, Epilogue::Store), modules);
        let activation = &mut workspace.wide;
        resize(activation, rows.count * a.ffn);
        swiglu(cpu, &buffers.gate_up, a.ffn, activation);
        project.run(activation, &layer.down, layer.down_bias.as_deref(), (x, Epilogue::Add), &mut [(Module::Down, 0, h_down)]);
    }

    /// norm → q, k, v → norms of heads → rotation → pages → o.
    fn attention_forward(&self, project: &mut Projection<'_, '_>, kv: &mut KvLayer, norm: &[f32], buffers: &mut LayerBuffers, keep: bool) {
        let (rows, layer, a, columns) = (project.rows, &self.layers[project.index], &self.architecture, self.qkv_columns());
        let cpu = rows.cpu;
        resize(&mut buffers.qkv, rows.count * columns.stride);
        let [h_q, h_k, h_v, ..] = &mut buffers.h;
        let modules = &mut [(Module::Q, 0, h_q), (Module::K, columns.k, h_k), (Module::V, columns.v, h_v)];
        project.run(norm, &layer.qkv, layer.qkv_bias.as_deref(), (&mut buffers.qkv, Epilogue::Store), modules);
        if let Some(norms) = &layer.qk_norm {
            if keep {
                copy_columns(&buffers.qkv, columns.stride, columns.v, &mut buffers.qk);
            }
            for (column, heads, w) in columns.normed(norms, a) {
                rmsnorm_heads(cpu, RowsMut { data: &mut buffers.qkv, stride: columns.stride, column }, heads, w, a.norm_eps);
            }
        }
        self.rotate(rows, &mut buffers.qkv, Turn::Forward);
        let [q, k, v] = [0, columns.k, columns.v].map(|column| View { data: &buffers.qkv, stride: columns.stride, column });
        attention::kv_store(cpu, kv, k, v, &rows.segments);
        resize(&mut buffers.o, rows.count * columns.k);
        resize(&mut buffers.lse, rows.count * a.heads);
        let output = AttentionOutput { o: &mut buffers.o, lse: &mut buffers.lse };
        attention::attention(cpu, &self.attention_shape(), q, KvRead { layer: kv, segments: &rows.segments }, output);
    }

    /// Rotates q and k of every row.
    pub(crate) fn rotate(&self, rows: &Rows<'_>, qkv: &mut [f32], turn: Turn) {
        let (a, columns) = (&self.architecture, self.qkv_columns());
        // q and k lie side by side: one call over H + Hkv heads.
        let heads = Heads { count: a.heads + a.kv_heads, size: a.head_dim };
        rope(rows.cpu, RowsMut { data: qkv, stride: columns.stride, column: 0 }, heads, &rows.rope, turn);
    }
}

/// A layer's input and output, and where its intermediate values go.
pub(crate) struct LayerIo<'a> {
    pub x: &'a mut Vec<f32>,
    pub buffers: &'a mut LayerBuffers,
    /// Keep what only the backward needs.
    pub keep: bool,
}

/// A base linear map with its bias and the adapters on it.
struct Projection<'a, 'b> {
    rows: &'a Rows<'b>,
    index: usize,
    masked: &'a mut Vec<f32>,
}

impl Projection<'_, '_> {
    /// y (=|+=) x Wᵀ + bias, then each module's adapters at its column of y.
    fn run(
        &mut self,
        x: &[f32],
        weight: &Weight,
        bias: Option<&[f32]>,
        (y, epilogue): (&mut Vec<f32>, Epilogue),
        modules: &mut [(Module, usize, &mut Vec<f32>)],
    ) {
        let rows = self.rows;
        linear(rows.cpu, x, weight, y, epilogue);
        if let Some(bias) = bias {
            add_bias(rows.cpu, y, bias);
        }
        if rows.adapters.is_empty() {
            return;
        }
        for (module, column, h) in modules {
            resize(h, rows.count * rows.rank_padded);
            let input = match &rows.dropout {
                Some(mask) => {
                    mask.apply(x, self.index, *module, self.masked);
                    &self.masked[..]
                }
                None => x,
            };
            let h = RowsMut { data: h, stride: rows.rank_padded, column: 0 };
            let y = RowsMut { data: y, stride: weight.n(), column: *column };
            lora_forward(rows.cpu, input, &rows.runs(self.index, *module), h, y);
        }
    }
}

impl Layer {
    /// Input width of o.
    pub(crate) fn o_width(&self) -> usize {
        self.o.k()
    }
}

/// to = from.
pub(crate) fn copy(from: &[f32], to: &mut Vec<f32>) {
    resize(to, from.len());
    to.copy_from_slice(from);
}

/// The first columns of every row, copied.
fn copy_columns(from: &[f32], stride: usize, width: usize, to: &mut Vec<f32>) {
    resize(to, from.len() / stride * width);
    for (to, from) in to.chunks_exact_mut(width).zip(from.chunks_exact(stride)) {
        to.copy_from_slice(&from[..width]);
    }
}

/// Rows of a [T, C] matrix, copied.
pub(crate) fn pick_rows(x: &[f32], rows: &[usize], c: usize) -> Vec<f32> {
    let mut picked = Vec::with_capacity(rows.len() * c);
    for &row in rows {
        picked.extend_from_slice(&x[row * c..][..c]);
    }
    picked
}

/// Sets the length without touching values that will be overwritten anyway.
pub(crate) fn resize(buffer: &mut Vec<f32>, len: usize) {
    if buffer.capacity() < len {
        *buffer = zeros(len);
    } else if buffer.len() > len {
        buffer.truncate(len);
    } else {
        buffer.resize(len, 0.0);
    }
}
