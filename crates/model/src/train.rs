//! The decoder for training: the same forward over packed sequences, what it keeps, and the backward in mirror order.
//! Does not know rewards: a loss reaches it as one coefficient per trained token and a weight on the KL to a reference.

use std::ops::Range;

use tiger_formats::{Architecture, Module};
use tiger_kernels::Cpu;
use tiger_kernels::cpu::memory::zeros;
use tiger_kernels::ops::attention::{self, AttentionSaved, KvLayer, KvRead, PAGE_TOKENS, PageId};
use tiger_kernels::ops::linear::{Epilogue, gather_rows, linear_backward_x};
use tiger_kernels::ops::logprob::{KlTerm, RowScore, ScoreGradient, kl_rows, row_lse, score_backward, score_rows};
use tiger_kernels::ops::lora::{LoraGradients, LoraSaved, lora_backward};
use tiger_kernels::ops::rmsnorm::{rmsnorm, rmsnorm_backward, rmsnorm_heads_backward};
use tiger_kernels::ops::rope::Turn;
use tiger_kernels::ops::rows;
use tiger_kernels::ops::swiglu::{swiglu, swiglu_backward};

use crate::adapter::{Adapter, AdapterGradients};
use crate::batch::{LayerBuffers, LayerIo, Rows, Segment, Workspace, copy, pick_rows, resize};
use crate::random::mix;
use crate::weights::Model;

/// Bytes of one chunk of logits; [T, V] never exists whole.
const LOGIT_CHUNK_BYTES: usize = 64 << 20;

/// One trained position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Row whose hidden state predicts the token.
    pub row: usize,
    /// The token that follows.
    pub token: u32,
}

/// Consecutive rows of one sequence, from a page border to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainSegment {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Position of the first row, whole pages.
    pub start: usize,
    /// Which earlier segment's sequence the positions before `start` are; None where `start` is 0.
    pub prefix: Option<usize>,
}

/// Packed sequences. One that begins as an earlier one does (another answer to the same prompt) may read that one's rows instead of having them
/// again: they are computed once, forward and backward.
#[derive(Debug, Clone, Default)]
pub struct TrainBatch {
    /// [T] tokens of all segments, one after the other.
    pub tokens: Vec<u32>,
    /// Rows of each segment, tiling 0..T.
    pub segments: Vec<TrainSegment>,
    /// Trained positions, ascending by row, at most one a row.
    pub targets: Vec<Target>,
}

/// Dropout of the adapters' input: each value is kept with probability 1 − p and scaled by 1 / (1 − p).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// 0 ≤ p < 1.
    pub p: f32,
    /// The mask is a function of (seed, layer, module, row, column): rows that sequences share have one mask for all of them.
    pub seed: u64,
}

/// What a forward keeps for its backward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All that the backward reads.
    All,
    /// All that the backward reads of the last so many layers, the inputs of the others: those it computes again (checkpointing). The first
    /// layer kept costs no memory, for a layer at a time is whole in any case.
    Last(usize),
    /// Nothing: scoring only.
    Nothing,
}

impl Keep {
    /// Whether layer `index` of `layers` keeps all that its backward reads.
    fn whole(self, index: usize, layers: usize) -> bool {
        match self {
            Keep::All => true,
            Keep::Last(count) => index + count >= layers,
            Keep::Nothing => false,
        }
    }
}

/// A forward's results. `hidden` is after the final norm, [targets, C].
#[derive(Debug)]
pub struct Saved {
    /// [targets, C].
    pub hidden: Vec<f32>,
    keep: Keep,
    /// Each layer's input [T, C].
    inputs: Vec<Vec<f32>>,
    /// What the last layers keep besides.
    layers: Vec<LayerBuffers>,
    /// [T, C], before the final norm.
    last: Vec<f32>,
}

/// What the loss says to some targets.
#[derive(Debug, Clone, Default)]
pub struct TokenWeights {
    /// dL/d(log-prob of the target), per target.
    pub coefficients: Vec<f32>,
    /// Weight of each target's KL(policy ‖ reference) in the loss; read only where there is a reference.
    pub kl: Vec<f32>,
}

