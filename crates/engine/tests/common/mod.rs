//! A tiny model, a source that serves it and can fail, and a caller that collects answers.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tiger_engine::{
    AdapterId, BaseId, Config, Engine, EngineError, Event, FinishReason, GenerateRequest, Generation, Handle, Progress, Sampling, Source,
    Speculation,
};
use tiger_formats::{Architecture, Rope, RopeScaling};
use tiger_kernels::Cpu;
use tiger_model::{Adapter, KvType, Model, Precision};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const VOCAB: u32 = 320;

pub fn architecture() -> Architecture {
    Architecture {
        hidden: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ffn: 128,
        vocab: VOCAB as usize,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        context_length: 2048,
        tied: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
    }
}

pub fn model(precision: Precision) -> Arc<Model> {
    Arc::new(Model::synthetic(&Cpu::new(1, None), &architecture(), precision, 11))
}

pub fn model_with(precision: Precision, kv_type: KvType) -> Arc<Model> {
    model_of(&architecture(), precision, kv_type)
}

pub fn model_of(architecture: &Architecture, precision: Precision, kv_type: KvType) -> Arc<Model> {
    Arc::new(Model::synthetic(&Cpu::new(1, None), architecture, precision, 11).with_kv_type(kv_type))
}

/// An adapter that changes the answers: B is not zero.
pub fn adapter(seed: u64) -> Adapter {
    let mut adapter = Adapter::new(&architecture(), 8, 16.0, seed);
    for (i, tensor) in adapter.tensors_mut().enumerate() {
        if i % 2 == 1 {
            for (j, value) in tensor.iter_mut().enumerate() {
                *value = ((i as u64 * 31 + j as u64 * 7 + seed * 13) % 29) as f32 / 290.0 - 0.05;
            }
        }
    }
    adapter
}

pub fn adapter_id(n: u8) -> AdapterId {
    AdapterId([n; 32])
}

/// Serves one tiny model under any name that it was told of. A gate holds loads back.
pub struct FakeSource {
    pub model: Arc<Model>,
    pub bytes: u64,
    pub loads: AtomicUsize,
    pub gate: (Mutex<bool>, Condvar),
}

impl FakeSource {
    pub fn new(precision: Precision) -> FakeSource {
        FakeSource::of(model(precision))
    }

    pub fn of(model: Arc<Model>) -> FakeSource {
        FakeSource { bytes: model.bytes(), model, loads: AtomicUsize::new(0), gate: (Mutex::new(true), Condvar::new()) }
    }

    pub fn open(&self, open: bool) {
        *self.gate.0.lock().unwrap() = open;
        self.gate.1.notify_all();
    }

    fn pass(&self) {
        let guard = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(guard, |open| !*open).unwrap());
    }
}

impl Source for FakeSource {
    fn base(&self, id: &BaseId, progress: Progress<'_>) -> Result<Arc<Model>, String> {
        progress("Loading weights", 0.5);
        self.pass();
        self.loads.fetch_add(1, Ordering::Relaxed);
        match &*id.0 {
            "broken" => Err("the file is cut short".into()),
            "panics" => panic!("the source panics on purpose"),
            _ => Ok(self.model.clone()),
        }
    }

    fn base_bytes(&self, id: &BaseId) -> Result<u64, String> {
        match &*id.0 {
            "missing" => Err("no such base".into()),
            "huge" => Ok(1 << 50),
            "unsizable" => panic!("the source panics on purpose"),
            _ => Ok(self.bytes),
        }
    }

    fn adapter(&self, _: &BaseId, id: &AdapterId) -> Result<Arc<Adapter>, String> {
        match id.0[0] {
            250 => Err("the adapter is gone".into()),
            251 => panic!("the source panics on purpose"),
            n => Ok(Arc::new(adapter(u64::from(n)))),
        }
    }
}

