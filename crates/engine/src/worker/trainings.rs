//! Train requests in line and the few that run, one unit of work at a time and in turns. Does not know what a unit computes.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use tiger_model::Model;
use tokio::sync::mpsc::UnboundedSender;

use super::bases::Bases;
use crate::command::{Config, Shared};
use crate::request::{BaseId, EngineError, Event, TrainEvent};
use crate::train::{Advance, Job, TrainRequest};

/// Most trainings that share the machine: more would only make all of them later, and each holds gradients and moments.
const MAX_ACTIVE: usize = 4;

/// Share of the memory budget that activations of a running training are counted with at most.
const ACTIVATION_SHARE: u64 = 4;

struct Waiting {
    number: u64,
    request: Box<TrainRequest>,
    events: UnboundedSender<TrainEvent>,
}

struct Active {
    base: BaseId,
    account: u64,
    /// None while a unit of it is computed.
    job: Option<Job>,
    /// For the last word after a panic; the job sends everything else.
    events: UnboundedSender<TrainEvent>,
    trained_tokens: u64,
}

/// A training while a unit of it is computed. The worker is free for others meanwhile.
pub(super) struct Unit {
    pub job: Job,
    pub model: Arc<Model>,
}

/// All train requests.
pub(super) struct Trainings {
    waiting: VecDeque<Waiting>,
    active: VecDeque<Active>,
    shared: Arc<Shared>,
}

impl Trainings {
    pub(super) fn new(shared: Arc<Shared>) -> Trainings {
        Trainings { waiting: VecDeque::new(), active: VecDeque::new(), shared }
    }

    pub(super) fn accept(&mut self, number: u64, request: Box<TrainRequest>, events: UnboundedSender<TrainEvent>) {
        self.waiting.push_back(Waiting { number, request, events });
    }

    pub(super) fn any_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn any_runs(&self) -> bool {
        !self.active.is_empty()
    }

    /// Bases wanted by waiting trainings, with the number of each.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&BaseId, u64)> {
        self.waiting.iter().map(|w| (&w.request.base, w.number))
    }

    /// Bases on which a training runs.
    pub(super) fn active_bases(&self) -> impl Iterator<Item = &BaseId> {
        self.active.iter().map(|a| &a.base)
    }

    /// What trainings take besides bases and pages, roughly: one micro-batch's activations, whoever's turn it is.
    pub(super) fn reserved_bytes(&self, config: &Config) -> u64 {
        if self.active.is_empty() { 0 } else { config.activation_bytes.min(config.memory_budget_bytes / ACTIVATION_SHARE) }
    }

    /// Tells those that wait for `base`.
    pub(super) fn tell(&self, base: &BaseId, event: &Event) {
        let Event::Info { message, progress } = event else { return };
        for waiting in self.waiting.iter().filter(|w| w.request.base == *base) {
            let _ = waiting.events.send(TrainEvent::Info { message: message.clone(), progress: *progress });
        }
    }

    /// Ends those that wait for a base that cannot be had.
    pub(super) fn fail_waiting(&mut self, base: &BaseId, error: &EngineError, shared: &Shared) {
        self.waiting.retain(|waiting| {
            let hit = waiting.request.base == *base;
            if hit {
                let _ = waiting.events.send(TrainEvent::Failed(error.clone()));
                shared.leave_training();
            }
            !hit
        });
    }

    /// Forgets those in line whose caller hung up (a running job notices by itself).
    pub(super) fn reap(&mut self) {
        let shared = &self.shared;
        self.waiting.retain(|waiting| {
            let gone = waiting.events.is_closed();
            if gone {
                shared.leave_training();
            }
            !gone
        });
    }

    /// Starts what can start: its base is there, and of the accounts in line the one with the fewest running, then first come first served.
    /// Requests younger than `hold` wait.
    pub(super) fn start(&mut self, bases: &Bases, config: &Config, hold: Option<u64>) {
        while self.active.len() < MAX_ACTIVE {
            let ready = |w: &Waiting| bases.get(&w.request.base).is_some() && hold.is_none_or(|oldest| w.number <= oldest);
            let runs = |w: &Waiting| self.active.iter().filter(|a| a.account == w.request.account).count();
            let next = self.waiting.iter().enumerate().filter(|(_, w)| ready(w)).min_by_key(|(i, w)| (runs(w), *i)).map(|(i, _)| i);
            let Some(Waiting { request, events, .. }) = next.and_then(|i| self.waiting.remove(i)) else { return };
            let (base, account) = (request.base.clone(), request.account);
            let job = Job::new(*request, events.clone(), config);
            self.active.push_back(Active { base, account, job: Some(job), events, trained_tokens: 0 });
        }
    }

    /// The training whose turn it is, for one unit of work; it goes back with [`Trainings::end`]. Until then it counts as running here.
    pub(super) fn begin(&mut self, bases: &mut Bases) -> Option<Unit> {
        let active = self.active.front_mut()?;
        let model = bases.touch(&active.base).map(|resident| resident.model.clone());
        match (model, active.job.take()) {
            (Some(model), Some(job)) => Some(Unit { job, model }),
            _ => {
                self.active.pop_front();
                self.shared.leave_training();
                None
            }
        }
    }

    /// Takes a unit back with what came of it, a panic for example. Returns the tokens trained in it.
    pub(super) fn end(&mut self, unit: Unit, advanced: Result<Advance, Box<dyn Any + Send>>) -> u64 {
        // None: all were ended meanwhile.
        let Some(mut active) = self.active.iter().position(|a| a.job.is_none()).and_then(|i| self.active.remove(i)) else { return 0 };
        match advanced {
            Ok(Advance::Working) => {
                let trained = unit.job.counts().trained_tokens;
                let new = trained - std::mem::replace(&mut active.trained_tokens, trained);
                active.job = Some(unit.job);
                self.active.push_back(active);
                new
            }
            Ok(Advance::Finished) => {
                self.shared.leave_training();
                unit.job.counts().trained_tokens - active.trained_tokens
            }
            Err(panic) => {
                tracing::error!(base = %active.base.0, panic = super::panic_text(&*panic), "a training panicked");
                let _ = active.events.send(TrainEvent::Failed(EngineError::Internal));
                self.shared.leave_training();
                0
            }
        }
    }

    /// Ends all of them.
    pub(super) fn fail_all(&mut self, error: &EngineError) {
        let waiting = self.waiting.drain(..).map(|w| w.events);
        let active = self.active.drain(..).map(|a| a.events);
        for events in waiting.chain(active) {
            let _ = events.send(TrainEvent::Failed(error.clone()));
            self.shared.leave_training();
        }
    }
}
