//! How streams and training share the machine: a unit of training is computed in short stretches, between which the streams take steps.
//! Decides by the clock when; never what is computed, for neither side's bits depend on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{Flow, Worker, panic_text};
use crate::request::EngineError;

/// A stretch of training, in steps of the streams: with what a task takes that is still running then, and with cold caches, two tokens are
/// less than three steps apart.
const STRETCH_STEPS: f64 = 0.35;

/// Time that streams have for each second of training: two of three, and then some, for what a pause costs them.
const STREAMS_SHARE: f64 = 2.5;

/// A stretch while nothing runs: how late a new request is noticed at most.
const LOOK_AROUND: Duration = Duration::from_millis(5);

/// Longest stretch beside streams, whatever a step took: one with a long prompt says nothing of the next.
const LONGEST: Duration = Duration::from_millis(50);

/// A stretch when nobody waits for its end any more: the worker stops after this unit.
const UNBROKEN: Duration = Duration::from_secs(3600);

/// Who had how much time.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// Training since the streams last ran.
    trained: Duration,
    /// Their latest step.
    step: Duration,
    /// They run now.
    streams: bool,
    stopped: bool,
}

impl Shares {
    /// How long training goes on now.
    fn stretch(&self) -> Duration {
        match (self.stopped, self.streams) {
            (true, _) => UNBROKEN,
            (_, true) => self.step.mul_f64(STRETCH_STEPS).min(LONGEST),
            (_, false) => LOOK_AROUND,
        }
    }
}

impl Worker {
    /// What is due besides training: commands, hang-ups, admission, and steps of the streams: one at least, and as many as the training that went
    /// before owes them.
    pub(super) fn serve(&mut self) -> Flow {
        let owed = std::mem::take(&mut self.shares.trained).mul_f64(STREAMS_SHARE);
        let began = Instant::now();
        loop {
            if self.receive() == Flow::Stop {
                self.shares.stopped = true;
                return Flow::Stop;
            }
            self.reap();
            self.bring_bases();
            self.admit();
            let started = Instant::now();
            self.shares.streams = self.step_all();
            self.shares.step = started.elapsed();
            if !self.shares.streams || began.elapsed() >= owed {
                return Flow::On;
            }
        }
    }

    /// One unit of training, if there is any, with pauses for the streams.
    pub(super) fn train(&mut self) -> Flow {
        let Some(mut unit) = self.trainings.begin(&mut self.bases) else { return Flow::On };
        let cpu = self.cpu.clone();
        let first = self.shares.stretch();
        let mut since = Instant::now();
        let advanced = catch_unwind(AssertUnwindSafe(|| {
            let mut between = || {
                self.shares.trained = since.elapsed();
                self.interlude();
                since = Instant::now();
                self.shares.stretch()
            };
            cpu.pausing(first, &mut between, || unit.job.advance(&unit.model, &cpu))
        }));
        self.shares.trained = since.elapsed();
        self.counters.trained_tokens += self.trainings.end(unit, advanced);
        if self.shares.stopped { Flow::Stop } else { Flow::On }
    }

    /// A pause of a training. A panic here is not the training's.
    fn interlude(&mut self) {
        match catch_unwind(AssertUnwindSafe(|| self.serve())) {
            Ok(_) => {}
            Err(panic) => {
                tracing::error!(panic = panic_text(&*panic), "the worker panicked beside a training; all requests end");
                self.end_all(&EngineError::Internal);
            }
        }
        self.publish_status();
    }
}
