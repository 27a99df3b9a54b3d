//! One training call as a state machine: each `advance` is one micro-batch or one optimizer step, so that sampling goes on in between.
//! Does not know the queue, nor what becomes of the new weights.

use std::sync::Arc;

use tiger_kernels::Cpu;
use tiger_model::{Adapter, AdapterGradients, AdapterState, Dropout, Model, Workspace};
use tokio::sync::mpsc::UnboundedSender;

use super::objective::{Plan, kl_mean, single_mean, summarize};
use super::pack::{MicroBatch, pack};
use super::step::{self, Device, Extras, Scoring, StepSize, Tally, diverged};
use super::{Group, Knobs, Mode, Objective, Outcome, ResponseMetrics, StepMetrics, TrainMetrics, TrainRequest, notes, validate};
use crate::command::Config;
use crate::request::{EngineError, TrainEvent};

/// Share of `activation_bytes` that the parent's hidden states may take between steps (of 4 GiB: 256 MiB, 32,768 targets of width 2,048).
/// Those of micro-batches beyond it are computed again at each step.
const PARENT_SHARE: u64 = 16;

/// What [`Job::advance`] leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// There is more to do.
    Working,
    /// Done, failed or cancelled; the last event is sent. Advancing again does nothing.
    Finished,
}

/// Passes through the model so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Forwards of the parent, for the KL: once a micro-batch where what it says is kept from step to step.
    pub reference_forwards: usize,
    /// Forwards of the policy that a backward followed.
    pub training_passes: usize,
    /// Rows of those: prompts once a micro-batch, however many responses share them.
    pub training_rows: usize,
    /// Forwards of the policy that only scored.
    pub scoring_forwards: usize,
    /// Steps that changed weights.
    pub updates: usize,
    /// Tokens trained, all steps together.
    pub trained_tokens: u64,
}

/// One training call on its way.
pub struct Job {
    running: Option<Box<Running>>,
    events: UnboundedSender<TrainEvent>,
    workspace: Workspace,
    counts: Counts,
}

impl Job {
    /// Takes a request; an invalid one fails at the first [`Job::advance`]. Progress and the end go to `events`.
    pub fn new(request: TrainRequest, events: UnboundedSender<TrainEvent>, config: &Config) -> Job {
        let running = Some(Box::new(Running::new(request, config)));
        Job { running, events, workspace: Workspace::default(), counts: Counts::default() }
    }

    /// Passes through the model so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// One unit of work: a micro-batch (forward of the parent, forward and backward of the policy), an optimizer step, or the scoring of a
    /// micro-batch. A caller that hung up ends the job before the next unit.
    pub fn advance(&mut self, model: &Model, cpu: &Cpu) -> Advance {
        let Some(running) = self.running.take() else { return Advance::Finished };
        if self.events.is_closed() {
            return Advance::Finished;
        }
        let mut tools =
            Tools { device: Device { model, cpu, workspace: &mut self.workspace }, events: &self.events, counts: &mut self.counts };
        let last = match running.work(&mut tools) {
            Ok(Flow::Next(running)) => {
                self.running = Some(running);
                return Advance::Working;
            }
            Ok(Flow::Done(outcome)) => TrainEvent::Done(outcome),
            Err(error) => TrainEvent::Failed(error),
        };
        self.workspace = Workspace::default();
        // A receiver that went away meanwhile wants no answer.
        let _ = self.events.send(last);
        Advance::Finished
    }
}

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The request against the model.
    Check,
    /// Score a micro-batch before the first step: where dropout makes the training forward's log-probs another thing, or nothing is trained.
    Before(usize),
    /// Gradient of a micro-batch.
    Accumulate(usize),
    /// The optimizer's step.
    Update,
    /// Score a micro-batch after the last step.
    After(usize),
}

/// What the scores after the last step say of all tokens; `current` holds each response's.
#[derive(Debug, Clone, Copy)]
struct After {
    /// k3 estimate of what has moved since the call began, nats per token.
    moved: f64,
    /// Mean entropy, nats.
    entropy: f64,
}

enum Flow {
    Next(Box<Running>),
    Done(Box<Outcome>),
}

struct Tools<'a> {
    device: Device<'a>,
    events: &'a UnboundedSender<TrainEvent>,
    counts: &'a mut Counts,
}

