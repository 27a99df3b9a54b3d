//! Times one step of training. Does not know the machine's limits.

use std::convert::Infallible;
use std::ops::Range;
use std::time::Instant;

use tiger_engine::train::{Advance, Job};
use tiger_engine::{BaseId, Config, Group, Knobs, Response, TrainRequest};
use tiger_kernels::Cpu;
use tiger_model::{Adapter, AdapterGradients, AdapterState, Keep, Model, RowScore, Target, TokenWeights, TrainBatch, TrainPass, Workspace};

/// Sequences and their length, and the rank of the adapter.
pub(super) const SEQUENCES: usize = 8;
pub(super) const SEQUENCE: usize = 256;
const RANK: usize = 16;
/// Responses to one prompt, its tokens and theirs.
pub(super) const GROUP: usize = 8;
pub(super) const GROUP_PROMPT: usize = 1024;
pub(super) const GROUP_ANSWER: usize = 64;

/// Seconds of forward, scores, backward and nothing else; AdamW on the adapter is a thousandth of it.
pub(super) fn seconds(cpu: &Cpu, model: &Model, checkpointed: bool) -> f64 {
    let keep = if checkpointed { Keep::LayerInputs } else { Keep::All };
    let vocab = model.architecture().vocab as u32;
    let mut batch = TrainBatch::default();
    for s in 0..SEQUENCES {
        let first = s * SEQUENCE;
        batch.push(tokens(s, SEQUENCE, vocab));
        batch.targets.extend((0..SEQUENCE).map(|i| Target { row: first + i, token: (i as u32 * 17) % vocab }));
    }
    let adapter = Adapter::new(model.architecture(), RANK, 2.0 * RANK as f32, 1);
    let (mut gradients, mut workspace) = (AdapterGradients::zeros(&adapter), Workspace::default());
    let pass = TrainPass { model, cpu, batch: &batch, adapter: Some(&adapter), dropout: None };
    let mut weigh =
        |part: Range<usize>, _: &[RowScore]| Ok::<_, Infallible>(TokenWeights { coefficients: vec![-1e-3; part.len()], kl: Vec::new() });
    let started = Instant::now();
    let saved = pass.forward(keep, &mut workspace);
    let Ok(head) = pass.head(&saved, None, &mut weigh, &mut workspace);
    pass.backward(saved, &head, &mut gradients, &mut workspace);
    started.elapsed().as_secs_f64()
}

/// Seconds of a training call with one group, and of its responses one call after the other: one such call's, times their number. The engine
/// decides about micro-batches; there is no KL, so each token is computed forward once and backward once.
pub(super) fn group_seconds(cpu: &Cpu, model: &Model) -> [f64; 2] {
    [call_seconds(cpu, model, GROUP), GROUP as f64 * call_seconds(cpu, model, 1)]
}

fn call_seconds(cpu: &Cpu, model: &Model, responses: usize) -> f64 {
    let vocab = model.architecture().vocab as u32;
    let response = |i| Response { tokens: tokens(i + 1, GROUP_ANSWER, vocab).collect(), reward: 1.0 + i as f64, recorded: None };
    let request = TrainRequest {
        base: BaseId("bench".into()),
        account: 0,
        state: AdapterState::new(Adapter::new(model.architecture(), RANK, 2.0 * RANK as f32, 1)),
        reference: None,
        dropout: 0.0,
        groups: vec![Group { prompt: tokens(0, GROUP_PROMPT, vocab).collect(), responses: (0..responses).map(response).collect() }],
        knobs: Knobs { kl_coefficient: 0.0, evaluate: false, ..Knobs::default() },
    };
    // Nobody listens, but someone must be there: a job without a caller ends.
    let (events, _caller) = tokio::sync::mpsc::unbounded_channel();
    let started = Instant::now();
    let mut job = Job::new(request, events, &Config::default());
    while job.advance(model, cpu) == Advance::Working {}
    started.elapsed().as_secs_f64()
}

fn tokens(seed: usize, count: usize, vocab: u32) -> impl Iterator<Item = u32> {
    (0..count as u32).map(move |i| (i * 7919 + seed as u32 * 31) % vocab)
}
