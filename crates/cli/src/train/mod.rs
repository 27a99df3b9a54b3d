//! `tiger train`: data that is there already, epoch by epoch, with a bar; validation and early stop. Does not know how lines are read.

mod validation;

use std::time::Instant;

use indicatif::ProgressBar;
use tiger_client::Client;
use tiger_wire::{Objective, TrainGroup, TrainRequest, TrainResponse};

use crate::args::{Global, Train};
use crate::best::{self, Best};
use crate::data::{self, Example, Kind};
use crate::failure::Failure;
use crate::{home, output, random, training};

use validation::Validation;

/// What is trained, and what it is measured by.
struct Data {
    train: Vec<Example>,
    validation: Vec<Example>,
}

/// Reads all lines before the first training: a mistake in the last line must not leave half a run behind.
pub async fn run(global: &Global, args: Train) -> Result<(), Failure> {
    let client = home::client(global)?;
    let data = read(&args)?;
    let calls = data.train.len().div_ceil(args.batch as usize) as u64 * u64::from(args.epochs);
    let bar = output::bar(calls, "{bar:30} {pos}/{len} calls  {elapsed} elapsed, {eta} left  {wide_msg}");
    // A repeated call after a lost connection must not train twice.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let request = request(&args, &data.train);
    let run =
        Run { client, global, run_id: format!("{}-{now}", std::process::id()), args, data, request, bar, notes: output::Notes::default() };
    run.epochs().await
}

fn read(args: &Train) -> Result<Data, Failure> {
    let objective = args.knobs.objective.map(Objective::from);
    let all = data::examples(&args.file, &data::text(&args.file)?, objective)?;
    match (&args.validation, args.validation_share) {
        (Some(file), _) if *file == args.file => Err(Failure::new("--validation needs other lines than those that are trained")),
        (Some(file), _) => Ok(Data { train: all, validation: data::examples(file, &data::text(file)?, objective)? }),
        (None, Some(share)) => {
            let (train, validation) = data::cut(all, share, |example| &example.group.messages)?;
            Ok(Data { train, validation })
        }
        (None, None) => Ok(Data { train: all, validation: Vec::new() }),
    }
}

/// Demonstrations are imitated: their likelihood alone, with no pull back to the parent, unless the command line says otherwise.
fn request(args: &Train, examples: &[Example]) -> TrainRequest {
    let mut request = TrainRequest { steps: args.steps, dry_run: args.dry_run, ..training::request(&args.model, &args.knobs) };
    if examples.iter().all(|example| example.kind == Kind::Demonstration) {
        request.objective = request.objective.or(Some(Objective::Sft));
        request.kl_coefficient = request.kl_coefficient.or(Some(0.0));
    }
    request
}

struct Run<'a> {
    client: Client,
    global: &'a Global,
    run_id: String,
    args: Train,
    data: Data,
    request: TrainRequest,
    bar: ProgressBar,
    notes: output::Notes,
}

/// What has been done.
#[derive(Default)]
struct Done {
    calls: usize,
    updated: usize,
    tokens: u64,
    revision: u64,
    best: Option<Best>,
    epochs_without: u32,
}