/// Everything that lives from unit to unit. An error drops it, and with it the changed copy of the weights.
struct Running {
    valid: Result<(), EngineError>,
    groups: Vec<Group>,
    knobs: Knobs,
    dropout: f32,
    reference: Option<Arc<Adapter>>,
    state: AdapterState,
    activation_bytes: u64,
    plan: Plan,
    batches: Vec<MicroBatch>,
    /// The parent's hidden states of each micro-batch, [targets, C], where they are kept: it never changes during a call.
    parent: Vec<Option<Vec<f32>>>,
    phase: Phase,
    gradients: AdapterGradients,
    tally: Tally,
    /// Log-probs of the latest pass, per response.
    current: Vec<Vec<f32>>,
    /// Log-probs when the call began, once known.
    start: Option<Vec<Vec<f32>>>,
    first: Option<StepMetrics>,
    after: Option<After>,
    steps: u32,
    warnings: Vec<String>,
}

impl Running {
    fn new(request: TrainRequest, config: &Config) -> Running {
        let valid = validate(&request).map_err(|e| EngineError::Invalid(e.to_string()));
        let TrainRequest { state, reference, dropout, groups, knobs, .. } = request;
        // An invalid request is not planned: nothing of it can be relied on.
        let groups = if valid.is_ok() { groups } else { Vec::new() };
        let plan = Plan::after(&groups, &knobs, state.record.reward);
        let batches = pack(&groups, config.micro_batch_tokens);
        Running {
            valid,
            dropout,
            reference,
            activation_bytes: config.activation_bytes,
            parent: vec![None; batches.len()],
            batches,
            phase: Phase::Check,
            gradients: AdapterGradients::zeros(&state.adapter),
            tally: Tally::default(),
            current: plan.responses.iter().map(|r| vec![0.0; r.tokens]).collect(),
            start: None,
            first: None,
            after: None,
            steps: 0,
            warnings: notes::about_request(&groups, &plan, &knobs, state.record.reward),
            groups,
            knobs,
            state,
            plan,
        }
    }

    fn work(mut self: Box<Self>, tools: &mut Tools<'_>) -> Result<Flow, EngineError> {
        let batches = self.batches.len();
        self.phase = match self.phase {
            Phase::Check => {
                self.check(tools.device.model)?;
                if self.is_idle() || self.dropout > 0.0 { Phase::Before(0) } else { Phase::Accumulate(0) }
            }
            Phase::Before(i) => {
                self.score(tools, i)?;
                match i + 1 {
                    next if next < batches => Phase::Before(next),
                    _ if self.is_idle() => return Ok(self.end_idle()),
                    _ => {
                        self.start = Some(self.current.clone());
                        self.tally = Tally::default();
                        Phase::Accumulate(0)
                    }
                }
            }
            Phase::Accumulate(i) => {
                self.accumulate(tools, i)?;
                if i + 1 < batches { Phase::Accumulate(i + 1) } else { Phase::Update }
            }
            Phase::Update => return self.update(tools),
            Phase::After(i) => {
                self.score(tools, i)?;
                if i + 1 == batches {
                    return Ok(self.end_evaluated());
                }
                Phase::After(i + 1)
            }
        };
        Ok(Flow::Next(self))
    }

    /// Earlier calls took the model so far from its parent that it is not trained any further.
    fn is_too_far(&self) -> bool {
        self.state.record.kl > self.knobs.kl_limit
    }

    fn is_idle(&self) -> bool {
        self.is_too_far() || self.plan.is_idle(self.knobs.objective)
    }

    /// Token ids and lengths against the model.
    fn check(&mut self, model: &Model) -> Result<(), EngineError> {
        self.valid.clone()?;
        let a = model.architecture();
        for (g, group) in self.groups.iter().enumerate() {
            let tokens = group.prompt.iter().chain(group.responses.iter().flat_map(|r| &r.tokens));
            if let Some(id) = tokens.into_iter().find(|id| **id as usize >= a.vocab) {
                return Err(EngineError::Invalid(format!("batch[{g}]: token {id} is not in the model's vocabulary of {}", a.vocab)));
            }
            for (r, response) in group.responses.iter().enumerate() {
                let length = group.prompt.len() + response.tokens.len();
                if length > a.context_length {
                    return Err(EngineError::Invalid(format!(
                        "batch[{g}].responses[{r}]: prompt and response have {length} tokens, the model's context is {}; shorten them",
                        a.context_length
                    )));
                }
            }
        }
        Ok(())
    }

