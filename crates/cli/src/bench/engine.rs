//! Times tokens that go the whole way through the engine, scheduling and events included, beside the same steps and draws done bare.
//! Does not know the machine's limits.

use std::sync::Arc;
use std::time::Instant;

use tiger_engine::sample::sampler::{DrawId, Scratch, draw};
use tiger_engine::{AdapterId, BaseId, Config, Engine, Event, GenerateRequest, Progress, Sampling, Source, Speculation};
use tiger_kernels::Cpu;
use tiger_kernels::ops::logprob::score_rows;
use tiger_model::{Adapter, Kv, Model, PAGE_TOKENS, PageId, RowScore, Segment, Step, Workspace};

use crate::failure::Failure;

/// Tokens of the prompt and of the answer.
const PROMPT: usize = 64;
const ANSWER: usize = 384;
/// Temperature 1 of the whole vocabulary.
const SAMPLING: Sampling = Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 1 };

/// Microseconds of a token of one stream; medians over an answer, which a moment's other load does not move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Costs {
    /// Forward pass and logits.
    pub(super) step_us: f64,
    /// Drawing a token from the logits, and its log-prob.
    pub(super) draw_us: f64,
    /// Both within the engine, up to the thread that receives the token.
    pub(super) engine_us: f64,
}

impl Costs {
    /// What the engine adds.
    pub(super) fn overhead_us(&self) -> f64 {
        self.engine_us - self.step_us - self.draw_us
    }
}

/// Measures the same answer bare and in an engine of as many threads.
pub(super) fn costs(cpu: &Cpu, model: &Arc<Model>) -> Result<Costs, Failure> {
    let (step_us, draw_us) = bare(cpu, model);
    Ok(Costs { step_us, draw_us, engine_us: in_engine(model, cpu.threads())? })
}

/// Microseconds of a step and of a draw with nothing around them.
fn bare(cpu: &Cpu, model: &Model) -> (f64, f64) {
    let pages: Vec<PageId> = (0..(PROMPT + ANSWER).div_ceil(PAGE_TOKENS) as u32).map(PageId).collect();
    let mut kv = Kv::new(model, pages.len());
    let (mut workspace, mut logits, mut scratch) = (Workspace::default(), Vec::new(), Scratch::default());
    let mut tokens = prompt(model);
    let (mut start, mut steps, mut draws) = (0, Vec::new(), Vec::new());
    while start < PROMPT + ANSWER {
        let began = Instant::now();
        let segments = [Segment { rows: 0..tokens.len(), start, pages: &pages, adapter: None }];
        let step = Step { tokens: &tokens, segments: &segments, outputs: &[tokens.len() - 1] };
        let hidden = model.forward(cpu, &mut kv, &step, &mut workspace);
        model.logits(cpu, &hidden, &mut logits);
        let stepped = Instant::now();
        start += tokens.len();
        let id = DrawId { seed: SAMPLING.seed, sample: 0, position: start };
        let token = draw(&logits, None, &SAMPLING, id, &mut scratch).unwrap_or_default();
        score_rows(cpu, &logits, logits.len(), &[token], &mut [RowScore::default()]);
        if tokens.len() == 1 {
            steps.push(stepped.duration_since(began).as_secs_f64());
            draws.push(stepped.elapsed().as_secs_f64());
        }
        tokens = vec![token];
    }
    (median_us(steps), median_us(draws))
}

/// Microseconds between two tokens of a stream, as the thread sees them that receives it.
fn in_engine(model: &Arc<Model>, threads: usize) -> Result<f64, Failure> {
    let request = GenerateRequest {
        base: BaseId("bench".into()),
        adapter: None,
        account: 0,
        prompt: prompt(model),
        samples: 1,
        max_tokens: ANSWER as u32,
        sampling: SAMPLING,
        end_tokens: Vec::new(),
        constraint: None,
        alternatives: 0,
    };
    let (times, _) = token_times(model, threads, Speculation::Off, request)?;
    Ok(median_us(times.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect()))
}

/// Tokens that were guessed and computed for it, and those that were drawn then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drafted {
    pub(super) tokens: u64,
    pub(super) right: u64,
}

/// Seconds per token of one request, from its first token to its last, and its drafts.
pub(super) fn timed(
    model: &Arc<Model>,
    threads: usize,
    speculation: Speculation,
    request: GenerateRequest,
) -> Result<(f64, Drafted), Failure> {
    let (times, drafted) = token_times(model, threads, speculation, request)?;
    let (Some(first), Some(last)) = (times.first(), times.last()) else { return Err(Failure::new("the engine gave no tokens")) };
    Ok((last.duration_since(*first).as_secs_f64() / (times.len().max(2) - 1) as f64, drafted))
}

/// When each token of a request came, and its drafts.
fn token_times(
    model: &Arc<Model>,
    threads: usize,
    speculation: Speculation,
    request: GenerateRequest,
) -> Result<(Vec<Instant>, Drafted), Failure> {
    let config = Config { threads, memory_budget_bytes: u64::MAX / 2, kv_bytes: 256 << 20, speculation, ..Config::default() };
    let engine = Engine::start(config, Arc::new(Ready(model.clone())));
    let wanted = request.max_tokens as usize * request.samples as usize;
    let mut generation = engine.handle().generate(request).map_err(|e| Failure::because("the engine refused", e))?;
    let mut times = Vec::with_capacity(wanted);
    while let Some(event) = generation.events.blocking_recv() {
        match event {
            Event::Token { .. } => times.push(Instant::now()),
            Event::Failed(error) => return Err(Failure::because("the engine failed", error)),
            _ => {}
        }
    }
    if times.len() < wanted {
        return Err(Failure::new(format!("the engine gave {} tokens of {wanted}", times.len())));
    }
    // The engine counts a request a moment after its last token.
    while engine.handle().status().running > 0 {
        std::thread::yield_now();
    }
    let status = engine.handle().status();
    Ok((times, Drafted { tokens: status.drafted_tokens, right: status.accepted_tokens }))
}

pub(super) fn prompt(model: &Model) -> Vec<u32> {
    (0..PROMPT as u32).map(|i| i.wrapping_mul(7919) % model.architecture().vocab as u32).collect()
}

fn median_us(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    1e6 * seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The one model, already there.
pub(super) struct Ready(pub(super) Arc<Model>);

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
