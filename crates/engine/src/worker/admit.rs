//! From the line into the lanes: which bases are wanted, whose turn it is, whether pages and adapters are there.

use std::collections::{BTreeMap, BTreeSet};

use super::Worker;
use super::bases::Claim;
use crate::adapters::AdapterKey;
use crate::request::{BaseId, EngineError, Event};
use crate::sample::lane::Admission;
use crate::sample::scheduler::Waiting;

/// Adapters asked for in one turn; more than load at once are pointless.
const ADAPTER_WISHES: usize = 8;

impl Worker {
    /// Starts sizing and loading what is wanted and not there, unloads what is in the way.
    pub(super) fn bring_bases(&mut self) {
        self.hold = None;
        let missing = |id: &BaseId| self.bases.get(id).is_none();
        let wanted = self.scheduler.iter().any(|(_, w)| missing(&w.base))
            || !self.preloads.is_empty()
            || self.trainings.any_waits()
            || self.bases.any_sized();
        if !wanted {
            return;
        }
        let claims = self.claims_on_bases();
        for (id, claim) in &claims {
            if claim.oldest_waiting.is_some() && self.bases.want(id) {
                self.tell_stage(id);
            }
        }
        let room = self.bases.make_room(&mut self.adapters, self.trainings.reserved_bytes(&self.config), &claims);
        self.hold = room.hold;
        for (id, error) in room.failed {
            self.fail_base(&id, &error);
        }
        let mut preloads = std::mem::take(&mut self.preloads);
        preloads.retain(|preload| {
            let ready = self.bases.get(&preload.base).is_some();
            if ready {
                let _ = preload.events.send(Event::Done);
            }
            let ended = ready || preload.events.is_closed();
            if ended {
                self.shared.leave_preload();
            }
            !ended
        });
        self.preloads = preloads;
    }

    fn claims_on_bases(&self) -> BTreeMap<BaseId, Claim> {
        let mut claims: BTreeMap<BaseId, Claim> = BTreeMap::new();
        // A preempted sequence of a request that runs keeps its base: it counts as older than anyone.
        let number = |request: u64| if self.requests.get(request).is_some_and(|r| r.in_line()) { request } else { 0 };
        let waiting = self.scheduler.iter().map(|(key, w)| (&w.base, number(key.request)));
        let waiting = waiting.chain(self.preloads.iter().map(|p| (&p.base, p.number))).chain(self.trainings.waiting());
        for (base, number) in waiting {
            if !claims.contains_key(base) {
                claims.insert(base.clone(), Claim::default());
            }
            let Some(claim) = claims.get_mut(base) else { continue };
            claim.oldest_waiting = Some(claim.oldest_waiting.map_or(number, |oldest| oldest.min(number)));
        }
        for base in self.trainings.active_bases() {
            claims.entry(base.clone()).or_default().training = true;
        }
        claims
    }

    /// Tells everyone who waits for a base how far it is.
    pub(super) fn tell_stage(&self, id: &BaseId) {
        let Some((message, progress)) = self.bases.stage(id) else { return };
        let event = Event::Info { message, progress };
        for (_, request) in self.requests.in_line_for(id) {
            request.send(event.clone());
        }
        for preload in self.preloads.iter().filter(|p| p.base == *id) {
            let _ = preload.events.send(event.clone());
        }
        self.trainings.tell(id, &event);
    }

    /// Ends everything that waits for a base that cannot be had.
    pub(super) fn fail_base(&mut self, id: &BaseId, error: &EngineError) {
        self.bases.forget(id);
        let waiting: BTreeSet<u64> = self.scheduler.iter().filter(|(_, w)| w.base == *id).map(|(key, _)| key.request).collect();
        for number in waiting {
            self.fail_request(number, error.clone());
        }
        let shared = &self.shared;
        self.preloads.retain(|preload| {
            let hit = preload.base == *id;
            if hit {
                let _ = preload.events.send(Event::Failed(error.clone()));
                shared.leave_preload();
            }
            !hit
        });
        self.trainings.fail_waiting(id, error, shared);
    }

