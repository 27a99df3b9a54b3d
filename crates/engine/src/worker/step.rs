//! One step of one base: which rows, the forward pass, the tokens that come of it, and what they mean for their requests.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tiger_model::{Adapter, Segment, Step};

use super::Worker;
use super::draw::{Draw, Outcome, Rows, draw_all};
use crate::command::Speculation;
use crate::request::{BaseId, EngineError, Event, FinishReason};
use crate::sample::lane::{Displaced, Fork};
use crate::sample::pace::MOST_ROWS;
use crate::sample::plan::{Grant, plan};
use crate::sample::sampler::DrawId;
use crate::sample::scheduler::Waiting;
use crate::sample::sequence::{Sequence, SequenceKey};

/// What a request heard of a sample's draws.
struct Told {
    /// Tokens sent. Those behind the sample's end are not.
    tokens: usize,
    ended: bool,
}

impl Worker {
    /// Computes one step of `base`: every running sequence that gets rows, and the tokens of those that reach their end.
    pub(super) fn step(&mut self, base: &BaseId) {
        let Some(resident) = self.bases.touch(base) else { return };
        resident.lane.demands(&mut self.demands);
        if self.demands.is_empty() {
            return;
        }
        self.steps += 1;
        let mut grants = plan(&self.demands, self.config.step_tokens, self.steps);
        let displaced = resident.lane.reserve(&mut grants);
        self.displace(base, displaced);
        if grants.is_empty() {
            return;
        }
        self.in_step.clear();
        self.in_step.extend(grants.iter().map(|g| g.key));
        let only_decodes = self.speculate(base, &mut grants);
        let started = Instant::now();
        let hidden = self.forward(base, &mut grants);
        let mut draws = std::mem::take(&mut self.draw_buffers.draws);
        self.prepare_draws(base, &grants, &mut draws);
        let Some(resident) = self.bases.get_mut(base) else { return };
        let rows = Rows { hidden: &hidden, tokens: &self.tokens, outputs: &self.outputs };
        draw_all(&self.cpu, &resident.model, &rows, &mut draws, &mut self.draw_buffers);
        if only_decodes {
            resident.pace.note(self.tokens.len(), started.elapsed().as_secs_f64());
        }
        self.conclude(base, &mut grants, &mut draws);
        self.draw_buffers.draws = draws;
        self.in_step.clear();
    }

    /// Adds rows of drafted tokens to decodes where they pay, out of rows and pages that nobody else wants. True if the step has only
    /// decodes.
    fn speculate(&mut self, base: &BaseId, grants: &mut [Grant]) -> bool {
        let Some(resident) = self.bases.get_mut(base) else { return false };
        let lane = &mut resident.lane;
        let rows: usize = grants.iter().map(|g| g.tokens).sum();
        let only_decodes = grants.iter().all(|g| lane.running().get(&g.key).is_some_and(|s| s.pending() == 1));
        let always = match self.config.speculation {
            Speculation::Off => return only_decodes,
            Speculation::Always => true,
            // A step with a prompt is bound by arithmetic, as is a large one.
            Speculation::Auto if !only_decodes || rows >= MOST_ROWS => return only_decodes,
            Speculation::Auto => false,
        };
        let room = self.config.step_tokens.saturating_sub(rows);
        self.odds.clear();
        for (i, grant) in grants.iter().enumerate() {
            let (Some(sequence), Some(request)) = (lane.sequence_mut(grant.key), self.requests.get(grant.key.request)) else { continue };
            // Where other samples begin, they share the row.
            if sequence.pending() > 1 || !sequence.forks.is_empty() {
                continue;
            }
            if always {
                sequence.propose_anything();
            } else {
                // The last token of an answer needs no row.
                let limit = (request.max_tokens as usize).saturating_sub(sequence.generated.len() + 1);
                sequence.propose(limit, &request.end_tokens);
            }
            self.odds.extend(sequence.drafter.odds().map(|odds| (odds, i)));
        }
        let mut worth = self.odds.len();
        if !always {
            // Stable: a draft's rows stay in order.
            self.odds.sort_by(|a, b| b.0.total_cmp(&a.0));
            worth = resident.pace.worth(rows, self.odds.iter().map(|(odds, _)| *odds));
        }
        for (_, grant) in &self.odds[..worth.min(room)] {
            grants[*grant].drafts += 1;
        }
        for grant in grants.iter_mut().filter(|g| g.drafts > 0) {
            lane.lend(grant);
            self.counters.drafted_tokens += grant.drafts as u64;
        }
        only_decodes
    }

