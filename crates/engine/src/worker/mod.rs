//! The one loop that owns the device and everything that changes: commands, hang-ups, admission, steps of every base, a unit of training (in
//! whose pauses the streams go on), and around again; asleep when there is nothing to do. Here sampling and training meet; neither knows the other.

mod admit;
mod bases;
mod draw;
mod interlude;
mod requests;
mod step;
mod trainings;

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use tiger_kernels::Cpu;
use tiger_model::{PAGE_TOKENS, Workspace};
use tokio::sync::mpsc::UnboundedSender;

use crate::adapters::AdapterSlots;
use crate::command::{Command, Config, Shared, Status};
use crate::request::{BaseId, EngineError, Event, FinishReason};
use crate::sample::plan::Demand;
use crate::sample::scheduler::{Scheduler, Turn, Waiting};
use crate::sample::sequence::SequenceKey;
use crate::source::Source;
use bases::Bases;
use draw::DrawBuffers;
use interlude::Shares;
use requests::Requests;
use trainings::Trainings;

/// How often a hang-up is looked for while all that waits is a load: a hang-up itself wakes nobody.
const LOOK_AROUND: Duration = Duration::from_millis(50);

/// A base asked for ahead of requests.
struct Preload {
    number: u64,
    base: BaseId,
    events: UnboundedSender<Event>,
}

/// Sums since the start, for [`Status`].
#[derive(Default)]
struct Counters {
    prompt_tokens: u64,
    cached_tokens: u64,
    sampled_tokens: u64,
    trained_tokens: u64,
    drafted_tokens: u64,
    accepted_tokens: u64,
}

/// Whether the loop goes on.
#[derive(PartialEq)]
enum Flow {
    On,
    Stop,
}

/// Owner of the device and of all that changes.
pub(crate) struct Worker {
    config: Config,
    cpu: Arc<Cpu>,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    requests: Requests,
    /// Sequences in line; those that run are in the lanes of `bases`.
    scheduler: Scheduler,
    bases: Bases,
    adapters: AdapterSlots,
    trainings: Trainings,
    preloads: Vec<Preload>,
    /// Requests that came since the last admission.
    fresh: Vec<u64>,
    /// Per base the sequence whose turn it was when pages were missing.
    claimants: BTreeMap<BaseId, Turn>,
    /// Requests younger than this wait until a base got room.
    hold: Option<u64>,
    /// Number of the next request, whatever its kind.
    next_number: u64,
    shares: Shares,
    steps: u64,
    /// Sequences of the step being computed: who is hit if it panics.
    in_step: Vec<SequenceKey>,
    counters: Counters,
    demands: Vec<Demand>,
    tokens: Vec<u32>,
    outputs: Vec<usize>,
    /// Drafted tokens that could be computed: chance and index of the grant.
    odds: Vec<(f32, usize)>,
    draw_buffers: DrawBuffers,
}

