//! Times one step of training. Does not know the machine's limits.

use std::time::Instant;

use tiger_kernels::Cpu;
use tiger_model::{Adapter, AdapterGradients, HeadGradient, Keep, Model, Target, TrainBatch, TrainPass, Workspace};

/// Sequences and their length, and the rank of the adapter.
pub(super) const SEQUENCES: usize = 8;
pub(super) const SEQUENCE: usize = 256;
const RANK: usize = 16;

/// Seconds of forward, scores, backward and nothing else; AdamW on the adapter is a thousandth of it.
pub(super) fn seconds(cpu: &Cpu, model: &Model, checkpointed: bool) -> f64 {
    let keep = if checkpointed { Keep::LayerInputs } else { Keep::All };
    let vocab = model.architecture().vocab as u32;
    let mut batch = TrainBatch::default();
    for s in 0..SEQUENCES {
        let first = s * SEQUENCE;
        batch.tokens.extend((0..SEQUENCE as u32).map(|i| (i * 7919 + s as u32 * 31) % vocab));
        batch.sequences.push(first..first + SEQUENCE);
        batch.targets.extend((0..SEQUENCE).map(|i| Target { row: first + i, token: (i as u32 * 17) % vocab }));
    }
    let adapter = Adapter::new(model.architecture(), RANK, 2.0 * RANK as f32, 1);
    let (mut gradients, mut workspace) = (AdapterGradients::zeros(&adapter), Workspace::default());
    let pass = TrainPass { model, cpu, batch: &batch, adapter: Some(&adapter), dropout: None };
    let coefficients = vec![-1e-3; batch.targets.len()];
    let started = Instant::now();
    let saved = pass.forward(keep, &mut workspace);
    let scores = model.score(cpu, &saved.hidden, &batch.targets, &mut workspace);
    pass.backward(saved, &HeadGradient { scores: &scores, coefficients: &coefficients, kl: None }, &mut gradients, &mut workspace);
    started.elapsed().as_secs_f64()
}
