//! Times streams in the engine alone and while a model trains in it: their rate, and the gaps between two tokens of one stream.
//! Does not know how the engine shares the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tiger_engine::{BaseId, Config, Engine, Event, GenerateRequest, Handle, Sampling, Speculation, TrainEvent, Training};
use tiger_model::Model;

use super::engine::{Ready, prompt};
use super::training;
use crate::failure::Failure;

/// Tokens of each stream's answer.
const ANSWER: u32 = 256;
/// Answers are asked for, one after the other, for so long at least.
const TIME: Duration = Duration::from_secs(4);
/// Sequences of a training call.
const SEQUENCES: usize = 8;

/// One stream's time between two tokens, in seconds, and the rate of all streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) tokens_per_s: f64,
    pub(super) median_s: f64,
    /// Of a hundred gaps 99 are shorter.
    pub(super) p99_s: f64,
    pub(super) largest_s: f64,
}

/// The same streams alone and beside training.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beside {
    pub(super) idle: Pace,
    pub(super) beside: Pace,
    /// What was trained meanwhile; of a call that did not end in time, nothing is counted.
    pub(super) trained_per_s: f64,
}

/// Measures both in one engine.
pub(super) fn measure(model: &Arc<Model>, threads: usize, streams: u32) -> Result<Beside, Failure> {
    // Drafts give tokens in bursts.
    let config =
        Config { threads, memory_budget_bytes: u64::MAX / 2, kv_bytes: 256 << 20, speculation: Speculation::Off, ..Config::default() };
    let engine = Engine::start(config, Arc::new(Ready(model.clone())));
    let handle = engine.handle();
    let mut nothing = || Ok(());
    // The first answer touches fresh memory.
    answer(&handle, model, streams, &mut nothing)?;
    let idle = pace(&handle, model, streams, &mut nothing)?;
    let mut trainer = Trainer { handle: &handle, model, running: None };
    trainer.go_on()?;
    let (began, before) = (Instant::now(), handle.status().trained_tokens);
    let beside = pace(&handle, model, streams, &mut || trainer.go_on())?;
    let trained = handle.status().trained_tokens - before;
    Ok(Beside { idle, beside, trained_per_s: trained as f64 / began.elapsed().as_secs_f64() })
}

/// One call after the other.
struct Trainer<'a> {
    handle: &'a Handle,
    model: &'a Model,
    running: Option<Training>,
}

impl Trainer<'_> {
    /// The next call if there is none or the last has ended.
    fn go_on(&mut self) -> Result<(), Failure> {
        while let Some(training) = &mut self.running {
            match training.events.try_recv() {
                Ok(TrainEvent::Done(_)) => self.running = None,
                Ok(TrainEvent::Failed(error)) => return Err(Failure::because("the training failed", error)),
                Ok(_) => {}
                Err(_) => return Ok(()),
            }
        }
        let request = training::sequences_request(self.model, SEQUENCES);
        self.running = Some(self.handle.train(request).map_err(|e| Failure::because("the engine refused", e))?);
        Ok(())
    }
}

/// Rate and gaps over some answers.
fn pace(handle: &Handle, model: &Model, streams: u32, meanwhile: &mut dyn FnMut() -> Result<(), Failure>) -> Result<Pace, Failure> {
    let (mut gaps, mut tokens, mut seconds) = (Vec::new(), 0, 0.0);
    let began = Instant::now();
    while began.elapsed() < TIME {
        let times = answer(handle, model, streams, meanwhile)?;
        gaps.extend(times.values().flat_map(|times| times.windows(2)).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()));
        // From when all of them have begun.
        let first = times.values().filter_map(|times| times.first()).max();
        let last = times.values().filter_map(|times| times.last()).max();
        let (Some(first), Some(last)) = (first, last) else { return Err(Failure::new("the engine gave no tokens")) };
        tokens += times.values().flatten().filter(|time| *time > first).count();
        seconds += last.duration_since(*first).as_secs_f64();
    }
    gaps.sort_by(f64::total_cmp);
    let share = |part: usize, of: usize| gaps.get((gaps.len() * part / of).min(gaps.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
    Ok(Pace { tokens_per_s: tokens as f64 / seconds, median_s: share(1, 2), p99_s: share(99, 100), largest_s: share(1, 1) })
}

/// When each token of each stream came.
fn answer(
    handle: &Handle,
    model: &Model,
    streams: u32,
    meanwhile: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<BTreeMap<u32, Vec<Instant>>, Failure> {
    let request = GenerateRequest {
        base: BaseId("bench".into()),
        adapter: None,
        account: 0,
        prompt: prompt(model),
        samples: streams,
        max_tokens: ANSWER,
        sampling: Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 1 },
        end_tokens: Vec::new(),
        constraint: None,
        alternatives: 0,
    };
    let mut generation = handle.generate(request).map_err(|e| Failure::because("the engine refused", e))?;
    let mut times: BTreeMap<u32, Vec<Instant>> = BTreeMap::new();
    while let Some(event) = generation.events.blocking_recv() {
        match event {
            Event::Token { sample, .. } => {
                times.entry(sample).or_default().push(Instant::now());
                meanwhile()?;
            }
            Event::Failed(error) => return Err(Failure::because("the engine failed", error)),
            _ => {}
        }
    }
    Ok(times)
}