/// The head's part of a backward: [`TrainPass::head`].
#[derive(Debug)]
pub struct HeadGradient {
    /// Of each target.
    pub scores: Vec<RowScore>,
    /// KL of each target; empty without a reference.
    pub kl: Vec<f32>,
    /// dL/dhidden, [targets, C].
    d_hidden: Vec<f32>,
}

/// One micro-batch on its way through the model.
pub struct TrainPass<'a> {
    /// The base.
    pub model: &'a Model,
    /// Where it computes.
    pub cpu: &'a Cpu,
    /// Segments and targets.
    pub batch: &'a TrainBatch,
    /// None: the bare base.
    pub adapter: Option<&'a Adapter>,
    /// Acts in this pass, forward and backward alike.
    pub dropout: Option<Dropout>,
}

impl TrainBatch {
    /// How many of the first `tokens` tokens, the same in several sequences, these can share: whole pages without the last token, whose
    /// row predicts another token in each of them.
    pub fn shareable(tokens: usize) -> usize {
        tokens.saturating_sub(1) / PAGE_TOKENS * PAGE_TOKENS
    }

    /// Adds a whole sequence; returns its segment.
    pub fn push(&mut self, tokens: impl IntoIterator<Item = u32>) -> usize {
        self.push_rows(tokens, 0, None)
    }

    /// Adds the rest of a sequence whose first `start` tokens are those of segment `prefix`'s sequence; returns its segment.
    ///
    /// # Panics
    /// When `start` is not whole pages or that sequence is shorter.
    pub fn push_after(&mut self, prefix: usize, start: usize, tokens: impl IntoIterator<Item = u32>) -> usize {
        let before = &self.segments[prefix];
        assert!(start.is_multiple_of(PAGE_TOKENS) && start <= before.start + before.rows.len(), "whole pages of the sequence before");
        self.push_rows(tokens, start, (start > 0).then_some(prefix))
    }

    fn push_rows(&mut self, tokens: impl IntoIterator<Item = u32>, start: usize, prefix: Option<usize>) -> usize {
        let first = self.tokens.len();
        self.tokens.extend(tokens);
        self.segments.push(TrainSegment { rows: first..self.tokens.len(), start, prefix });
        self.segments.len() - 1
    }

    /// The most that can be kept of this batch in so many bytes; the last layer and the others' inputs, however many they are.
    pub fn keep_within(&self, bytes: u64, a: &Architecture, rank: usize) -> Keep {
        let [input, besides] = self.layer_bytes(a, rank);
        match usize::try_from(bytes.saturating_sub(input * a.layers as u64) / besides) {
            Ok(layers) if layers < a.layers => Keep::Last(layers.max(1)),
            _ => Keep::All,
        }
    }

    /// Bytes of a layer's input, and of what its backward reads besides.
    fn layer_bytes(&self, a: &Architecture, rank: usize) -> [u64; 2] {
        let qkv = (a.heads + 2 * a.kv_heads) * a.head_dim;
        let before_norms = if a.qk_norm { (a.heads + a.kv_heads) * a.head_dim } else { 0 };
        let per_token = a.hidden + qkv + before_norms + a.heads * (a.head_dim + 1) + 2 * a.ffn + 7 * rank.next_multiple_of(16);
        [a.hidden, per_token].map(|values| 4 * (self.tokens.len() * values).max(1) as u64)
    }

    /// Bytes that a forward keeps of this batch for its backward.
    pub fn kept_bytes(&self, keep: Keep, a: &Architecture, rank: usize) -> u64 {
        let [input, besides] = self.layer_bytes(a, rank);
        match keep {
            Keep::All => (input + besides) * a.layers as u64,
            Keep::Last(layers) => input * a.layers as u64 + besides * layers.min(a.layers) as u64,
            Keep::Nothing => 0,
        }
    }
}

impl Model {
    /// Log-prob, log-sum-exp and entropy of each target given hidden states [targets, C]. In chunks: [targets, V] never exists.
    pub fn score(&self, cpu: &Cpu, hidden: &[f32], targets: &[Target], workspace: &mut Workspace) -> Vec<RowScore> {
        let c = self.architecture.hidden;
        let mut scores = vec![RowScore::default(); targets.len()];
        let rows = self.logit_chunk_rows();
        for ((hidden, targets), scores) in hidden.chunks(rows * c).zip(targets.chunks(rows)).zip(scores.chunks_mut(rows)) {
            self.logits(cpu, hidden, &mut workspace.wide);
            let tokens: Vec<u32> = targets.iter().map(|t| t.token).collect();
            score_rows(cpu, &workspace.wide, self.architecture.vocab, &tokens, scores);
        }
        scores
    }

