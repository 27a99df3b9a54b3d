//! Base models on their way to this machine: one pull a base, its progress, its rate, its end. Does not know where bytes come from:
//! that is injected.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tiger_wire::{ErrorCode, ErrorType, PullInfo, PullState};
use tokio::sync::Notify;

use crate::app::App;
use crate::error::ApiError;
use crate::limits::{PULLS_AT_ONCE, PULLS_KEPT};

/// The rate is that of these last seconds.
const RATE_OVER: Duration = Duration::from_secs(5);
/// Reports closer together count as one.
const RATE_STEP: Duration = Duration::from_millis(200);

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullProgress {
    /// Bytes come.
    Bytes {
        /// Here, those of earlier pulls too.
        bytes: u64,
        /// In all; 0 until it is known.
        total: u64,
        /// Of them, those that came in this pull.
        received: u64,
    },
    /// Everything is here and is read once.
    Checking,
}

/// Told how far a pull is; cheap.
pub type OnProgress = Arc<dyn Fn(PullProgress) + Send + Sync>;
/// A pull under way: ends with why it failed. Dropping it stops it; what came stays for the next one.
pub type Pulling = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Where base models come from.
pub trait Pull: Send + Sync + 'static {
    /// Begins to bring the repository (`owner/name`) to the data directory, as the folder `id` under `models/`.
    fn pull(&self, repository: String, id: String, on_progress: OnProgress) -> Pulling;
}

/// A source of base models as the configuration holds it.
#[derive(Clone)]
pub struct Puller(pub Arc<dyn Pull>);

impl std::fmt::Debug for Puller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Puller")
    }
}

struct Progress {
    state: PullState,
    bytes: u64,
    total: u64,
    received: u64,
    error: Option<String>,
    /// When how much had been received.
    marks: VecDeque<(Instant, u64)>,
}

/// One pull.
pub struct Entry {
    id: String,
    model: String,
    started: f64,
    progress: Mutex<Progress>,
    stop: Notify,
}

impl Entry {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        !matches!(self.progress().state, PullState::Running | PullState::Checking)
    }

    fn note(&self, step: PullProgress, now: Instant) {
        let mut progress = self.progress();
        match step {
            PullProgress::Checking => progress.state = PullState::Checking,
            PullProgress::Bytes { bytes, total, received } => {
                (progress.bytes, progress.total, progress.received) = (bytes, total, received);
                if progress.marks.back().is_none_or(|(at, _)| now - *at >= RATE_STEP) {
                    progress.marks.push_back((now, received));
                }
                while progress.marks.len() > 1 && now - progress.marks[0].0 > RATE_OVER {
                    progress.marks.pop_front();
                }
            }
        }
    }

    fn end(&self, state: PullState, error: Option<String>) {
        let mut progress = self.progress();
        progress.state = state;
        progress.error = error;
        if state == PullState::Done {
            progress.bytes = progress.total;
        }
    }

    /// As it is shown.
    pub fn info(&self, now: Instant) -> PullInfo {
        let progress = self.progress();
        let rate = match progress.marks.front() {
            Some((at, received)) if progress.state == PullState::Running && now > *at => {
                progress.received.saturating_sub(*received) as f64 / (now - *at).as_secs_f64()
            }
            _ => 0.0,
        };
        let left = progress.total.saturating_sub(progress.bytes) as f64;
        PullInfo {
            id: self.id.clone(),
            model: self.model.clone(),
            state: progress.state,
            bytes: progress.bytes,
            total_bytes: progress.total,
            bytes_per_s: rate,
            eta_s: (rate > 0.0).then(|| left / rate),
            error: progress.error.clone(),
            started: self.started,
        }
    }
}

/// The pulls of this process, newest first; one a base.
#[derive(Default)]
pub struct Pulls(Mutex<Vec<Arc<Entry>>>);

impl Pulls {
    fn entries(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.entries().clone()
    }

    /// The one of a base.
    pub fn get(&self, id: &str) -> Option<Arc<Entry>> {
        self.entries().iter().find(|entry| entry.id == id).cloned()
    }