/// Small, and with drafts at every step: whatever else is tested has to hold under them.
pub fn config() -> Config {
    Config {
        threads: 2,
        memory_budget_bytes: 64 << 20,
        kv_bytes: 8 << 20,
        step_tokens: 64,
        max_sequences: 64,
        speculation: Speculation::Always,
        ..Config::default()
    }
}

/// `kv_bytes` for this many pages of the tiny model.
pub fn pages(source: &FakeSource, pages: u64) -> u64 {
    source.model.kv_bytes_per_page() as u64 * pages
}

pub fn base(name: &str) -> BaseId {
    BaseId(name.into())
}

pub fn prompt(len: usize, seed: u32) -> Vec<u32> {
    (0..len as u32).map(|i| (i * 37 + seed * 101 + i * i * 3) % VOCAB).collect()
}

pub fn request(prompt: Vec<u32>) -> GenerateRequest {
    GenerateRequest {
        base: base("tiny"),
        adapter: None,
        account: 1,
        prompt,
        samples: 1,
        max_tokens: 12,
        sampling: Sampling { temperature: 1.0, top_p: 0.95, top_k: 0, min_p: 0.0, seed: 99 },
        end_tokens: Vec::new(),
        constraint: None,
        alternatives: 0,
    }
}

/// What came of one sample: tokens with the bits of their log-probs, and how it ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub tokens: Vec<(u32, u32)>,
    /// Of each token, where asked for, the alternatives with the bits of theirs.
    pub alternatives: Vec<Vec<(u32, u32)>>,
    pub reason: Option<FinishReason>,
}

/// What came of one request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    pub answers: BTreeMap<u32, Answer>,
    pub cached: u32,
    pub infos: Vec<String>,
    pub error: Option<EngineError>,
}

impl Collected {
    pub fn ids(&self, sample: u32) -> Vec<u32> {
        self.answers[&sample].tokens.iter().map(|(id, _)| *id).collect()
    }
}

/// Next event, or None when `PATIENCE` is over.
pub fn next(generation: &mut Generation) -> Option<Event> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, generation.events.recv()).await.expect("an event in time") })
}

/// Collects to the end and checks the order of events.
pub fn collect(mut generation: Generation) -> Collected {
    let mut got = Collected::default();
    let mut started = false;
    while let Some(event) = next(&mut generation) {
        match event {
            Event::Info { message, .. } => got.infos.push(message),
            Event::Started { cached_tokens } => {
                assert!(!std::mem::replace(&mut started, true), "started once");
                got.cached = cached_tokens;
            }
            Event::Token { sample, id, logprob, alternatives } => {
                assert!(started && logprob <= 0.0);
                let answer = got.answers.entry(sample).or_default();
                assert_eq!(answer.reason, None, "no token after the end");
                answer.tokens.push((id, logprob.to_bits()));
                if !alternatives.is_empty() {
                    answer.alternatives.push(alternatives.into_iter().map(|(id, logprob)| (id, logprob.to_bits())).collect());
                }
            }
            Event::Finished { sample, reason } => {
                assert_eq!(got.answers.entry(sample).or_default().reason.replace(reason), None, "a sample ends once");
            }
            Event::Done => {
                assert!(got.answers.values().all(|a| a.reason.is_some()));
                return got;
            }
            Event::Failed(error) => {
                got.error = Some(error);
                return got;
            }
        }
    }
    panic!("the events ended without Done or Failed: {got:?}");
}

pub fn ask(handle: &Handle, request: GenerateRequest) -> Collected {
    collect(handle.generate(request).unwrap())
}

pub fn check(handle: &Handle) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(handle.check()).unwrap();
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn engine(config: Config) -> (Engine, Handle) {
    start(config, Arc::new(FakeSource::new(Precision::Bf16)))
}

pub fn start(config: Config, source: Arc<FakeSource>) -> (Engine, Handle) {
    let engine = Engine::start(config, source);
    let handle = engine.handle();
    (engine, handle)
}