impl Worker {
    pub(crate) fn new(
        config: Config,
        cpu: Cpu,
        source: Arc<dyn Source>,
        shared: Arc<Shared>,
        (commands, inbox): (Sender<Command>, Receiver<Command>),
    ) -> Worker {
        Worker {
            bases: Bases::new(&config, source, commands),
            adapters: AdapterSlots::new(config.memory_budget_bytes),
            requests: Requests::new(shared.clone()),
            trainings: Trainings::new(shared.clone()),
            config,
            cpu: Arc::new(cpu),
            inbox,
            shared,
            scheduler: Scheduler::default(),
            preloads: Vec::new(),
            fresh: Vec::new(),
            claimants: BTreeMap::new(),
            hold: None,
            next_number: 0,
            shares: Shares::default(),
            steps: 0,
            in_step: Vec::new(),
            counters: Counters::default(),
            demands: Vec::new(),
            tokens: Vec::new(),
            outputs: Vec::new(),
            odds: Vec::new(),
            draw_buffers: DrawBuffers::default(),
        }
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(Flow::On) => {}
                Ok(Flow::Stop) => break,
                Err(panic) => {
                    tracing::error!(panic = panic_text(&*panic), "the worker panicked outside a step; all requests end");
                    self.end_all(&EngineError::Internal);
                }
            }
        }
        self.end_all(&EngineError::Cancelled);
    }

    /// Once around.
    fn turn(&mut self) -> Flow {
        if self.serve() == Flow::Stop {
            return Flow::Stop;
        }
        self.trainings.start(&self.bases, &self.config, self.hold);
        let flow = self.train();
        let busy = self.busy();
        self.scheduler.tidy(busy);
        self.publish_status();
        flow
    }

    /// A step of every base. False: nothing runs.
    fn step_all(&mut self) -> bool {
        let bases: Vec<BaseId> = self.bases.ready().filter(|(_, r)| !r.lane.running().is_empty()).map(|(id, _)| id.clone()).collect();
        for base in &bases {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.step(base))) {
                tracing::error!(base = %base.0, panic = panic_text(&*panic), "a step panicked");
                self.recover(base);
            }
        }
        !bases.is_empty()
    }

    fn busy(&self) -> bool {
        self.trainings.any_runs() || self.running() > 0
    }

    fn running(&self) -> usize {
        self.bases.ready().map(|(_, r)| r.lane.running().len()).sum()
    }

    /// Takes all commands that are there; sleeps for one when nothing runs.
    fn receive(&mut self) -> Flow {
        if !self.busy() {
            let waits = !self.requests.is_empty() || self.trainings.any_waits() || !self.preloads.is_empty();
            let first = if waits { self.inbox.recv_timeout(LOOK_AROUND) } else { self.inbox.recv().map_err(RecvTimeoutError::from) };
            match first {
                Ok(command) => {
                    if self.handle(command) == Flow::Stop {
                        return Flow::Stop;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Flow::Stop,
            }
        }
        while let Ok(command) = self.inbox.try_recv() {
            if self.handle(command) == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::On
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    fn handle(&mut self, command: Command) -> Flow {
        match command {
            Command::Generate { request, events, cancelled } => {
                let number = self.number();
                let base = request.base.clone();
                let (key, sequence) = self.requests.accept(number, *request, events, cancelled);
                self.scheduler.push(key, Waiting { base, sequence });
                self.fresh.push(number);
            }
            Command::Train { request, events } => {
                let number = self.number();
                let base = request.base.clone();
                self.trainings.accept(number, request, events);
                if let Some((message, progress)) = self.bases.stage(&base) {
                    self.trainings.tell(&base, &Event::Info { message, progress });
                }
            }
            Command::Preload { base, events } => {
                let number = self.number();
                if let Some((message, progress)) = self.bases.stage(&base) {
                    let _ = events.send(Event::Info { message, progress });
                }
                self.preloads.push(Preload { number, base, events });
            }
            Command::Check(answer) => {
                // A caller that is gone needs no answer.
                let _ = answer.send(self.check());
            }
            Command::BaseSized { base, bytes } => match bytes {
                Ok(bytes) => self.bases.sized(&base, bytes),
                Err(error) => self.fail_base(&base, &error),
            },
            Command::BaseProgress { base, message, progress } => {
                if self.bases.progressed(&base, &message, progress) {
                    self.tell_stage(&base);
                }
            }
            Command::BaseLoaded { base, model } => {
                if let Err(error) = model.and_then(|model| self.bases.loaded_now(&base, model)) {
                    self.fail_base(&base, &error);
                }
            }
            Command::AdapterLoaded { base, id, adapter } => {
                let key = (base, id);
                if let Err(error) = &adapter {
                    let hit: Vec<u64> = self
                        .requests
                        .iter()
                        .filter(|(_, r)| r.pin.is_none() && r.adapter.as_ref() == Some(&key))
                        .map(|(number, _)| number)
                        .collect();
                    hit.into_iter().for_each(|number| self.fail_request(number, error.clone()));
                }
                self.adapters.end_load(key, adapter.ok());
            }
            Command::Stop => return Flow::Stop,
        }
        Flow::On
    }

    /// Drops requests whose caller hung up and samples that were cancelled.
    fn reap(&mut self) {
        let reaped = self.requests.reap();
        for number in reaped.hung_up {
            self.fail_request(number, EngineError::Cancelled);
        }
        for key in reaped.cancelled {
            self.cancel(key);
        }
        self.trainings.reap();
    }

    /// Ends one sample, wherever it is; nothing if it has ended.
    fn cancel(&mut self, key: SequenceKey) {
        let Some(request) = self.requests.get(key.request) else { return };
        let (base, account) = (request.base.clone(), request.account);
        let lane = self.bases.get_mut(&base).map(|r| &mut r.lane);
        // The first sequence of a request computes the prompt for its other samples: it hands over its place.
        if let Some(lane) = lane {
            if let Some(sequence) = lane.sequence_mut(key) {
                if let Some(heir) = sequence.hand_over() {
                    lane.rename(key, SequenceKey { sample: heir, ..key });
                } else {
                    lane.remove(key);
                }
                self.requests.finish(key, FinishReason::Cancelled);
                return;
            }
            if lane.drop_fork(key) {
                self.requests.finish(key, FinishReason::Cancelled);
                return;
            }
        }
        if let Some(mut waiting) = self.scheduler.remove(Turn { account, key }) {
            if let Some(heir) = waiting.sequence.hand_over() {
                self.scheduler.push(SequenceKey { sample: heir, ..key }, waiting);
            }
            self.requests.finish(key, FinishReason::Cancelled);
        } else if self.scheduler.drop_fork(account, key) {
            self.requests.finish(key, FinishReason::Cancelled);
        }
    }

    /// Ends a request without an answer and frees all it has.
    fn fail_request(&mut self, number: u64, error: EngineError) {
        let Some(request) = self.requests.get(number) else { return };
        if let Some(resident) = self.bases.get_mut(&request.base) {
            resident.lane.remove_request(number);
        }
        self.scheduler.remove_request(request.account, number);
        self.requests.fail(number, error);
    }

    /// After a panic in a step: its requests end, everyone else of the base starts again from their tokens, with the same bits.
    fn recover(&mut self, base: &BaseId) {
        let Some(resident) = self.bases.get_mut(base) else { return };
        resident.workspace = Workspace::default();
        let mut hit: Vec<u64> = std::mem::take(&mut self.in_step).iter().map(|key| key.request).collect();
        let others = resident.lane.reset();
        if hit.is_empty() {
            // It happened before the step was chosen: whoever ran may be the reason.
            hit = others.iter().map(|(key, _)| key.request).collect();
        }
        self.draw_buffers = DrawBuffers::default();
        for (key, sequence) in others {
            self.scheduler.push(key, Waiting { base: base.clone(), sequence });
        }
        for number in hit {
            self.fail_request(number, EngineError::Internal);
        }
    }

    /// Ends everything; bases and adapters stay loaded, with all pages free.
    fn end_all(&mut self, error: &EngineError) {
        let numbers: Vec<u64> = self.requests.iter().map(|(number, _)| number).collect();
        for number in numbers {
            self.requests.fail(number, error.clone());
        }
        self.scheduler = Scheduler::default();
        self.claimants.clear();
        self.in_step.clear();
        self.fresh.clear();
        for (_, resident) in self.bases.ready_mut() {
            resident.lane.reset();
            resident.workspace = Workspace::default();
        }
        self.trainings.fail_all(error);
        for preload in self.preloads.drain(..) {
            let _ = preload.events.send(Event::Failed(error.clone()));
            self.shared.leave_preload();
        }
        self.publish_status();
    }

    fn publish_status(&self) {
        let pages = self.bases.ready().map(|(_, r)| r.lane.pages());
        let (used, total) = pages.fold((0, 0), |(used, total), p| (used + p.used(), total + p.total()));
        let status = Status {
            waiting: 0,
            running: self.running(),
            trainings: 0,
            pages_used: used,
            pages_total: total,
            bases: self.bases.loaded(),
            loading: self.bases.loading(),
            adapters: self.adapters.len(),
            prompt_tokens: self.counters.prompt_tokens,
            cached_tokens: self.counters.cached_tokens,
            sampled_tokens: self.counters.sampled_tokens,
            trained_tokens: self.counters.trained_tokens,
            drafted_tokens: self.counters.drafted_tokens,
            accepted_tokens: self.counters.accepted_tokens,
        };
        *self.shared.status() = status;
    }

    /// Everything that must agree. The error says what does not.
    fn check(&self) -> Result<(), String> {
        self.scheduler.check()?;
        self.requests.check()?;
        self.adapters.check()?;
        let mut places: BTreeMap<u64, (usize, Option<&BaseId>)> = BTreeMap::new();
        for (id, resident) in self.bases.ready() {
            resident.lane.check().map_err(|e| format!("{}: {e}", id.0))?;
            for (key, sequence) in resident.lane.running() {
                let place = places.entry(key.request).or_default();
                *place = (place.0 + 1 + sequence.forks.len(), Some(id));
            }
            if self.requests.is_empty()
                && (!resident.lane.running().is_empty() || resident.lane.pages().available() != resident.lane.pages().total())
            {
                return Err(format!("{}: pages are held while nothing runs", id.0));
            }
        }
        for (key, waiting) in self.scheduler.iter() {
            let place = places.entry(key.request).or_default();
            *place = (place.0 + 1 + waiting.sequence.forks.len(), Some(&waiting.base));
        }
        for (number, (samples, base)) in &places {
            let Some(request) = self.requests.get(*number) else { return Err(format!("request {number} is gone, its sequences are not")) };
            if request.open() as usize != *samples || Some(&request.base) != *base {
                return Err(format!("request {number} has {} open samples and {samples} sequences", request.open()));
            }
        }
        match self.requests.iter().find(|(number, _)| !places.contains_key(number)) {
            Some((number, _)) => Err(format!("request {number} has no sequence")),
            None => Ok(()),
        }
    }
}

/// Why a sequence can never run.
fn too_long(tokens: usize, pages: usize) -> EngineError {
    let capacity = pages * PAGE_TOKENS;
    EngineError::OutOfMemory(format!(
        "a sequence of {tokens} tokens does not fit the {capacity} tokens of KV memory of this model: shorten the prompt or max_tokens, or raise the KV memory (--kv-memory)"
    ))
}

/// The message of a caught panic.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