    /// Stops it, if it still goes on.
    pub fn stop(entry: &Entry) {
        if !entry.is_over() {
            entry.end(PullState::Stopped, None);
            entry.stop.notify_one();
        }
    }

    /// Begins a pull of `model`, the repository's; `false` where one goes on already.
    pub fn begin(&self, app: &App, model: &str, (repository, id): (String, String)) -> Result<(Arc<Entry>, bool), ApiError> {
        let Some(Puller(source)) = app.config().pull.clone() else {
            let message = format!("this server does not download; run `tiger pull {repository}` beside it");
            return Err(ApiError::new(ErrorType::Unavailable, ErrorCode::NotDownloaded, message));
        };
        let mut entries = self.entries();
        if let Some(running) = entries.iter().find(|entry| entry.id == id && !entry.is_over()) {
            return Ok((Arc::clone(running), false));
        }
        if entries.iter().filter(|entry| !entry.is_over()).count() >= PULLS_AT_ONCE {
            let message = format!("{PULLS_AT_ONCE} pulls go on, the most at once; wait for one to end, or stop one");
            return Err(ApiError::new(ErrorType::RateLimit, ErrorCode::TooManyInFlight, message).retry_after(60));
        }
        let progress =
            Progress { state: PullState::Running, bytes: 0, total: 0, received: 0, error: None, marks: [(Instant::now(), 0)].into() };
        let started = app.config().clock.unix_s() as f64;
        let entry =
            Arc::new(Entry { id: id.clone(), model: model.to_owned(), started, progress: Mutex::new(progress), stop: Notify::new() });
        entries.retain(|old| old.id != id);
        entries.insert(0, Arc::clone(&entry));
        while entries.len() > PULLS_KEPT {
            let Some(oldest) = entries.iter().rposition(|entry| entry.is_over()) else { break };
            entries.remove(oldest);
        }
        drop(entries);
        app.task(work(source, Arc::clone(&entry), repository));
        Ok((entry, true))
    }
}

async fn work(source: Arc<dyn Pull>, entry: Arc<Entry>, repository: String) {
    let reported = Arc::clone(&entry);
    let on_progress: OnProgress = Arc::new(move |step| {
        if !reported.is_over() {
            reported.note(step, Instant::now());
        }
    });
    let ended = tokio::select! {
        ended = source.pull(repository, entry.id.clone(), on_progress) => ended,
        () = entry.stop.notified() => {
            tracing::info!(base = entry.id, "a pull was stopped");
            return;
        }
    };
    match ended {
        Ok(()) => {
            tracing::info!(base = entry.id, "a base was pulled");
            entry.end(PullState::Done, None);
        }
        Err(error) => {
            tracing::warn!(base = entry.id, error, "a pull failed");
            entry.end(PullState::Failed, Some(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_what_came_in_the_last_seconds() {
        let start = Instant::now();
        let progress = Progress { state: PullState::Running, bytes: 0, total: 0, received: 0, error: None, marks: [(start, 0)].into() };
        let entry = Entry { id: "a".into(), model: "a".into(), started: 0.0, progress: Mutex::new(progress), stop: Notify::new() };
        // 1000 bytes were there before; then 100 a second for 10 seconds, then 10 a second for 10.
        let at = |second: u64| start + Duration::from_secs(second);
        for second in 1..=20 {
            let received = if second <= 10 { 100 * second } else { 1000 + 10 * (second - 10) };
            entry.note(PullProgress::Bytes { bytes: 1000 + received, total: 2600, received }, at(second));
            if second == 5 {
                let info = entry.info(at(5));
                assert_eq!((info.bytes, info.bytes_per_s, info.eta_s), (1500, 100.0, Some(11.0)));
            }
        }
        let info = entry.info(at(20));
        assert_eq!((info.bytes_per_s, info.eta_s), (10.0, Some(50.0)));
        assert!(entry.info(at(60)).bytes_per_s < 2.0, "a download that stands still is slow");
    }
}
