//! `tiger rl`: prompts, samples, rewards, train, again; looks at held-out prompts, keeps the best revision, goes on after it was stopped.
//! One step is one train call. Does not know how a reward comes about.

mod curve;
mod report;
mod rollout;
mod setup;
mod state;

use std::time::Instant;

use indicatif::ProgressBar;
use tiger_client::{Client, Error};
use tiger_wire::{ErrorCode, TrainGroup, TrainRequest, TrainedResponse};
use tokio::sync::watch;

use crate::args::{Global, Keep, Rl};
use crate::failure::{Failure, INTERRUPTED};
use crate::reward::Rewards;
use crate::{best, home, output, random, training};

use report::Report;
use rollout::{Judged, Log, Occasion, Rollouts, Sampling};
use setup::Setup;
use state::{Pending, State, Step, Store};

/// Parts of a seed that keep its uses apart.
const ORDER: u64 = 1;
const SAMPLES: u64 = 2;
const HELD_OUT: u64 = 3;

/// Runs until the last step, the goal, or Ctrl-C.
pub async fn run(global: &Global, args: Rl) -> Result<(), Failure> {
    let (stop, stopped) = watch::channel(false);
    tokio::select! {
        ended = whole(global, args, stopped) => ended,
        () = second_interrupt(&stop) => Err(Failure { code: INTERRUPTED, ..Failure::new("interrupted; the same command goes on where the run was") }),
    }
}

/// The first Ctrl-C asks the run to stop, the second ends it.
async fn second_interrupt(stop: &watch::Sender<bool>) {
    for count in 0.. {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        if count > 0 {
            return;
        }
        eprintln!("\nstopping; a training that runs is waited for (Ctrl-C again ends at once)");
        stop.send_replace(true);
    }
}

async fn whole(global: &Global, args: Rl, stopped: watch::Receiver<bool>) -> Result<(), Failure> {
    let setup = Setup::read(&args)?;
    let rewards = Rewards::new(&args.reward)?;
    let log = args.log.as_deref().map(Log::open).transpose()?;
    let client = home::client(global)?;
    let model = setup::find_or_make(&client, &args).await?;
    let store = Store::new(args.state.clone().unwrap_or_else(|| setup::beside(&args.prompts, &model.id)));
    let state = setup::open_state(&client, &store, &args, (&setup, &model)).await?;
    let resumed = state.step();
    let bar = output::bar(u64::from(args.sampling.steps), "reward {prefix}\n{bar:20} {pos}/{len} steps  {elapsed}, {eta} left  {wide_msg}");
    if resumed > 0 || state.pending.is_some() {
        eprintln!("going on after step {resumed} of {} ({})", args.sampling.steps, store.path().display());
    }
    let report = Report { json: global.json, bar: bar.clone(), notes: output::Notes::default() };
    let model = model.id;
    let mut run = Run { client, model, args, setup, rewards, log, store, state, report, bar, stopped, at_limit: false };
    let ended = run.go().await;
    run.bar.finish_and_clear();
    ended?;
    run.finish(resumed).await
}

struct Run {
    client: Client,
    model: String,
    args: Rl,
    setup: Setup,
    rewards: Rewards,
    log: Option<Log>,
    store: Store,
    state: State,
    report: Report,
    bar: ProgressBar,
    stopped: watch::Receiver<bool>,
    /// The server trains the model no further.
    at_limit: bool,
}

impl Run {
    async fn go(&mut self) -> Result<(), Failure> {
        self.report.step(&self.state);
        self.bar.reset_eta();
        loop {
            let step = self.state.step();
            if self.is_look_due(step) {
                self.evaluate().await?;
            }
            let is_done = step >= self.args.sampling.steps || self.reached_goal() || self.at_limit;
            if is_done && self.state.pending.is_none() {
                return Ok(());
            }
            self.renew_best().await?;
            self.step().await?;
        }
    }

    fn is_look_due(&self, step: u32) -> bool {
        let due = step.is_multiple_of(self.args.look.eval_every) || step == self.args.sampling.steps || self.at_limit;
        let seen = self.state.evaluations.last().is_some_and(|look| look.step == step);
        due && !seen && !self.setup.held_out.is_empty() && self.state.pending.is_none()
    }