    fn logit_chunk_rows(&self) -> usize {
        (LOGIT_CHUNK_BYTES / (4 * self.architecture.vocab)).clamp(16, 1024)
    }
}

impl<'a> TrainPass<'a> {
    /// Runs the batch; the arithmetic of each row is [`Model::forward`]'s.
    pub fn forward(&self, keep: Keep, workspace: &mut Workspace) -> Saved {
        let tables = self.page_tables();
        let (rows, mut kv) = self.start(&tables, workspace);
        let model = self.model;
        let mut x = zeros(rows.count * model.architecture.hidden);
        gather_rows(self.cpu, &model.embedding, &self.batch.tokens, &mut x);
        let mut saved = Saved { hidden: Vec::new(), keep, inputs: Vec::new(), layers: Vec::new(), last: Vec::new() };
        let mut buffers = std::mem::take(&mut workspace.layer);
        for index in 0..model.layers.len() {
            if keep != Keep::Nothing {
                let mut input = workspace.spare_inputs.pop().unwrap_or_default();
                copy(&x, &mut input);
                saved.inputs.push(input);
            }
            let whole = keep.whole(index, model.layers.len());
            let io = LayerIo { x: &mut x, buffers: &mut buffers, keep: whole };
            model.layer_forward(&rows, index, &mut kv, io, workspace);
            if whole {
                saved.layers.push(std::mem::replace(&mut buffers, workspace.spare.pop().unwrap_or_default()));
            }
        }
        if keep != Keep::Nothing {
            // Those that this batch has no use for would only take room.
            workspace.spare.clear();
            workspace.spare_inputs.clear();
        }
        workspace.layer = buffers;
        workspace.train_kv = Some(kv);
        saved.hidden = model.final_norm(self.cpu, &x, &self.target_rows());
        saved.last = x;
        saved
    }

    /// Scores the targets and takes the loss back to their hidden states. `weigh` gets the scores of some targets at a time, in order, and says
    /// what the loss makes of them; `reference` are the hidden states of the KL's other side, [targets, C]. Each logit is computed once.
    ///
    /// # Errors
    /// What `weigh` refuses.
    pub fn head<E, W>(&self, saved: &Saved, reference: Option<&[f32]>, weigh: &mut W, workspace: &mut Workspace) -> Result<HeadGradient, E>
    where
        W: FnMut(Range<usize>, &[RowScore]) -> Result<TokenWeights, E>,
    {
        let (model, cpu, targets) = (self.model, self.cpu, &self.batch.targets);
        let (c, v) = (model.architecture.hidden, model.architecture.vocab);
        let mut head =
            HeadGradient { scores: vec![RowScore::default(); targets.len()], kl: Vec::new(), d_hidden: zeros(saved.hidden.len()) };
        let rows = model.logit_chunk_rows();
        for first in (0..targets.len()).step_by(rows) {
            let part = first..(first + rows).min(targets.len());
            let hidden = part.start * c..part.end * c;
            let logits = &mut workspace.wide;
            model.logits(cpu, &saved.hidden[hidden.clone()], logits);
            let tokens: Vec<u32> = targets[part.clone()].iter().map(|t| t.token).collect();
            score_rows(cpu, logits, v, &tokens, &mut head.scores[part.clone()]);
            let scores = &head.scores[part.clone()];
            let weights = weigh(part, scores)?;
            let rows = ScoreGradient { targets: &tokens, scores, coefficients: &weights.coefficients };
            match reference {
                Some(reference) => {
                    let ref_logits = &mut workspace.logits_reference;
                    model.logits(cpu, &reference[hidden.clone()], ref_logits);
                    let ref_lse: Vec<f32> = ref_logits.chunks_exact(v).map(|row| row_lse(cpu, row)).collect();
                    let lse: Vec<f32> = scores.iter().map(|s| s.lse).collect();
                    let first = head.kl.len();
                    head.kl.resize(first + tokens.len(), 0.0);
                    kl_rows(cpu, logits, &lse, ref_logits, &ref_lse, &mut head.kl[first..]);
                    let term = KlTerm { ref_logits, ref_lse: &ref_lse, kl: &head.kl[first..], weights: &weights.kl };
                    score_backward(cpu, logits, v, rows, Some(term));
                }
                None => score_backward(cpu, logits, v, rows, None),
            }
            linear_backward_x(cpu, logits, model.head(), &mut head.d_hidden[hidden], Epilogue::Store);
        }
        Ok(head)
    }