    /// Sequences that lost their pages go back in line; one that can never fit ends its request.
    fn displace(&mut self, base: &BaseId, displaced: Displaced) {
        for (key, sequence) in displaced.preempted {
            self.scheduler.push(key, Waiting { base: base.clone(), sequence });
        }
        if let Some((key, sequence)) = displaced.too_long {
            let total = self.bases.get(base).map_or(0, |r| r.lane.pages().total());
            self.fail_request(key.request, super::too_long(sequence.len() + 1, total));
        }
    }

    /// Rows of the grants through the model; returns the hidden states to draw from, in the order of `grants`: of a sequence's last known
    /// token and of its draft.
    fn forward(&mut self, base: &BaseId, grants: &mut [Grant]) -> Vec<f32> {
        let Some(resident) = self.bases.get_mut(base) else { return Vec::new() };
        let running = resident.lane.running();
        // Neighbours with the same adapter share its matrix products.
        grants.sort_by_key(|g| (running.get(&g.key).and_then(|s| s.adapter), g.key));
        self.tokens.clear();
        self.outputs.clear();
        let mut segments = Vec::with_capacity(grants.len());
        for grant in grants.iter() {
            let sequence = &running[&grant.key];
            let (first, start, end) = (self.tokens.len(), sequence.computed, sequence.computed + grant.tokens);
            self.tokens.extend((start..end).map(|position| sequence.token(position)));
            let adapter: Option<&Adapter> = self.requests.get(grant.key.request).and_then(|r| r.pin.as_ref()).map(|pin| &***pin);
            assert_eq!(adapter.is_some(), sequence.adapter.is_some(), "a running sequence holds its adapter");
            if end == sequence.len() {
                self.outputs.extend((self.tokens.len() - 1..).take(1 + grant.drafts));
                self.tokens.extend(&sequence.drafter.draft()[..grant.drafts]);
            }
            let pages = &sequence.pages[..Sequence::pages_for(end + grant.drafts)];
            segments.push(Segment { rows: first..self.tokens.len(), start, pages, adapter });
            // Tokens that were drawn before are computed again only after a preemption: they count as prompt then.
            if grant.tokens > 1 || sequence.generated.is_empty() {
                self.counters.prompt_tokens += grant.tokens as u64;
            }
        }
        let step = Step { tokens: &self.tokens, segments: &segments, outputs: &self.outputs };
        resident.model.forward(&self.cpu, &mut resident.kv, &step, &mut resident.workspace)
    }

    /// The draws of the sequences whose last token is computed with this step; the first of a request draws for all its samples.
    fn prepare_draws(&mut self, base: &BaseId, grants: &[Grant], draws: &mut Vec<Mutex<Draw>>) {
        let Some(resident) = self.bases.get_mut(base) else { return };
        let mut row = 0;
        for (index, grant) in grants.iter().enumerate() {
            let Some(sequence) = resident.lane.sequence_mut(grant.key) else { continue };
            if sequence.computed + grant.tokens < sequence.len() {
                continue;
            }
            let Some(request) = self.requests.get(grant.key.request) else { continue };
            let samples = std::iter::once(grant.key.sample).chain(std::mem::take(&mut sequence.forks));
            for sample in samples {
                let key = SequenceKey { sample, ..grant.key };
                let (mut constraint, mut outcome) = (None, Outcome::Open);
                if key == grant.key {
                    constraint = sequence.constraint.take();
                }
                if let (None, Some(make), true) = (&constraint, &request.constraint, sequence.generated.is_empty()) {
                    match catch_unwind(AssertUnwindSafe(make)) {
                        Ok(Ok(made)) => constraint = Some(made),
                        Ok(Err(text)) => outcome = Outcome::Failed(EngineError::Constraint(text)),
                        Err(_) => outcome = Outcome::Failed(EngineError::Internal),
                    }
                }
                let id = DrawId { seed: request.sampling.seed, sample, position: sequence.len() };
                let (parent, rows) = (grant.key, row..row + 1 + grant.drafts);
                let (sampling, alternatives) = (request.sampling, request.alternatives);
                let tokens = Vec::with_capacity(rows.len());
                draws.push(Mutex::new(Draw { key, parent, grant: index, rows, id, sampling, alternatives, constraint, tokens, outcome }));
            }
            row += 1 + grant.drafts;
        }
    }