    fn reached_goal(&self) -> bool {
        let last = self.state.evaluations.last();
        self.args.look.until.is_some_and(|goal| last.is_some_and(|look| look.reward >= goal && look.step == self.state.step()))
    }

    fn rollouts(&self) -> Rollouts<'_> {
        Rollouts {
            client: &self.client,
            model: &self.model,
            rewards: &self.rewards,
            failures: self.args.reward.reward_failures,
            log: self.log.as_ref(),
            bar: &self.bar,
        }
    }

    /// Work that changes nothing and may be dropped at any point.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            done = work => done,
            _ = stopped.wait_for(|stop| *stop) => {
                let message = format!(
                    "stopped after step {} of {}; the same command goes on from there ({})",
                    self.state.step(), self.args.sampling.steps, self.store.path().display()
                );
                Err(Failure { code: INTERRUPTED, ..Failure::new(message) })
            }
        }
    }

    async fn evaluate(&mut self) -> Result<(), Failure> {
        let sampling = Sampling { samples: 1, temperature: self.args.look.eval_temperature, max_tokens: self.args.sampling.max_tokens };
        let seed = |index: usize| random::mixed(&[self.args.sampling.seed, HELD_OUT, index as u64]);
        let prompts: Vec<_> = self.setup.held_out.iter().enumerate().map(|(index, prompt)| (prompt, seed(index))).collect();
        let occasion = Occasion { step: self.state.step(), what: "held-out prompts" };
        let rollouts = self.rollouts();
        let judged = self.unless_stopped(rollouts.collect(occasion, sampling, &prompts)).await?;
        let rewards: Vec<f64> = judged.into_iter().flatten().filter_map(|answer| answer.reward).collect();
        let mean = mean(&rewards).ok_or_else(|| Failure::new("the reward failed for every held-out prompt"))?;
        self.state.evaluated(mean);
        self.store.save(&self.state)?;
        self.report.evaluation(&self.state)
    }

    /// Keeps the best revision's weights within what the server keeps.
    async fn renew_best(&mut self) -> Result<(), Failure> {
        let Some(best) =
            self.state.best.filter(|best| self.keeps_best() && self.state.pending.is_none() && best.is_old(self.state.revision))
        else {
            return Ok(());
        };
        let (renewed, current) = best::renew(&self.client, &self.model, best.revision, self.state.revision).await?;
        self.state.best = Some(best::Best { revision: renewed, ..best });
        self.state.revision = current;
        self.store.save(&self.state)
    }

    fn keeps_best(&self) -> bool {
        self.args.look.keep != Some(Keep::Last)
    }

    async fn step(&mut self) -> Result<(), Failure> {
        let pending = match self.state.pending.take() {
            Some(pending) => pending,
            None => self.sample().await?,
        };
        // Kept before it is sent: whatever happens to this process, the call is repeated as it was.
        self.state.pending = Some(pending.clone());
        self.store.save(&self.state)?;
        self.bar.set_message("training");
        let started = Instant::now();
        let key = format!("{}-{}", self.state.run, self.state.step());
        let answer = match training::call(&self.client, &pending.request, &key, &self.bar).await {
            Ok(answer) => answer,
            Err(error) => return self.not_trained(error),
        };
        self.state.pending = None;
        self.state.revision = answer.revision;
        self.state.steps.push(Step { step: self.state.step() + 1, reward: pending.reward, revision: answer.revision });
        self.store.save(&self.state)?;
        self.at_limit = training::is_at_limit(&answer);
        self.report.trained(&self.state, &pending, &answer, started.elapsed().as_secs_f64())
    }

    /// Samples that the server no longer knows are drawn again; anything else ends the run, with the step kept for the next time, unless it
    /// is sure that it cannot be trained any more.
    fn not_trained(&mut self, error: Error) -> Result<(), Failure> {
        let Error::Api { body, .. } = &error else { return Err(error.into()) };
        match body.code {
            ErrorCode::UnknownResponse => {
                output::say(&self.bar, "the samples of the last run are too old to be trained on: this step is sampled again");
                self.state.pending = None;
                self.store.save(&self.state)
            }
            ErrorCode::RevisionConflict => {
                self.state.pending = None;
                self.store.save(&self.state)?;
                Err(setup::moved_on(&self.model, self.state.revision, &body.message))
            }
            _ => Err(error.into()),
        }
    }

    /// Answers to the step's prompts, as a train request. Prompts with fewer than two rewards have nothing to be compared and are left out.
    async fn sample(&self) -> Result<Pending, Failure> {
        let started = Instant::now();
        let (step, args) = (self.state.step(), &self.args.sampling);
        let sampling = Sampling { samples: args.samples, temperature: args.temperature, max_tokens: args.max_tokens };
        let seed = |index: usize| random::mixed(&[args.seed, SAMPLES, u64::from(step), index as u64]);
        let prompts: Vec<_> =
            self.prompts(step).into_iter().enumerate().map(|(index, at)| (&self.setup.prompts[at], seed(index))).collect();
        let rollouts = self.rollouts();
        let judged = self.unless_stopped(rollouts.collect(Occasion { step, what: "sampling" }, sampling, &prompts)).await?;
        let skipped = judged.iter().flatten().filter(|answer| answer.reward.is_none()).count();
        let all: Vec<f64> = judged.iter().flatten().filter_map(|answer| answer.reward).collect();
        let group = |(judged, (prompt, _)): (Vec<Judged>, &(&setup::Prompt, u64))| {
            let rewarded = judged.into_iter().filter_map(|answer| Some((answer.response_id, answer.reward?)));
            let response = |(id, reward)| TrainedResponse { content: None, response_id: Some(id), reward };
            TrainGroup { messages: prompt.messages.clone(), responses: rewarded.map(response).collect() }
        };
        let batch: Vec<TrainGroup> = judged.into_iter().zip(&prompts).map(group).filter(|group| group.responses.len() > 1).collect();
        let Some(reward) = mean(&all).filter(|_| !batch.is_empty()) else {
            return Err(Failure::new(format!("step {}: no prompt has two responses with a reward", step + 1)));
        };
        let request = TrainRequest {
            batch: Some(batch),
            steps: self.args.optimizer_steps,
            // Nobody reads the scores after the step; they cost a third of it.
            evaluate: Some(false),
            seed: Some(random::mixed(&[args.seed, u64::from(step)])),
            if_revision: Some(self.state.revision),
            ..training::request(&self.model, &self.args.knobs)
        };
        Ok(Pending { request, reward, skipped, sampling_s: started.elapsed().as_secs_f64() })
    }

    /// Indices of the step's prompts: the file again and again, each time in another order.
    fn prompts(&self, step: u32) -> Vec<usize> {
        let (count, each) = (self.setup.prompts.len(), self.args.sampling.prompts_per_step as usize);
        let mut order = (usize::MAX, Vec::new());
        let at = |position: usize| {
            let epoch = position / count;
            if order.0 != epoch {
                order = (epoch, random::order(count, random::mixed(&[self.args.sampling.seed, ORDER, epoch as u64])));
            }
            order.1[position % count]
        };
        (step as usize * each..(step as usize + 1) * each).map(at).collect()
    }

    async fn finish(&mut self, resumed: u32) -> Result<(), Failure> {
        let kept = match self.state.best.filter(|best| self.keeps_best() && best.revision != self.state.revision) {
            Some(best) => Some(self.go_back(best).await?),
            None => None,
        };
        if resumed == self.state.step() && kept.is_none() {
            eprintln!("this run is done: a larger --steps lets it go on, --restart begins anew");
        }
        self.report.end(&self.model, &self.state, kept)
    }

    /// Makes the best revision the newest; returns where the run ended.
    async fn go_back(&mut self, best: best::Best) -> Result<u64, Failure> {
        let last = self.state.revision;
        self.state.revision = best::go_back(&self.client, &self.model, best.revision).await?;
        self.state.best = Some(best::Best { revision: self.state.revision, ..best });
        self.store.save(&self.state)?;
        Ok(last)
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}