    /// Runs as many waiting sequences as there are places, pages and turns for.
    pub(super) fn admit(&mut self) {
        let scheduler = &self.scheduler;
        self.claimants.retain(|_, turn| scheduler.contains(*turn));
        let mut full: BTreeSet<BaseId> = BTreeSet::new();
        let mut wishes: Vec<AdapterKey> = Vec::new();
        let mut running = self.running();
        while running < self.config.max_sequences {
            let (requests, bases, adapters) = (&self.requests, &self.bases, &self.adapters);
            let (hold, claimants) = (self.hold, &self.claimants);
            let turn = self.scheduler.peek(|key, waiting| {
                let there = bases.get(&waiting.base).is_some() && !full.contains(&waiting.base);
                // Who was first in turn and found no pages is not passed by smaller ones of the same base.
                let first = claimants.get(&waiting.base).is_none_or(|turn| turn.key == key);
                let Some(request) = requests.get(key.request) else { return false };
                let held = request.in_line() && hold.is_some_and(|oldest| key.request > oldest);
                if !there || !first || held {
                    return false;
                }
                let Some(adapter) = &request.adapter else { return true };
                let loaded = request.pin.is_some() || adapters.is_loaded(adapter);
                if !loaded && wishes.len() < ADAPTER_WISHES && !wishes.contains(adapter) {
                    wishes.push(adapter.clone());
                }
                loaded
            });
            let Some(turn) = turn else { break };
            let Some(Waiting { base, sequence }) = self.scheduler.remove(turn) else { break };
            if let Err(error) = self.check_tokens(&base, &sequence.prompt, turn.key.request) {
                self.fail_request(turn.key.request, error);
                continue;
            }
            let tokens = sequence.len();
            let Some(resident) = self.bases.get_mut(&base) else { break };
            match resident.lane.admit(turn.key, sequence) {
                Admission::Runs { cached } => {
                    running += 1;
                    self.scheduler.served(turn.account, tokens - cached);
                    self.claimants.remove(&base);
                    self.start_request(turn.key.request, cached);
                }
                Admission::NoRoom(sequence) => {
                    self.scheduler.push(turn.key, Waiting { base: base.clone(), sequence: *sequence });
                    self.claimants.insert(base.clone(), turn);
                    full.insert(base);
                }
                Admission::Never(_) => {
                    let error = super::too_long(tokens, resident.lane.pages().total());
                    self.fail_request(turn.key.request, error);
                }
            }
        }
        for (base, id) in wishes {
            if self.adapters.begin_load(&(base.clone(), id)) {
                self.bases.load_adapter(base, id);
            }
        }
        self.tell_who_waits();
    }

    /// Only the model knows its vocabulary. Checked once, at the first admission.
    fn check_tokens(&self, base: &BaseId, prompt: &[u32], number: u64) -> Result<(), EngineError> {
        let fresh = self.requests.get(number).is_some_and(|r| r.in_line());
        let vocab = self.bases.get(base).map_or(0, |r| r.model.architecture().vocab);
        match prompt.iter().find(|token| **token as usize >= vocab) {
            Some(token) if fresh => Err(EngineError::Invalid(format!("token {token} is not below the vocabulary's size {vocab}"))),
            _ => Ok(()),
        }
    }

    fn start_request(&mut self, number: u64, cached: usize) {
        let Some(request) = self.requests.get_mut(number) else { return };
        if request.in_line() {
            request.cached = cached as u32;
            self.counters.cached_tokens += cached as u64;
        }
        if request.pin.is_none() {
            request.pin = request.adapter.as_ref().and_then(|key| self.adapters.get(key));
        }
        self.requests.start(number);
    }

    /// Says once to each new request why it does not run yet.
    fn tell_who_waits(&mut self) {
        for number in std::mem::take(&mut self.fresh) {
            let Some(request) = self.requests.get(number).filter(|r| r.in_line()) else { continue };
            let (message, progress) = if let Some(stage) = self.bases.stage(&request.base) {
                stage
            } else if request.adapter.as_ref().is_some_and(|key| self.adapters.is_loading(key)) {
                ("Loading the model's adapter".into(), None)
            } else {
                ("Waiting in line".into(), None)
            };
            request.send(Event::Info { message, progress });
        }
    }
}
