//! The handle: what the rest of the program holds of the engine. Commands go to the one worker thread.
//! Does not know how a batch is built.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tiger_kernels::Cpu;
use tiger_model::{Adapter, Model};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::request::{AdapterId, BaseId, EngineError, Event, GenerateRequest, Generation, MAX_ALTERNATIVES, TrainEvent, Training};
use crate::source::Source;
use crate::train::{TrainRequest, validate};
use crate::worker::Worker;

/// Most continuations of one request: far above the API's 64, so that one request cannot ask for gigabytes of bookkeeping.
pub const MAX_SAMPLES: u32 = 4096;

/// Most train requests waiting or running; each holds an adapter with its optimizer state, hundreds of megabytes at 8B.
pub const MAX_TRAININGS: usize = 32;

/// Most preloads waiting.
pub const MAX_PRELOADS: usize = 64;

/// Longest wait that a refused caller is asked for, seconds: the estimate is rough, and a minute is polite enough.
const MAX_RETRY_S: f64 = 60.0;

/// Weight of the newest interval in the running mean of intervals between starts.
const PACE_WEIGHT: f64 = 0.1;

/// Limits of the engine; each with its unit.
#[derive(Debug, Clone)]
pub struct Config {
    /// Threads of arithmetic, the worker included.
    pub threads: usize,
    /// Bytes for bases, KV pages and adapters together.
    pub memory_budget_bytes: u64,
    /// Bytes of KV pages of one base; grown pages are touched lazily.
    pub kv_bytes: u64,
    /// Most rows (tokens) of one step.
    pub step_tokens: usize,
    /// Most sequences that decode at once.
    pub max_sequences: usize,
    /// Most requests waiting, all accounts together.
    pub queue_requests: usize,
    /// Most requests waiting of one account.
    pub queue_requests_per_account: usize,
    /// Most tokens computed in a training micro-batch. A longer single sequence is its own, and responses that share a longer prompt may
    /// have as many tokens as they share.
    pub micro_batch_tokens: usize,
    /// Bytes of activations kept in a training micro-batch; the layers that do not fit are checkpointed. A sixteenth of it may keep what the parent
    /// says from step to step.
    pub activation_bytes: u64,
    /// Whether likely continuations are computed ahead. It changes no result, only time.
    pub speculation: Speculation,
}

/// When a sequence's next tokens are drafted from what it said before, to be verified together in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speculation {
    /// Where it pays, by the measured time of steps and the measured luck of drafts.
    #[default]
    Auto,
    /// Never.
    Off,
    /// At every step, however wrong the draft: for tests.
    Always,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
            memory_budget_bytes: 20 << 30,
            kv_bytes: 1 << 30,
            step_tokens: 512,
            max_sequences: 256,
            queue_requests: 1024,
            queue_requests_per_account: 512,
            micro_batch_tokens: 512,
            activation_bytes: 4 << 30,
            speculation: Speculation::Auto,
        }
    }
}

/// Why a request was not admitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Rejected {
    /// A queue is full: try again later.
    #[error("the queue is full: {waiting} requests are waiting; try again in {retry_after_s} s")]
    QueueFull {
        /// Requests in line.
        waiting: usize,
        /// Seconds.
        retry_after_s: u32,
    },
    /// The engine is stopping.
    #[error("the server is shutting down; try again when it is back")]
    Draining,
    /// The request cannot be served whatever the load.
    #[error("{0}")]
    Invalid(String),
}

/// A moment's picture of the engine, for metrics and readiness.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Status {
    /// Generate requests waiting.
    pub waiting: usize,
    /// Sequences that run.
    pub running: usize,
    /// Train requests waiting or running.
    pub trainings: usize,
    /// KV pages in use, all bases.
    pub pages_used: usize,
    /// KV pages in all, all bases.
    pub pages_total: usize,
    /// Loaded bases and the bytes of each.
    pub bases: Vec<(BaseId, u64)>,
    /// Bases being loaded.
    pub loading: Vec<BaseId>,
    /// Adapters in slots.
    pub adapters: usize,
    /// Tokens computed in prompts since the start.
    pub prompt_tokens: u64,
    /// Prompt tokens found in the prefix cache since the start.
    pub cached_tokens: u64,
    /// Tokens sampled since the start.
    pub sampled_tokens: u64,
    /// Tokens trained since the start.
    pub trained_tokens: u64,
    /// Tokens drafted since the start.
    pub drafted_tokens: u64,
    /// Drafted tokens that were right: they are among the sampled ones.
    pub accepted_tokens: u64,
}