    /// Adds the adapter's gradients into `gradients`.
    ///
    /// # Panics
    /// Without an adapter, or on a `Saved` that kept nothing: a trainable tensor without a gradient is our error.
    pub fn backward(&self, saved: Saved, head: &HeadGradient, gradients: &mut AdapterGradients, workspace: &mut Workspace) {
        assert!(self.adapter.is_some() && saved.keep != Keep::Nothing, "a backward needs an adapter and a kept forward");
        let Saved { hidden, mut inputs, mut layers, last, .. } = saved;
        drop(hidden);
        let mut dx = self.final_norm_backward(last, &head.d_hidden);
        let tables = self.page_tables();
        let (rows, mut kv) = self.start(&tables, workspace);
        let mut scratch = Gradients::default();
        while let Some(input) = inputs.pop() {
            let index = inputs.len();
            let mut buffers = match layers.pop() {
                Some(kept) => kept,
                None => {
                    let mut x = std::mem::take(&mut workspace.x);
                    copy(&input, &mut x);
                    let mut buffers = std::mem::take(&mut workspace.layer);
                    self.model.layer_forward(&rows, index, &mut kv, LayerIo { x: &mut x, buffers: &mut buffers, keep: true }, workspace);
                    workspace.x = x;
                    buffers
                }
            };
            let mut layer = LayerBackward { pass: self, rows: &rows, index, input: &input, buffers: &mut buffers, scratch: &mut scratch };
            layer.mlp(&mut dx, gradients, workspace);
            layer.attention(&mut dx, &mut kv, gradients, workspace);
            if layers.is_empty() {
                workspace.layer = buffers;
            } else {
                workspace.spare.push(buffers);
            }
            workspace.spare_inputs.push(input);
        }
        workspace.train_kv = Some(kv);
    }

    fn target_rows(&self) -> Vec<usize> {
        self.batch.targets.iter().map(|t| t.row).collect()
    }

    /// Each segment's table: the pages of its prefix, then pages of its own, one after the other.
    fn page_tables(&self) -> Vec<Vec<PageId>> {
        let mut tables: Vec<Vec<PageId>> = Vec::with_capacity(self.batch.segments.len());
        let mut next = 0;
        for segment in &self.batch.segments {
            let shared = segment.start / PAGE_TOKENS;
            let own = ((segment.start + segment.rows.len()).div_ceil(PAGE_TOKENS) - shared) as u32;
            let before = segment.prefix.map_or(&[][..], |prefix| &tables[prefix][..shared]);
            tables.push(before.iter().copied().chain((next..next + own).map(PageId)).collect());
            next += own;
        }
        tables
    }

    fn start<'b>(&'b self, tables: &'b [Vec<PageId>], workspace: &mut Workspace) -> (Rows<'b>, KvLayer) {
        let segments: Vec<Segment<'b>> = self
            .batch
            .segments
            .iter()
            .zip(tables)
            .map(|(s, pages)| Segment { rows: s.rows.clone(), start: s.start, pages, adapter: self.adapter })
            .collect();
        let mask = self.dropout.filter(|d| d.p > 0.0).map(DropoutMask);
        let rows = Rows::new(self.model, self.cpu, &segments, mask);
        let pages = tables.iter().flatten().map(|page| page.0 as usize + 1).max().unwrap_or(0);
        let (shape, kv_type) = (self.model.kv_shape(), self.model.kv_type());
        let fits = |kv: &KvLayer| kv.pages() >= pages && kv.shape() == shape && kv.kv_type() == kv_type;
        let kv = workspace.train_kv.take().filter(fits).unwrap_or_else(|| KvLayer::new(shape, kv_type, pages));
        (rows, kv)
    }

    /// dL/dx after the last layer, [T, C]: zero but in the targets' rows.
    fn final_norm_backward(&self, last: Vec<f32>, d_hidden: &[f32]) -> Vec<f32> {
        let (model, rows) = (self.model, self.target_rows());
        let c = model.architecture.hidden;
        let picked = pick_rows(&last, &rows, c);
        let mut d_picked = vec![0.0; picked.len()];
        rmsnorm_backward(self.cpu, &picked, &model.norm, model.architecture.norm_eps, d_hidden, &mut d_picked);
        let mut dx = last;
        dx.fill(0.0);
        for (row, from) in rows.iter().zip(d_picked.chunks_exact(c)) {
            dx[row * c..][..c].copy_from_slice(from);
        }
        dx
    }
}