impl Run<'_> {
    async fn epochs(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let mut done = Done::default();
        if !self.data.validation.is_empty() {
            done.revision = self.client.model(&self.args.model).await?.revision.unwrap_or(0);
            self.validate(0, &mut done).await?;
        }
        for epoch in 1..=self.args.epochs {
            self.epoch(epoch, &mut done).await?;
            if !self.data.validation.is_empty() {
                self.validate(epoch, &mut done).await?;
            }
            if self.args.patience.is_some_and(|patience| done.epochs_without >= patience) && epoch < self.args.epochs {
                let without = done.epochs_without;
                output::say(&self.bar, format!("stopped after epoch {epoch}: {without} without a lower validation loss"));
                break;
            }
        }
        self.bar.finish_and_clear();
        if !self.global.json {
            let Done { calls, updated, tokens, revision, .. } = done;
            let (model, seconds) = (&self.args.model, started.elapsed().as_secs_f64());
            println!("{model}: revision {revision}, {updated} of {calls} calls changed it, {tokens} tokens trained in {seconds:.1} s");
        }
        self.keep_best(&done).await
    }

    /// Without `--patience` the last revision is kept, as without validation.
    async fn keep_best(&self, done: &Done) -> Result<(), Failure> {
        let Some(best) = done.best.filter(|best| self.args.patience.is_some() && best.revision != done.revision) else { return Ok(()) };
        let now = best::go_back(&self.client, &self.args.model, best.revision).await?;
        let (loss, from) = (-best.score, best.revision);
        eprintln!("revision {from} had the lowest validation loss ({loss:.4}): the model has its weights again, as revision {now}");
        if self.global.json {
            output::json(&serde_json::json!({"rolled_back_to": from, "revision": now, "validation_loss": loss}))?;
        }
        Ok(())
    }

    async fn epoch(&self, epoch: u32, done: &mut Done) -> Result<(), Failure> {
        let order = random::order(self.data.train.len(), random::mixed(&[self.args.seed, u64::from(epoch)]));
        for (index, batch) in order.chunks(self.args.batch as usize).enumerate() {
            if let Some(best) = done.best.as_mut().filter(|best| self.args.patience.is_some() && best.is_old(done.revision)) {
                (best.revision, done.revision) = best::renew(&self.client, &self.args.model, best.revision, done.revision).await?;
            }
            let groups: Vec<TrainGroup> = batch.iter().map(|at| self.data.train[*at].group.clone()).collect();
            let request = TrainRequest { batch: Some(groups), ..self.request.clone() };
            let key = format!("{}-{epoch}-{index}", self.run_id);
            let answer = training::call(&self.client, &request, &key, &self.bar).await?;
            self.tell(&answer)?;
            done.calls += 1;
            done.updated += usize::from(answer.updated);
            done.tokens += answer.trained_tokens;
            done.revision = answer.revision;
        }
        Ok(())
    }

    fn tell(&self, answer: &TrainResponse) -> Result<(), Failure> {
        let bar = &self.bar;
        bar.inc(1);
        bar.set_message(format!("revision {}  reward {:.3}  loss {:.4}", answer.revision, answer.reward.mean, answer.metrics.loss));
        // One answer to a prompt is what a demonstration is.
        let expected = |warning: &str| self.request.objective == Some(Objective::Sft) && warning.starts_with("single_response_no_baseline");
        let notes = answer.warnings.iter().filter(|warning| !expected(warning));
        self.notes.say(bar, &format!("call {}", bar.position()), notes);
        if self.global.json {
            bar.suspend(|| output::json(answer))?;
        }
        Ok(())
    }

    async fn validate(&self, epoch: u32, done: &mut Done) -> Result<(), Failure> {
        let key = format!("{}-validation-{epoch}", self.run_id);
        let measured = Validation::measure(&self.client, &self.args.model, &self.data.validation, (&key, &self.bar)).await?;
        let when = if epoch == 0 { "before".to_owned() } else { format!("epoch {epoch}") };
        let pairs = measured.preferred.map_or_else(String::new, |share| format!(", chosen preferred in {:.1} % of pairs", 100.0 * share));
        output::say(&self.bar, format!("{when}: validation loss {:.4}{pairs}", measured.loss));
        if self.global.json {
            let line = serde_json::json!({"epoch": epoch, "validation_loss": measured.loss, "preferred": measured.preferred});
            self.bar.suspend(|| output::json(&line))?;
        }
        let score = -measured.loss;
        if done.best.is_none_or(|best| score > best.score) {
            (done.best, done.epochs_without) = (Some(Best { score, revision: done.revision }), 0);
        } else {
            done.epochs_without += 1;
        }
        Ok(())
    }
}
