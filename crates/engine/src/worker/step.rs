//! One step of one base: which rows, the forward pass, the tokens that come of it, and what they mean for their requests.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tiger_model::{Adapter, Segment, Step};

use super::Worker;
use super::draw::{Draw, Outcome, draw_all};
use crate::request::{BaseId, EngineError, Event, FinishReason};
use crate::sample::lane::{Displaced, Fork};
use crate::sample::plan::{Grant, plan};
use crate::sample::sampler::DrawId;
use crate::sample::scheduler::Waiting;
use crate::sample::sequence::{Sequence, SequenceKey};

/// What becomes of a sample after its draw.
enum Fate {
    /// Another token comes.
    Goes(u32),
    Ended,
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
        let hidden = self.forward(base, &mut grants);
        let draws = self.prepare_draws(base, &grants);
        let Some(resident) = self.bases.get_mut(base) else { return };
        let draws = draw_all(&self.cpu, &resident.model, &hidden, draws, &mut self.draw_buffers);
        resident.lane.commit(&grants);
        self.conclude(base, draws);
        self.in_step.clear();
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

    /// Rows of the grants through the model; returns the hidden states of the sequences that draw, in the order of `grants`.
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
            segments.push(Segment { rows: first..self.tokens.len(), start, pages: &sequence.pages[..Sequence::pages_for(end)], adapter });
            if end == sequence.len() {
                self.outputs.push(self.tokens.len() - 1);
            }
            // Tokens that were drawn before are computed again only after a preemption: they count as prompt then.
            if grant.tokens > 1 || sequence.generated.is_empty() {
                self.counters.prompt_tokens += grant.tokens as u64;
            }
        }
        let step = Step { tokens: &self.tokens, segments: &segments, outputs: &self.outputs };
        resident.model.forward(&self.cpu, &mut resident.kv, &step, &mut resident.workspace)
    }

    /// The draws of the sequences whose last token is computed with this step; the first of a request draws for all its samples.
    fn prepare_draws(&mut self, base: &BaseId, grants: &[Grant]) -> Vec<Draw> {
        let Some(resident) = self.bases.get_mut(base) else { return Vec::new() };
        let mut draws = Vec::with_capacity(grants.len());
        let mut row = 0;
        for grant in grants {
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
                draws.push(Draw { key, parent: grant.key, row, id, sampling: request.sampling, constraint, outcome });
            }
            row += 1;
        }
        draws
    }

    /// Tells the requests, starts the other samples of computed prompts, takes out what ended.
    fn conclude(&mut self, base: &BaseId, draws: Vec<Draw>) {
        let mut forks = Vec::new();
        let mut ended = Vec::new();
        for mut draw in draws {
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
            self.scheduler.charge(account, 1);
            let fate = self.tell(&draw);
            if draw.key != draw.parent {
                if let Fate::Goes(token) = fate {
                    forks.push((draw, token));
                }
                continue;
            }
            match fate {
                Fate::Ended => ended.push(draw.key),
                Fate::Goes(token) => {
                    let sequence = self.bases.get_mut(base).and_then(|r| r.lane.sequence_mut(draw.key));
                    if let Some(sequence) = sequence {
                        sequence.generated.push(token);
                        sequence.constraint = draw.constraint.take();
                    }
                }
            }
        }
        for (draw, token) in forks {
            self.fork(base, draw, token);
        }
        let Some(resident) = self.bases.get_mut(base) else { return };
        for key in ended {
            resident.lane.remove(key);
        }
    }

    /// Sends what one draw gave.
    fn tell(&mut self, draw: &Draw) -> Fate {
        let Some(request) = self.requests.get(draw.key.request) else { return Fate::Ended };
        let (id, logprob, complete) = match &draw.outcome {
            Outcome::Token { id, logprob, complete } => (*id, *logprob, *complete),
            Outcome::Complete => {
                self.requests.finish(draw.key, FinishReason::EndOfTurn);
                return Fate::Ended;
            }
            Outcome::Failed(error) => {
                self.fail_request(draw.key.request, error.clone());
                return Fate::Ended;
            }
            Outcome::Open => unreachable!("every draw is drawn"),
        };
        request.send(Event::Token { sample: draw.key.sample, id, logprob });
        self.counters.sampled_tokens += 1;
        let drawn = draw.id.position + 1 - self.prompt_len(draw);
        if complete || request.end_tokens.contains(&id) {
            self.requests.finish(draw.key, FinishReason::EndOfTurn);
            Fate::Ended
        } else if drawn >= request.max_tokens as usize {
            self.requests.finish(draw.key, FinishReason::MaxTokens);
            Fate::Ended
        } else {
            Fate::Goes(id)
        }
    }

    fn prompt_len(&self, draw: &Draw) -> usize {
        self.requests.get(draw.key.request).map_or(0, |r| r.prompt_len)
    }

    /// Starts another sample behind the prompt of `draw.parent`, or puts it in line when there is no room.
    fn fork(&mut self, base: &BaseId, draw: Draw, token: u32) {
        if self.requests.get(draw.key.request).is_none() {
            return;
        }
        let running = self.running();
        let Some(resident) = self.bases.get_mut(base) else { return };
        let Some(parent) = resident.lane.running().get(&draw.parent) else { return };
        let mut sequence = Sequence::new(parent.account, parent.adapter, parent.prompt.clone(), Vec::new());
        sequence.generated.push(token);
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