    fn scoring(&self) -> Scoring<'_> {
        Scoring { groups: &self.groups, plan: &self.plan, knobs: &self.knobs, start: self.start.as_deref() }
    }

    fn score(&mut self, tools: &mut Tools<'_>, index: usize) -> Result<(), EngineError> {
        tools.counts.scoring_forwards += 1;
        let micro = &self.batches[index];
        let scores = step::score(&mut tools.device, micro, &self.state.adapter);
        let (mut tally, mut current) = (std::mem::take(&mut self.tally), std::mem::take(&mut self.current));
        let result = self.scoring().weigh(&micro.owners, &scores, &mut tally, &mut current);
        (self.tally, self.current) = (tally, current);
        result.map(|_| ())
    }

    fn accumulate(&mut self, tools: &mut Tools<'_>, index: usize) -> Result<(), EngineError> {
        let micro = &self.batches[index];
        let penalised = self.knobs.kl_coefficient > 0.0;
        let parent = penalised.then(|| {
            self.parent[index].take().unwrap_or_else(|| {
                tools.counts.reference_forwards += 1;
                step::hidden(&mut tools.device, micro, self.reference.as_deref())
            })
        });
        tools.counts.training_passes += 1;
        tools.counts.training_rows += micro.batch.tokens.len();
        let seed = mix(mix(self.knobs.seed ^ mix(u64::from(self.steps))) ^ index as u64);
        let extras = Extras {
            dropout: (self.dropout > 0.0).then_some(Dropout { p: self.dropout, seed }),
            parent: parent.as_deref(),
            keep: micro.batch.keep_within(self.activation_bytes, tools.device.model.architecture(), self.state.adapter.rank()),
        };
        let scoring = Scoring { groups: &self.groups, plan: &self.plan, knobs: &self.knobs, start: self.start.as_deref() };
        let sums = (&mut self.tally, &mut self.current[..]);
        step::accumulate(&mut tools.device, (micro, &self.state.adapter), &extras, &scoring, sums, &mut self.gradients)?;
        let kept: usize = self.parent.iter().chain([&parent]).flatten().map(|hidden| size_of_val(&hidden[..])).sum();
        if self.steps + 1 < self.knobs.steps && kept as u64 <= self.activation_bytes / PARENT_SHARE {
            self.parent[index] = parent;
        }
        if self.batches.len() > 1 {
            self.tell(tools, self.steps + 1, None);
        }
        Ok(())
    }

    fn tell(&self, tools: &Tools<'_>, step: u32, metrics: Option<StepMetrics>) {
        // A receiver that went away is noticed before the next unit.
        let _ = tools.events.send(TrainEvent::Progress { step, steps: self.knobs.steps, metrics });
    }

    fn step_metrics(&self, norm: f64) -> StepMetrics {
        let mut metrics = self.tally.metrics(norm);
        metrics.step_scale *= self.plan.live_share(self.knobs.objective) * self.plan.evidence;
        metrics
    }

    /// All micro-batches are in: decide whether a step is taken, and take it.
    fn update(mut self: Box<Self>, tools: &mut Tools<'_>) -> Result<Flow, EngineError> {
        let cpu = tools.device.cpu;
        let norm = step::gradient_norm(cpu, &self.gradients);
        if !self.tally.is_finite() {
            return Err(diverged("the loss is not finite"));
        }
        if !norm.is_finite() {
            return Err(diverged("the gradient is not finite"));
        }
        let metrics = self.step_metrics(norm);
        let start = self.start.get_or_insert_with(|| self.current.clone());
        debug_assert_eq!(start.len(), self.plan.responses.len());
        if self.first.is_none() {
            self.warnings.extend(notes::about_step(&metrics, self.tally.fade()));
            self.first = Some(metrics.clone());
        }
        if self.knobs.dry_run && !self.knobs.evaluate {
            return Ok(self.end(Some("dry_run")));
        }
        let drift = self.tally.drift();
        if self.steps > 0 && drift > self.knobs.target_kl {
            self.warnings.push(notes::stopped_early(self.steps, drift, self.knobs.target_kl));
            return Ok(self.finish_steps());
        }
        if norm == 0.0 {
            // Adam would move on by its momentum alone.
            return Ok(if self.steps == 0 { self.end(Some("zero_gradient")) } else { self.finish_steps() });
        }
        let rate = self.knobs.learning_rate * metrics.step_scale;
        step::apply(cpu, &mut self.state, &self.gradients, StepSize { rate, norm, max_norm: self.knobs.max_grad_norm })?;
        if self.steps == 0 {
            let record = &mut self.state.record;
            record.reward = single_mean(record.reward, &self.groups);
            record.kl = self.tally.sampled_kl().map_or(record.kl, |kl| kl_mean(record.kl, kl));
        }
        self.steps += 1;
        tools.counts.updates += 1;
        tools.counts.trained_tokens += self.plan.trained_tokens as u64;
        self.tell(tools, self.steps, Some(metrics));
        if self.steps == self.knobs.steps {
            return Ok(self.finish_steps());
        }
        self.gradients = AdapterGradients::zeros(&self.state.adapter);
        self.tally = Tally::default();
        self.phase = Phase::Accumulate(0);
        Ok(Flow::Next(self))
    }

    fn finish_steps(mut self: Box<Self>) -> Flow {
        if !self.knobs.evaluate {
            return self.end(None);
        }
        self.tally = Tally::default();
        self.phase = Phase::After(0);
        Flow::Next(self)
    }

    /// All micro-batches are scored again after the last step.
    fn end_evaluated(mut self: Box<Self>) -> Flow {
        let after = After { moved: self.tally.drift(), entropy: self.tally.metrics(0.0).entropy };
        let before = self.first.as_ref().map_or(after.entropy, |first| first.entropy);
        self.warnings.extend(notes::about_change(before, after.entropy));
        // A call that stopped early has said so.
        if after.moved > self.knobs.target_kl && self.steps == self.knobs.steps {
            self.warnings.push(notes::moved_far(after.moved, self.knobs.target_kl));
        }
        self.after = Some(after);
        self.end(None)
    }

    fn end_idle(mut self: Box<Self>) -> Flow {
        self.first = Some(self.tally.metrics(0.0));
        let all_zero = self.plan.responses.iter().all(|r| r.advantage == 0.0);
        if self.is_too_far() {
            self.warnings.push(notes::too_far(self.state.record.kl, self.knobs.kl_limit));
            return self.end(Some("far_from_parent"));
        }
        debug_assert!(all_zero || self.knobs.objective == Objective::Sft);
        self.end(Some(if all_zero { "zero_advantage" } else { "no_positive_advantage" }))
    }

    /// The answer. The steps of a dry run were taken on this job's own copy of the weights, which goes no further.
    fn end(self: Box<Self>, reason: Option<&str>) -> Flow {
        let updated = self.steps > 0 && !self.knobs.dry_run;
        let reason = reason.or(self.knobs.dry_run.then_some("dry_run"));
        let start = self.start.as_ref().unwrap_or(&self.current);
        let sum = |logprobs: &[f32]| logprobs.iter().map(|l| f64::from(*l)).sum::<f64>();
        let responses = self
            .plan
            .responses
            .iter()
            .enumerate()
            .map(|(i, planned)| {
                let recorded = self.groups[planned.group].responses[planned.index].recorded.as_ref();
                ResponseMetrics {
                    group: planned.group,
                    advantage: planned.advantage,
                    tokens: planned.tokens,
                    mode: if recorded.is_some() { Mode::Recorded } else { Mode::Text },
                    staleness: recorded.map_or(0, |r| r.staleness),
                    logprob_before: sum(&start[i]),
                    logprob_after: self.after.is_some().then(|| sum(&self.current[i])),
                }
            })
            .collect();
        let rewards: Vec<f64> = self.groups.iter().flat_map(|g| &g.responses).map(|r| r.reward).collect();
        let metrics = TrainMetrics {
            updated,
            reason: reason.map(str::to_owned),
            steps: self.steps,
            step: self.first.unwrap_or_default(),
            kl_moved: self.after.map(|after| after.moved),
            entropy_after: self.after.map(|after| after.entropy),
            reward: summarize(&rewards),
            responses,
            learning_rate: self.knobs.learning_rate,
            input_tokens: self.groups.iter().map(|g| g.prompt.len() * g.responses.len()).sum(),
            trained_tokens: self.plan.trained_tokens,
            warnings: self.warnings,
        };
        Flow::Done(Box::new(Outcome { metrics, state: updated.then_some(self.state) }))
    }
}

/// SplitMix64's finaliser (Steele et al. 2014): seeds of neighbouring steps and micro-batches have nothing in common.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
