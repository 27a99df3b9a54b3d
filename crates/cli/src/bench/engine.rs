//! Times tokens that go the whole way through the engine: scheduling, sampling and events beside the same steps done bare.
//! Does not know the machine's limits.

use std::sync::Arc;
use std::time::Instant;

use tiger_engine::{AdapterId, BaseId, Config, Engine, Event, GenerateRequest, Progress, Sampling, Source, Speculation};
use tiger_model::{Adapter, Model};

use crate::failure::Failure;

/// Tokens of the prompt and of the answer.
const PROMPT: usize = 64;
const ANSWER: u32 = 128;
/// Middle of the answer: where the bare steps are measured.
pub(super) const MIDDLE: usize = PROMPT + ANSWER as usize / 2;

/// The one model, already there.
struct Ready(Arc<Model>);

impl Source for Ready {
    fn base(&self, _: &BaseId, _: Progress<'_>) -> Result<Arc<Model>, String> {
        Ok(self.0.clone())
    }

    fn base_bytes(&self, _: &BaseId) -> Result<u64, String> {
        Ok(self.0.bytes())
    }

    fn adapter(&self, _: &BaseId, _: &AdapterId) -> Result<Arc<Adapter>, String> {
        Err("a benchmark of the bare base".into())
    }
}

/// Seconds per token of one stream at temperature 1, from the first token to the last.
pub(super) fn seconds_per_token(model: &Arc<Model>, threads: usize) -> Result<f64, Failure> {
    let vocab = model.architecture().vocab as u32;
    let request = GenerateRequest {
        base: BaseId("bench".into()),
        adapter: None,
        account: 0,
        prompt: (0..PROMPT as u32).map(|i| i.wrapping_mul(7919) % vocab).collect(),
        samples: 1,
        max_tokens: ANSWER,
        sampling: Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 1 },
        end_tokens: Vec::new(),
        constraint: None,
    };
    timed(model, threads, Speculation::Off, request)
}

/// Seconds per token of one request, from its first token to its last.
pub(super) fn timed(model: &Arc<Model>, threads: usize, speculation: Speculation, request: GenerateRequest) -> Result<f64, Failure> {
    let config = Config { threads, memory_budget_bytes: u64::MAX / 2, kv_bytes: 256 << 20, speculation, ..Config::default() };
    let engine = Engine::start(config, Arc::new(Ready(model.clone())));
    let mut generation = engine.handle().generate(request).map_err(|e| Failure::because("the engine refused", e))?;
    let (mut first, mut tokens) = (None, 0);
    while let Some(event) = generation.events.blocking_recv() {
        match event {
            Event::Token { .. } => {
                first.get_or_insert_with(Instant::now);
                tokens += 1;
            }
            Event::Failed(error) => return Err(Failure::because("the engine failed", error)),
            _ => {}
        }
    }
    let Some(first) = first.filter(|_| tokens > 1) else { return Err(Failure::new("the engine gave no tokens")) };
    Ok(first.elapsed().as_secs_f64() / f64::from(tokens - 1))
}