/// The engine with its worker thread. Dropping it stops the worker.
pub struct Engine {
    handle: Handle,
    worker: Option<JoinHandle<()>>,
}

/// Asks things of the engine; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

/// What reaches the worker, from callers and from its own loading threads.
pub(crate) enum Command {
    Generate { request: Box<GenerateRequest>, events: UnboundedSender<Event>, cancelled: Arc<[AtomicBool]> },
    Train { request: Box<TrainRequest>, events: UnboundedSender<TrainEvent> },
    Preload { base: BaseId, events: UnboundedSender<Event> },
    Check(oneshot::Sender<Result<(), String>>),
    BaseSized { base: BaseId, bytes: Result<u64, EngineError> },
    BaseProgress { base: BaseId, message: String, progress: f32 },
    BaseLoaded { base: BaseId, model: Result<Arc<Model>, EngineError> },
    AdapterLoaded { base: BaseId, id: AdapterId, adapter: Result<Arc<Adapter>, EngineError> },
    Stop,
}

/// What the handles and the worker both see.
pub(crate) struct Shared {
    gate: Mutex<Gate>,
    status: Mutex<Status>,
    limits: (usize, usize),
}

/// Places in line: taken by the handle, given back by the worker.
#[derive(Default)]
struct Gate {
    draining: bool,
    waiting: usize,
    waiting_by_account: HashMap<u64, usize>,
    trainings: usize,
    preloads: usize,
    /// Mean seconds between two starts while there is a line.
    pace_s: f64,
    last_start: Option<Instant>,
}

impl Gate {
    fn full(&self, waiting: usize) -> Rejected {
        let estimate = (self.pace_s * waiting as f64).ceil().clamp(1.0, MAX_RETRY_S);
        Rejected::QueueFull { waiting, retry_after_s: estimate as u32 }
    }
}

impl Shared {
    fn new(config: &Config) -> Shared {
        let limits = (config.queue_requests, config.queue_requests_per_account);
        Shared { gate: Mutex::default(), status: Mutex::default(), limits }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker's picture; `waiting` is filled in from the gate when it is read.
    pub(crate) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, account: u64) -> Result<(), Rejected> {
        let mut gate = self.gate();
        if gate.draining {
            return Err(Rejected::Draining);
        }
        let own = gate.waiting_by_account.get(&account).copied().unwrap_or(0);
        if gate.waiting >= self.limits.0 {
            return Err(gate.full(gate.waiting));
        }
        if own >= self.limits.1 {
            return Err(gate.full(own));
        }
        gate.waiting += 1;
        *gate.waiting_by_account.entry(account).or_default() += 1;
        Ok(())
    }

    /// A generate request left the line: it runs or it is gone.
    pub(crate) fn leave(&self, account: u64) {
        let now = Instant::now();
        let mut gate = self.gate();
        if let Some(last) = gate.last_start {
            let interval = now.duration_since(last).as_secs_f64();
            gate.pace_s += PACE_WEIGHT * (interval - gate.pace_s);
        }
        gate.waiting = gate.waiting.saturating_sub(1);
        // An empty line says nothing about the pace.
        gate.last_start = (gate.waiting > 0).then_some(now);
        if let Some(own) = gate.waiting_by_account.get_mut(&account) {
            *own -= 1;
            if *own == 0 {
                gate.waiting_by_account.remove(&account);
            }
        }
    }

    /// Generate requests in line, all and by account.
    pub(crate) fn waiting(&self) -> (usize, HashMap<u64, usize>) {
        let gate = self.gate();
        (gate.waiting, gate.waiting_by_account.clone())
    }

    /// A train request left.
    pub(crate) fn leave_training(&self) {
        let mut gate = self.gate();
        gate.trainings = gate.trainings.saturating_sub(1);
    }

    /// A preload left.
    pub(crate) fn leave_preload(&self) {
        let mut gate = self.gate();
        gate.preloads = gate.preloads.saturating_sub(1);
    }
}

impl Engine {
    /// Starts the worker.
    ///
    /// # Panics
    /// When the operating system gives no thread: without a worker there is no engine.
    #[expect(clippy::expect_used, reason = "documented; happens only at start-up")]
    pub fn start(config: Config, source: Arc<dyn Source>) -> Engine {
        let (commands, inbox) = channel();
        let shared = Arc::new(Shared::new(&config));
        let handle = Handle { commands: commands.clone(), shared: shared.clone() };
        // The device is made on the thread that owns it: its pool may pin its threads beside the caller.
        let run = move || {
            let cpu = Cpu::new(config.threads, None);
            Worker::new(config, cpu, source, shared, (commands, inbox)).run();
        };
        let worker = std::thread::Builder::new().name("tiger-worker".into()).spawn(run).expect("a thread for the worker");
        Engine { handle, worker: Some(worker) }
    }

