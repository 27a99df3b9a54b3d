//! Bases in memory: sized and loaded on threads of their own, with room made by unloading what is idle. Owns each base's pages.
//! Does not know requests; it is told what is wanted and since when.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use tiger_model::{Kv, Model, Workspace};

use crate::adapters::AdapterSlots;
use crate::command::{Command, Config};
use crate::request::{AdapterId, BaseId, EngineError};
use crate::sample::lane::Lane;
use crate::sample::pace::Pace;
use crate::source::Source;

/// A base may run with this share of its KV bytes when memory is short.
const SMALLEST_KV_SHARE: u64 = 8;

/// Most pages of one base: bookkeeping costs about 100 bytes a page.
const MAX_PAGES: u64 = 1 << 20;

/// Least step of progress that is reported.
const PROGRESS_STEP: f32 = 0.01;

/// A base that computes.
pub(super) struct Resident {
    pub model: Arc<Model>,
    pub kv: Kv,
    pub lane: Lane,
    pub workspace: Workspace,
    /// What its steps cost.
    pub pace: Pace,
    bytes: u64,
    kv_bytes: u64,
    /// When it last computed.
    used: u64,
}

enum State {
    /// Its bytes are asked for.
    Sizing,
    /// It waits for room.
    Sized {
        bytes: u64,
    },
    Loading {
        bytes: u64,
        kv_bytes: u64,
        message: String,
        progress: f32,
    },
    Ready(Box<Resident>),
}

/// Why and since when a base is wanted or busy.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Claim {
    /// Number of the oldest request that waits for it.
    pub oldest_waiting: Option<u64>,
    /// A training runs on it.
    pub training: bool,
}

/// What a turn of [`Bases::make_room`] decided.
#[derive(Default)]
pub(super) struct Room {
    /// Bases that cannot be loaded, with the reason.
    pub failed: Vec<(BaseId, EngineError)>,
    /// Requests that came after this number are held back, so that a base that waits for room gets it.
    pub hold: Option<u64>,
}

/// All bases known to the worker.
pub(super) struct Bases {
    all: BTreeMap<BaseId, State>,
    source: Arc<dyn Source>,
    commands: Sender<Command>,
    budget_bytes: u64,
    kv_bytes: u64,
    clock: u64,
}

impl Bases {
    pub(super) fn new(config: &Config, source: Arc<dyn Source>, commands: Sender<Command>) -> Bases {
        Bases {
            all: BTreeMap::new(),
            source,
            commands,
            budget_bytes: config.memory_budget_bytes,
            kv_bytes: config.kv_bytes.min(config.memory_budget_bytes),
            clock: 0,
        }
    }