/// Gradient buffers reused from layer to layer.
#[derive(Default)]
struct Gradients {
    activation: Vec<f32>,
    norm: Vec<f32>,
    o: Vec<f32>,
    qkv: Vec<f32>,
    masked: Vec<f32>,
}

/// One layer's backward: the mirror of `Model::layer_forward`.
struct LayerBackward<'a> {
    pass: &'a TrainPass<'a>,
    rows: &'a Rows<'a>,
    index: usize,
    input: &'a [f32],
    /// Its gate_up becomes its gradient.
    buffers: &'a mut LayerBuffers,
    scratch: &'a mut Gradients,
}

impl LayerBackward<'_> {
    /// dx at the layer's output → dx between attention and MLP, in place.
    fn mlp(&mut self, dx: &mut [f32], gradients: &mut AdapterGradients, workspace: &mut Workspace) {
        let (model, cpu, count) = (self.pass.model, self.pass.cpu, self.rows.count);
        let (layer, a) = (&model.layers[self.index], &model.architecture);
        let activation = &mut workspace.wide;
        resize(activation, count * a.ffn);
        swiglu(cpu, &self.buffers.gate_up, a.ffn, activation);
        let mut d_activation = std::mem::take(&mut self.scratch.activation);
        resize(&mut d_activation, count * a.ffn);
        linear_backward_x(cpu, dx, &layer.down, &mut d_activation, Epilogue::Store);
        self.adapters(activation, (dx, a.hidden), &[(Module::Down, 0)], gradients, Some(&mut d_activation));
        let mut d_gate_up = std::mem::take(&mut self.buffers.gate_up);
        swiglu_backward(cpu, &mut d_gate_up, a.ffn, &d_activation);
        let norm = &mut workspace.norm;
        resize(norm, count * a.hidden);
        rmsnorm(cpu, &self.buffers.x_middle, &layer.mlp_norm, a.norm_eps, norm);
        let mut d_norm = std::mem::take(&mut self.scratch.norm);
        resize(&mut d_norm, count * a.hidden);
        linear_backward_x(cpu, &d_gate_up, &layer.gate_up, &mut d_norm, Epilogue::Store);
        self.adapters(norm, (&d_gate_up, 2 * a.ffn), &[(Module::Gate, 0), (Module::Up, a.ffn)], gradients, Some(&mut d_norm));
        rmsnorm_backward(cpu, &self.buffers.x_middle, &layer.mlp_norm, a.norm_eps, &d_norm, dx);
        self.scratch.activation = d_activation;
        self.buffers.gate_up = d_gate_up;
        self.scratch.norm = d_norm;
    }

    /// dx between attention and MLP → dx at the layer's input, in place (left as it is below the lowest layer: nobody reads it).
    fn attention(&mut self, dx: &mut [f32], kv: &mut KvLayer, gradients: &mut AdapterGradients, workspace: &mut Workspace) {
        let (model, cpu, count) = (self.pass.model, self.pass.cpu, self.rows.count);
        let (layer, a, columns) = (&model.layers[self.index], &model.architecture, model.qkv_columns());
        let mut d_o = std::mem::take(&mut self.scratch.o);
        resize(&mut d_o, count * layer.o_width());
        linear_backward_x(cpu, dx, &layer.o, &mut d_o, Epilogue::Store);
        let o = std::mem::take(&mut self.buffers.o);
        self.adapters(&o, (dx, a.hidden), &[(Module::O, 0)], gradients, Some(&mut d_o));
        let [qkv, k, v] = [0, columns.k, columns.v].map(|column| rows::Rows { data: &self.buffers.qkv, stride: columns.stride, column });
        attention::kv_store(cpu, kv, k, v, &self.rows.segments);
        let mut d_qkv = std::mem::take(&mut self.scratch.qkv);
        resize(&mut d_qkv, count * columns.stride);
        let saved = AttentionSaved { qkv, o: &o, lse: &self.buffers.lse, d_o: &d_o };
        let read = KvRead { layer: kv, segments: &self.rows.segments };
        attention::attention_backward(cpu, &model.attention_shape(), read, saved, &mut d_qkv);
        model.rotate(self.rows, &mut d_qkv, Turn::Backward);
        for (column, heads, w) in layer.qk_norm.iter().flat_map(|norms| columns.normed(norms, a)) {
            let x = rows::Rows { data: &self.buffers.qk, stride: columns.v, column };
            rmsnorm_heads_backward(cpu, x, heads, w, a.norm_eps, rows::RowsMut { data: &mut d_qkv, stride: columns.stride, column });
        }
        let norm = &mut workspace.norm;
        resize(norm, count * a.hidden);
        rmsnorm(cpu, self.input, &layer.attention_norm, a.norm_eps, norm);
        let mut d_norm = std::mem::take(&mut self.scratch.norm);
        resize(&mut d_norm, count * a.hidden);
        let lowest = self.index == 0;
        if !lowest {
            linear_backward_x(cpu, &d_qkv, &layer.qkv, &mut d_norm, Epilogue::Store);
        }
        let modules = [(Module::Q, 0), (Module::K, columns.k), (Module::V, columns.v)];
        let d_norm_sink = if lowest { None } else { Some(&mut d_norm[..]) };
        self.adapters(norm, (&d_qkv, columns.stride), &modules, gradients, d_norm_sink);
        if !lowest {
            rmsnorm_backward(cpu, self.input, &layer.attention_norm, a.norm_eps, &d_norm, dx);
        }
        self.buffers.o = o;
        self.scratch.o = d_o;
        self.scratch.qkv = d_qkv;
        self.scratch.norm = d_norm;
    }

    /// The adapters' part of one linear map: dA and dB of each module, and what goes on to `dx`.
    fn adapters(
        &mut self,
        x: &[f32],
        (dy, stride): (&[f32], usize),
        modules: &[(Module, usize)],
        gradients: &mut AdapterGradients,
        mut dx: Option<&mut [f32]>,
    ) {
        let h_stride = self.rows.rank_padded;
        for &(module, column) in modules {
            let run = &self.rows.runs(self.index, module)[0];
            let gradient = &mut gradients.layers[self.index][module as usize];
            let h = rows::Rows { data: &self.buffers.h[module as usize], stride: h_stride, column: 0 };
            let dy = rows::Rows { data: dy, stride, column };
            let (da, db) = (&mut gradient.da[..], &mut gradient.db[..]);
            let Some(mask) = &self.rows.dropout else {
                let sink = LoraGradients { da, db, dx: dx.as_deref_mut() };
                lora_backward(self.pass.cpu, run, LoraSaved { x, h, dy }, sink);
                continue;
            };
            let mut masked = std::mem::take(&mut self.scratch.masked);
            mask.apply(x, self.index, module, &mut masked);
            let mut d_masked = zeros(x.len());
            lora_backward(self.pass.cpu, run, LoraSaved { x: &masked, h, dy }, LoraGradients { da, db, dx: Some(&mut d_masked) });
            mask.apply(&d_masked, self.index, module, &mut masked);
            for (to, from) in dx.iter_mut().flat_map(|dx| dx.iter_mut()).zip(&masked) {
                *to += from;
            }
            self.scratch.masked = masked;
        }
    }
}

/// Dropout's mask as a function: nothing is stored, forward and backward compute it alike.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DropoutMask(Dropout);

impl DropoutMask {
    /// out = x ⊙ mask / (1 − p).
    pub(crate) fn apply(&self, x: &[f32], layer: usize, module: Module, out: &mut Vec<f32>) {
        let Dropout { p, seed } = self.0;
        let scale = 1.0 / (1.0 - p);
        let threshold = (f64::from(p) * (1u64 << 32) as f64) as u64;
        let key = mix(seed ^ mix((layer * 7 + module as usize) as u64 + 1));
        out.clear();
        out.extend(x.iter().enumerate().map(|(i, value)| if mix(key ^ i as u64) >> 32 < threshold { 0.0 } else { value * scale }));
    }
}
