//! Times training calls of the engine, AdamW included. Does not know the machine's limits.

use std::time::Instant;

use tiger_engine::train::{Advance, Job};
use tiger_engine::{BaseId, Baseline, Config, Group, Knobs, Objective, Response, TrainRequest};
use tiger_kernels::Cpu;
use tiger_model::{Adapter, AdapterState, Model};

use crate::failure::Failure;

/// Tokens of a sequence, all trained, and the rank of the adapter.
pub(super) const SEQUENCE: usize = 256;
const RANK: usize = 16;
/// Responses to one prompt, its tokens and theirs.
pub(super) const GROUP: usize = 8;
pub(super) const GROUP_PROMPT: usize = 1024;
pub(super) const GROUP_ANSWER: usize = 64;

/// How a step goes through the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// As the engine does it: in micro-batches.
    MicroBatches,
    /// All sequences at once, everything kept.
    Whole,
    /// All sequences at once, layers computed again.
    Checkpointed,
}

impl Pass {
    fn config(self) -> Config {
        let whole = Config { micro_batch_tokens: usize::MAX, ..Config::default() };
        match self {
            Self::MicroBatches => Config::default(),
            Self::Whole => Config { activation_bytes: u64::MAX, ..whole },
            Self::Checkpointed => Config { activation_bytes: 0, ..whole },
        }
    }
}

/// Micro-batches of a step on so many sequences.
pub(super) fn micro_batches(sequences: usize) -> usize {
    (sequences * SEQUENCE).div_ceil(Config::default().micro_batch_tokens)
}

/// Seconds of a call that takes one step on so many sequences of [`SEQUENCE`] tokens.
pub(super) fn seconds(cpu: &Cpu, model: &Model, sequences: usize, pass: Pass) -> Result<f64, Failure> {
    call_seconds(cpu, model, sequences_request(model, sequences), &pass.config())
}

/// A call that takes one step on so many sequences of [`SEQUENCE`] tokens.
pub(super) fn sequences_request(model: &Model, sequences: usize) -> TrainRequest {
    let vocab = model.architecture().vocab as u32;
    // One token goes before the trained ones, and the last is no row: so many rows as targets.
    let group = |s| Group { prompt: vec![0], responses: vec![response(s, SEQUENCE, vocab)] };
    let knobs = Knobs { objective: Objective::Sft, baseline: Baseline::None, ..knobs() };
    request(model, (0..sequences).map(group).collect(), knobs)
}

/// Seconds of a training call with one group, and of its responses one call after the other: one such call's, times their number. The engine
/// decides about micro-batches; there is no KL, so each token is computed forward once and backward once.
pub(super) fn group_seconds(cpu: &Cpu, model: &Model) -> Result<[f64; 2], Failure> {
    let vocab = model.architecture().vocab as u32;
    let seconds = |responses| {
        let responses = (0..responses).map(|i| response(i, GROUP_ANSWER, vocab)).collect();
        let groups = vec![Group { prompt: tokens(0, GROUP_PROMPT, vocab).collect(), responses }];
        call_seconds(cpu, model, request(model, groups, knobs()), &Config::default())
    };
    Ok([seconds(GROUP)?, GROUP as f64 * seconds(1)?])
}

fn knobs() -> Knobs {
    Knobs { kl_coefficient: 0.0, evaluate: false, ..Knobs::default() }
}

fn request(model: &Model, groups: Vec<Group>, knobs: Knobs) -> TrainRequest {
    TrainRequest {
        base: BaseId("bench".into()),
        account: 0,
        state: AdapterState::new(Adapter::new(model.architecture(), RANK, 2.0 * RANK as f32, 1)),
        reference: None,
        dropout: 0.0,
        groups,
        knobs,
    }
}

fn call_seconds(cpu: &Cpu, model: &Model, request: TrainRequest, config: &Config) -> Result<f64, Failure> {
    // Nobody listens, but someone must be there: a job without a caller ends.
    let (events, _caller) = tokio::sync::mpsc::unbounded_channel();
    let started = Instant::now();
    let mut job = Job::new(request, events, config);
    while job.advance(model, cpu) == Advance::Working {}
    let seconds = started.elapsed().as_secs_f64();
    if job.counts().updates == 1 { Ok(seconds) } else { Err(Failure::new("the training call took no step")) }
}

fn response(seed: usize, count: usize, vocab: u32) -> Response {
    Response { tokens: tokens(seed + 1, count, vocab).collect(), reward: 1.0 + seed as f64, recorded: None }
}

fn tokens(seed: usize, count: usize, vocab: u32) -> impl Iterator<Item = u32> {
    (0..count as u32).map(move |i| (i * 7919 + seed as u32 * 31) % vocab)
}