    /// Tells the requests, starts the other samples of computed prompts, takes out what ended.
    fn conclude(&mut self, base: &BaseId, grants: &mut [Grant], draws: &mut Vec<Mutex<Draw>>) {
        let mut forks = Vec::new();
        let mut ended = Vec::new();
        grants.iter_mut().for_each(|grant| grant.drafts = 0);
        for slot in draws.drain(..) {
            let mut draw = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
            let account = match self.requests.get_mut(draw.key.request) {
                Some(request) => {
                    if !std::mem::replace(&mut request.started, true) {
                        request.send(Event::Started { cached_tokens: request.cached });
                    }
                    request.account
                }
                // Another sample of it failed in this step.
                None => continue,
            };
            let told = self.tell(&draw);
            self.scheduler.charge(account, told.tokens.max(1));
            if draw.key != draw.parent {
                if !told.ended {
                    forks.push(draw);
                }
                continue;
            }
            let drafts = told.tokens.saturating_sub(1);
            self.counters.accepted_tokens += drafts as u64;
            if let Some(sequence) = self.bases.get_mut(base).and_then(|r| r.lane.sequence_mut(draw.key)) {
                grants[draw.grant].drafts = drafts;
                // The last token of an ended sample needs no row.
                let kept = if told.ended { drafts } else { told.tokens };
                sequence.generated.extend(draw.tokens[..kept].iter().map(|drawn| drawn.id));
                sequence.constraint = draw.constraint.take();
            }
            if told.ended {
                ended.push(draw.key);
            }
        }
        let Some(resident) = self.bases.get_mut(base) else { return };
        resident.lane.commit(grants);
        for draw in forks {
            self.fork(base, draw);
        }
        let Some(resident) = self.bases.get_mut(base) else { return };
        for key in ended {
            resident.lane.remove(key);
        }
    }

    /// Sends what the draws of one sample gave, up to its end.
    fn tell(&mut self, draw: &Draw) -> Told {
        let Some(request) = self.requests.get(draw.key.request) else { return Told { tokens: 0, ended: true } };
        for (i, drawn) in draw.tokens.iter().enumerate() {
            let alternatives = drawn.alternatives.clone();
            request.send(Event::Token { sample: draw.key.sample, id: drawn.id, logprob: drawn.logprob, alternatives });
            self.counters.sampled_tokens += 1;
            let count = draw.id.position + i + 1 - request.prompt_len;
            let reason = if drawn.complete || request.end_tokens.contains(&drawn.id) {
                FinishReason::EndOfTurn
            } else if count >= request.max_tokens as usize {
                FinishReason::MaxTokens
            } else {
                continue;
            };
            self.requests.finish(draw.key, reason);
            return Told { tokens: i + 1, ended: true };
        }
        match &draw.outcome {
            Outcome::Drawn => return Told { tokens: draw.tokens.len(), ended: false },
            Outcome::Complete => self.requests.finish(draw.key, FinishReason::EndOfTurn),
            Outcome::Failed(error) => self.fail_request(draw.key.request, error.clone()),
            Outcome::Open => unreachable!("every draw is drawn"),
        }
        Told { tokens: draw.tokens.len(), ended: true }
    }

    /// Starts another sample behind the prompt of `draw.parent`, or puts it in line when there is no room.
    fn fork(&mut self, base: &BaseId, draw: Draw) {
        if self.requests.get(draw.key.request).is_none() {
            return;
        }
        let running = self.running();
        let Some(resident) = self.bases.get_mut(base) else { return };
        let Some(parent) = resident.lane.running().get(&draw.parent) else { return };
        let mut sequence = Sequence::new(parent.account, parent.adapter, parent.prompt.clone(), Vec::new());
        sequence.generated.extend(draw.tokens.iter().map(|drawn| drawn.id));
        sequence.constraint = draw.constraint;
        if running < self.config.max_sequences {
            match resident.lane.fork(draw.parent, draw.key, sequence) {
                Fork::Runs(copy) => {
                    if let Some((from, to)) = copy {
                        resident.kv.copy_page(from, to);
                    }
                    return;
                }
                Fork::NoRoom(back) => sequence = *back,
            }
        }
        self.scheduler.push(draw.key, Waiting { base: base.clone(), sequence });
    }
}