    /// A handle.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle.drain();
        let _ = self.handle.commands.send(Command::Stop);
        if let Some(worker) = self.worker.take() {
            // The worker catches its panics; one that escaped is in the log and has nothing left to stop.
            let _ = worker.join();
        }
    }
}

impl Handle {
    /// Admits a generate request. Never blocks.
    pub fn generate(&self, request: GenerateRequest) -> Result<Generation, Rejected> {
        check_generate(&request).map_err(Rejected::Invalid)?;
        let account = request.account;
        self.shared.enter(account)?;
        let (events, receiver) = unbounded_channel();
        let cancelled: Arc<[AtomicBool]> = (0..request.samples).map(|_| AtomicBool::new(false)).collect();
        let command = Command::Generate { request: Box::new(request), events, cancelled: cancelled.clone() };
        if self.commands.send(command).is_err() {
            self.shared.leave(account);
            return Err(Rejected::Draining);
        }
        Ok(Generation { events: receiver, cancelled })
    }

    /// Admits a train request. Never blocks. The caller keeps trainings of one model in order.
    pub fn train(&self, request: TrainRequest) -> Result<Training, Rejected> {
        validate(&request).map_err(|invalid| Rejected::Invalid(invalid.to_string()))?;
        {
            let mut gate = self.shared.gate();
            if gate.draining {
                return Err(Rejected::Draining);
            }
            if gate.trainings >= MAX_TRAININGS {
                return Err(gate.full(gate.trainings));
            }
            gate.trainings += 1;
        }
        let (events, receiver) = unbounded_channel();
        if self.commands.send(Command::Train { request: Box::new(request), events }).is_err() {
            self.shared.leave_training();
            return Err(Rejected::Draining);
        }
        Ok(Training { events: receiver })
    }

    /// Loads a base ahead of the first request; progress comes as events of type Info, then Done or Failed.
    pub fn preload(&self, base: BaseId) -> Result<Generation, Rejected> {
        {
            let mut gate = self.shared.gate();
            if gate.draining {
                return Err(Rejected::Draining);
            }
            if gate.preloads >= MAX_PRELOADS {
                return Err(gate.full(gate.preloads));
            }
            gate.preloads += 1;
        }
        let (events, receiver) = unbounded_channel();
        if self.commands.send(Command::Preload { base, events }).is_err() {
            self.shared.leave_preload();
            return Err(Rejected::Draining);
        }
        Ok(Generation { events: receiver, cancelled: Arc::new([]) })
    }

    /// The engine now.
    pub fn status(&self) -> Status {
        let (waiting, trainings) = {
            let gate = self.shared.gate();
            (gate.waiting, gate.trainings)
        };
        Status { waiting, trainings, ..self.shared.status().clone() }
    }

    /// Admits nothing more; what runs goes on to its end.
    pub fn drain(&self) {
        self.shared.gate().draining = true;
    }

    /// Pages, slots and queues agree with each other; the error says what does not. Waits for the worker.
    pub async fn check(&self) -> Result<(), String> {
        let (answer, result) = oneshot::channel();
        let gone = || "the worker has stopped".to_owned();
        self.commands.send(Command::Check(answer)).map_err(|_| gone())?;
        result.await.map_err(|_| gone())?
    }
}

/// What can be seen to be wrong without the model.
fn check_generate(request: &GenerateRequest) -> Result<(), String> {
    let s = &request.sampling;
    if request.prompt.is_empty() {
        return Err("the prompt is empty: give at least one token".into());
    }
    if request.samples == 0 || request.samples > MAX_SAMPLES {
        return Err(format!("{} samples were asked for: give 1 to {MAX_SAMPLES}", request.samples));
    }
    if request.alternatives > MAX_ALTERNATIVES {
        return Err(format!("{} alternatives were asked for: give at most {MAX_ALTERNATIVES}", request.alternatives));
    }
    if request.max_tokens == 0 {
        return Err("max_tokens is 0: give at least 1".into());
    }
    if !(s.temperature.is_finite() && s.temperature >= 0.0) {
        return Err(format!("temperature {} is not a number of at least 0", s.temperature));
    }
    if !(s.top_p > 0.0 && s.top_p <= 1.0) {
        return Err(format!("top_p {} is not in (0, 1]", s.top_p));
    }
    if !(0.0..=1.0).contains(&s.min_p) {
        return Err(format!("min_p {} is not in [0, 1]", s.min_p));
    }
    Ok(())
}