    pub(super) fn get(&self, id: &BaseId) -> Option<&Resident> {
        match self.all.get(id) {
            Some(State::Ready(resident)) => Some(resident),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, id: &BaseId) -> Option<&mut Resident> {
        match self.all.get_mut(id) {
            Some(State::Ready(resident)) => Some(resident),
            _ => None,
        }
    }

    /// A base about to compute.
    pub(super) fn touch(&mut self, id: &BaseId) -> Option<&mut Resident> {
        self.clock += 1;
        let clock = self.clock;
        let resident = self.get_mut(id)?;
        resident.used = clock;
        Some(resident)
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = (&BaseId, &Resident)> {
        self.all.iter().filter_map(|(id, state)| if let State::Ready(resident) = state { Some((id, &**resident)) } else { None })
    }

    pub(super) fn ready_mut(&mut self) -> impl Iterator<Item = (&BaseId, &mut Resident)> {
        self.all.iter_mut().filter_map(|(id, state)| if let State::Ready(resident) = state { Some((id, &mut **resident)) } else { None })
    }

    /// Loaded bases with their bytes.
    pub(super) fn loaded(&self) -> Vec<(BaseId, u64)> {
        self.ready().map(|(id, resident)| (id.clone(), resident.bytes)).collect()
    }

    /// Bases on their way.
    pub(super) fn loading(&self) -> Vec<BaseId> {
        self.all.iter().filter(|(_, state)| !matches!(state, State::Ready(_))).map(|(id, _)| id.clone()).collect()
    }

    /// A base waits for room, perhaps for nobody any more.
    pub(super) fn any_sized(&self) -> bool {
        self.all.values().any(|state| matches!(state, State::Sized { .. }))
    }

    /// Stage of a base that is not ready: text and 0..1.
    pub(super) fn stage(&self, id: &BaseId) -> Option<(String, Option<f32>)> {
        match self.all.get(id)? {
            State::Sizing => Some((format!("Loading model {}", id.0), Some(0.0))),
            State::Sized { .. } => Some((format!("Waiting for memory to load model {}", id.0), None)),
            State::Loading { message, progress, .. } => Some((message.clone(), Some(*progress))),
            State::Ready(_) => None,
        }
    }

    /// Begins to bring a base in, if nothing is known of it. True if so.
    pub(super) fn want(&mut self, id: &BaseId) -> bool {
        if self.all.contains_key(id) {
            return false;
        }
        self.all.insert(id.clone(), State::Sizing);
        let (base, source) = (id.clone(), self.source.clone());
        let failed = id.clone();
        self.spawn(
            move || Command::BaseSized { bytes: guarded(&base, || source.base_bytes(&base)), base },
            move |error| Command::BaseSized { base: failed, bytes: Err(error) },
        );
        true
    }

    /// Forgets a base that failed.
    pub(super) fn forget(&mut self, id: &BaseId) {
        self.all.remove(id);
    }

    /// Its bytes are known; it waits for room now.
    pub(super) fn sized(&mut self, id: &BaseId, bytes: u64) {
        if let Some(state @ State::Sizing) = self.all.get_mut(id) {
            *state = State::Sized { bytes };
        }
    }

    /// Notes progress; true if it is worth telling.
    pub(super) fn progressed(&mut self, id: &BaseId, text: &str, share: f32) -> bool {
        let Some(State::Loading { message, progress, .. }) = self.all.get_mut(id) else { return false };
        if *message == text && (share - *progress).abs() < PROGRESS_STEP {
            return false;
        }
        text.clone_into(message);
        *progress = share;
        true
    }

    /// A base arrived: gets its pages and is ready.
    pub(super) fn loaded_now(&mut self, id: &BaseId, model: Arc<Model>) -> Result<(), EngineError> {
        let Some(State::Loading { kv_bytes, .. }) = self.all.get(id) else { return Ok(()) };
        let kv_bytes = *kv_bytes;
        let page_bytes = model.kv_bytes_per_page() as u64;
        let pages = (kv_bytes / page_bytes.max(1)).min(MAX_PAGES);
        if pages == 0 {
            self.all.remove(id);
            return Err(EngineError::OutOfMemory(format!(
                "one page of keys and values of {} takes {}, only {} are set aside for them: raise the KV memory (--kv-memory)",
                id.0,
                megabytes(page_bytes),
                megabytes(kv_bytes)
            )));
        }
        self.clock += 1;
        let resident = Resident {
            kv: Kv::new(&model, pages as usize),
            lane: Lane::new(pages as usize),
            workspace: Workspace::default(),
            pace: Pace::default(),
            bytes: model.bytes(),
            kv_bytes: pages * page_bytes,
            used: self.clock,
            model,
        };
        self.all.insert(id.clone(), State::Ready(Box::new(resident)));
        Ok(())
    }

    /// Loads what waits for room, oldest wish first, and unloads idle bases, then adapters, for it. `claims`: who wants what.
    pub(super) fn make_room(&mut self, adapters: &mut AdapterSlots, training_bytes: u64, claims: &BTreeMap<BaseId, Claim>) -> Room {
        let mut room = Room::default();
        let unwanted = |id: &BaseId| claims.get(id).is_none_or(|c| c.oldest_waiting.is_none());
        self.all.retain(|id, state| !(matches!(state, State::Sized { .. }) && unwanted(id)));
        let mut sized: Vec<(u64, BaseId, u64)> = Vec::new();
        for (id, state) in &self.all {
            if let (State::Sized { bytes }, Some(oldest)) = (state, claims.get(id).and_then(|c| c.oldest_waiting)) {
                sized.push((oldest, id.clone(), *bytes));
            }
        }
        sized.sort_unstable_by_key(|(oldest, ..)| *oldest);
        for (oldest, id, bytes) in sized {
            let least = bytes + self.kv_bytes / SMALLEST_KV_SHARE;
            if least > self.budget_bytes {
                room.failed.push((id.clone(), self.too_large(&id, bytes)));
                self.forget(&id);
                continue;
            }
            let wanted = bytes + self.kv_bytes;
            while self.free_bytes(adapters, training_bytes) < wanted && (self.unload_idle(oldest, claims) || adapters.evict_one()) {}
            let free = self.free_bytes(adapters, training_bytes);
            if free < least {
                // Everyone younger waits, also those with less need: room for the oldest wish comes first.
                room.hold = Some(oldest);
                break;
            }
            self.load(id, bytes, self.kv_bytes.min(free - bytes));
        }
        room
    }

    fn too_large(&self, id: &BaseId, bytes: u64) -> EngineError {
        EngineError::OutOfMemory(format!(
            "model {} takes {} and at least {} for keys and values, the memory budget is {}: raise the budget or load it at a lower precision",
            id.0,
            megabytes(bytes),
            megabytes(self.kv_bytes / SMALLEST_KV_SHARE),
            megabytes(self.budget_bytes)
        ))
    }

    fn free_bytes(&self, adapters: &AdapterSlots, training_bytes: u64) -> u64 {
        let taken = self.all.values().map(|state| match state {
            State::Loading { bytes, kv_bytes, .. } => bytes + kv_bytes,
            State::Ready(resident) => resident.bytes + resident.kv_bytes,
            State::Sizing | State::Sized { .. } => 0,
        });
        self.budget_bytes.saturating_sub(adapters.bytes() + training_bytes).saturating_sub(taken.sum())
    }

    /// Unloads the longest unused base on which nothing runs and for which nobody waits longer than `oldest`.
    fn unload_idle(&mut self, oldest: u64, claims: &BTreeMap<BaseId, Claim>) -> bool {
        let idle = |id: &BaseId, resident: &Resident| {
            let claim = claims.get(id).copied().unwrap_or_default();
            resident.lane.running().is_empty() && !claim.training && claim.oldest_waiting.is_none_or(|waiting| waiting > oldest)
        };
        let victim = self.ready().filter(|(id, resident)| idle(id, resident)).min_by_key(|(_, r)| r.used).map(|(id, _)| id.clone());
        let Some(victim) = victim else { return false };
        tracing::info!(base = %victim.0, "unloads an idle base to make room");
        self.all.remove(&victim);
        true
    }

    fn load(&mut self, id: BaseId, bytes: u64, kv_bytes: u64) {
        let message = format!("Loading model {}", id.0);
        self.all.insert(id.clone(), State::Loading { bytes, kv_bytes, message, progress: 0.0 });
        let (base, source, commands) = (id.clone(), self.source.clone(), self.commands.clone());
        let work = move || {
            let progress = |message: &str, progress: f32| {
                // A worker that is gone needs no progress.
                let _ = commands.send(Command::BaseProgress { base: base.clone(), message: message.to_owned(), progress });
            };
            Command::BaseLoaded { base: base.clone(), model: guarded(&base, || source.base(&base, &progress)) }
        };
        self.spawn(work, move |error| Command::BaseLoaded { base: id, model: Err(error) });
    }

    /// Loads an adapter on a thread of its own.
    pub(super) fn load_adapter(&self, base: BaseId, id: AdapterId) {
        let source = self.source.clone();
        let failed = base.clone();
        self.spawn(
            move || Command::AdapterLoaded { adapter: guarded(&base, || source.adapter(&base, &id)), base, id },
            move |error| Command::AdapterLoaded { base: failed, id, adapter: Err(error) },
        );
    }

    /// Runs `work` on a thread and sends what it made; `refused` if there is no thread.
    fn spawn(&self, work: impl FnOnce() -> Command + Send + 'static, refused: impl FnOnce(EngineError) -> Command) {
        let commands = self.commands.clone();
        let run = move || {
            let _ = commands.send(work());
        };
        if let Err(error) = std::thread::Builder::new().name("tiger-load".into()).spawn(run) {
            let text = format!("no thread to load with: {error}");
            let _ = self.commands.send(refused(EngineError::Load(text)));
        }
    }
}

/// Calls foreign code: its errors are the caller's to read, its panics are ours and only logged.
fn guarded<T>(base: &BaseId, load: impl FnOnce() -> Result<T, String>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(load)) {
        Ok(result) => result.map_err(EngineError::Load),
        Err(panic) => {
            tracing::error!(base = %base.0, panic = super::panic_text(&*panic), "a load panicked");
            Err(EngineError::Internal)
        }
    }
}

/// Bytes for people.
pub(super) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1u64 << 20) as f64)
}
