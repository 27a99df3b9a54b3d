//! One training from its place in the line to its committed revision: also again after a crash, from what the store kept of it.
//! Does not know HTTP nor text: a [`Job`] is in tokens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tiger_engine::{Group, Knobs, Outcome, Recorded, Response, TrainEvent, TrainRequest as EngineRequest};
use tiger_model::{Adapter, AdapterState};
use tiger_store::{Error as StoreError, Interrupted, ModelKey, Running, Ticket, UsageRecord};
use tiger_wire::{Chunk, ProgressChunk, StepMetricsOrEmpty, TrainRequest, TrainResponse, TrainUsage};

use crate::app::App;
use crate::auth::Caller;
use crate::bases::Base;
use crate::convert;
use crate::error::ApiError;
use crate::metrics;
use crate::notes;
use crate::stream::ChunkSender;

/// A third of the store's lease: two renewals may be late.
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// What is trained, in tokens; kept by the store until the training ends. Numbers that must come back exactly are kept as bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Groups of one step.
    pub groups: Vec<JobGroup>,
    /// The request without its texts: the knobs, as asked.
    pub knobs: TrainRequest,
    /// Seed of dropout, drawn where none was asked for.
    pub seed: u64,
    /// Things that the caller should know.
    pub warnings: Vec<String>,
}

/// A prompt and its responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobGroup {
    /// Not trained.
    pub prompt: Vec<u32>,
    /// At least one.
    pub responses: Vec<JobResponse>,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResponse {
    /// Trained.
    pub tokens: Vec<u32>,
    /// Bits of the f64.
    pub reward: u64,
    /// Of a `response_id`.
    pub recorded: Option<JobRecorded>,
}

/// What the sampler knew.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecorded {
    /// Bits of the f32s.
    pub logprobs: Vec<u32>,
    /// The revision of this very model that sampled it; `None` for its base or another model.
    pub revision: Option<i64>,
}

impl Job {
    fn groups(&self, revision: i64) -> Vec<Group> {
        let response = |response: &JobResponse| Response {
            tokens: response.tokens.clone(),
            reward: f64::from_bits(response.reward),
            recorded: response.recorded.as_ref().map(|recorded| Recorded {
                logprobs: recorded.logprobs.iter().map(|bits| f32::from_bits(*bits)).collect(),
                staleness: u64::try_from(revision - recorded.revision.unwrap_or(0)).unwrap_or(0),
            }),
        };
        let group = |group: &JobGroup| Group { prompt: group.prompt.clone(), responses: group.responses.iter().map(response).collect() };
        self.groups.iter().map(group).collect()
    }
}

/// Who waits for the training.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// Whose use it is; `None` after a restart.
    pub caller: Option<Caller>,
    /// When the request came.
    pub started: Instant,
    /// Where chunks go.
    pub sink: Option<&'a ChunkSender>,
}

/// Goes on with a training that a crash interrupted; nobody waits for it but a retry with its idempotency key.
pub async fn resume(app: App, interrupted: Interrupted) {
    let Interrupted { ticket, request, .. } = interrupted;
    let id = ticket.id.0;
    let job: Job = match serde_json::from_str(&request) {
        Ok(job) => job,
        Err(error) => {
            tracing::error!(training = id, %error, "an interrupted training could not be read and is given up");
            let _ = app.store().cancel_train(ticket.id).await;
            return;
        }
    };
    let waiting = Waiting { caller: None, started: Instant::now(), sink: None };
    match run(&app, &ticket, &job, waiting).await {
        Ok(answer) => tracing::info!(training = id, revision = answer.revision, "an interrupted training ended"),
        Err(error) => tracing::warn!(training = id, error = error.message(), "an interrupted training failed"),
    }
}

/// Waits for the model's turn, trains, commits.
pub async fn run(app: &App, ticket: &Ticket, job: &Job, waiting: Waiting<'_>) -> Result<TrainResponse, ApiError> {
    if let Some(sink) = waiting.sink {
        let before = app.store().queue_position(ticket).await?;
        if before > 0 {
            sink.info(format!("Waiting in line: {before} trainings of this model come first"), None, "waiting").await?;
        }
    }
    let running = app.store().start(ticket).await?;
    let outcome = attempt(app, &running, job, waiting).await;
    match outcome {
        Ok(outcome) => commit(app, running, outcome, job, waiting).await,
        Err(error) => {
            metrics::training("failed");
            // While the server stops, an interrupted training that nobody waits for stays to be tried again.
            if !(app.is_draining() && waiting.caller.is_none()) {
                let failed = app.store().fail_train(&running, error.message()).await;
                if let Err(error) = failed {
                    tracing::error!(training = running.id.0, %error, "the end of a training could not be written");
                }
            }
            Err(error)
        }
    }
}

async fn attempt(app: &App, running: &Running, job: &Job, waiting: Waiting<'_>) -> Result<Box<Outcome>, ApiError> {
    let row = &running.model;
    let base = app.bases().get(&row.base_model).ok_or_else(|| ApiError::internal(format!("base {} is gone", row.base_model)))?;
    let (state, reference) = load(app, &base, running).await?;
    let request = EngineRequest {
        base: base.engine_id(),
        account: u64::try_from(row.account.0).unwrap_or(0),
        state,
        reference,
        dropout: row.dropout as f32,
        groups: job.groups(row.revision),
        knobs: knobs(job, row.learning_rate, base.facts()?.architecture.hidden),
    };
    let mut training = app.engine().train(request)?;
    let mut renew = tokio::time::interval(RENEW_EVERY);
    renew.tick().await;
    loop {
        let event = tokio::select! {
            event = training.events.recv() => event,
            _ = renew.tick() => {
                app.store().renew_lease(running).await?;
                continue;
            }
        };
        match event {
            Some(TrainEvent::Done(outcome)) => return Ok(outcome),
            Some(TrainEvent::Failed(error)) => return Err(error.into()),
            Some(event) => tell(waiting.sink, event).await?,
            None => return Err(ApiError::internal("the engine ended a training without an end")),
        }
    }
}

async fn tell(sink: Option<&ChunkSender>, event: TrainEvent) -> Result<(), ApiError> {
    let Some(sink) = sink else { return Ok(()) };
    match event {
        TrainEvent::Info { message, progress } => {
            let stage = if message.starts_with("Loading") { "loading" } else { "waiting" };
            sink.info(message, progress, stage).await?;
        }
        TrainEvent::Progress { step, steps, metrics } => {
            let metrics =
                metrics.map_or(StepMetricsOrEmpty::Empty, |metrics| StepMetricsOrEmpty::Done(Box::new(convert::step_metrics(&metrics))));
            sink.send(Chunk::Progress(ProgressChunk { step, steps, metrics })).await?;
        }
        TrainEvent::Done(_) | TrainEvent::Failed(_) => {}
    }
    Ok(())
}

/// The weights to start from, and the parent's as they were at revision 0 (`None`: the bare base).
async fn load(app: &App, base: &Arc<Base>, running: &Running) -> Result<(AdapterState, Option<Arc<Adapter>>), ApiError> {
    let (store, row) = (app.store(), &running.model);
    let adapter = store.blob(&row.blob_sha256).await?;
    let reference = store.blob(&row.reference_sha256).await?;
    let optimizer = match &row.optimizer_sha256 {
        Some(sha256) => Some(store.blob(sha256).await?),
        None => None,
    };
    let facts = base.facts()?;
    let read = move || {
        let architecture = &facts.architecture;
        let adapter = Adapter::from_bytes(architecture, &adapter)?;
        let reference = Adapter::from_bytes(architecture, &reference)?;
        let reference = (!answers_as_base(&reference)).then(|| Arc::new(reference));
        let state = match optimizer {
            Some(optimizer) => AdapterState::from_parts(architecture, adapter, &optimizer)?,
            None => AdapterState::new(adapter),
        };
        Ok::<_, tiger_model::ModelError>((state, reference))
    };
    tokio::task::spawn_blocking(read).await.map_err(ApiError::internal)?.map_err(ApiError::internal)
}

/// Every B is zero: the adapter adds nothing to its base.
fn answers_as_base(adapter: &Adapter) -> bool {
    adapter.tensors().skip(1).step_by(2).all(|b| b.iter().all(|value| *value == 0.0))
}

fn knobs(job: &Job, own_learning_rate: Option<f64>, hidden: usize) -> Knobs {
    let default = own_learning_rate.unwrap_or_else(|| tiger_engine::train::default_learning_rate(hidden));
    convert::knobs(&job.knobs, default, job.seed)
}

/// Writes the end down. A commit goes on to its end also when its caller leaves meanwhile.
async fn commit(app: &App, running: Running, outcome: Box<Outcome>, job: &Job, waiting: Waiting<'_>) -> Result<TrainResponse, ApiError> {
    let Outcome { metrics: measured, state } = *outcome;
    let updated = state.is_some();
    let duration = waiting.started.elapsed().as_secs_f64();
    let revision = if updated { running.new_revision() } else { running.model.revision };
    let usage = TrainUsage {
        duration,
        input_tokens: measured.input_tokens as u64,
        trained_tokens: measured.trained_tokens as u64 * u64::from(measured.steps),
    };
    let mut answer = convert::train_response(&measured, usage);
    answer.id = format!("train_{}", running.id.0);
    answer.model = running.model.id.clone();
    answer.revision = u64::try_from(revision).unwrap_or(0);
    answer.updated = updated;
    answer.warnings.extend(job.warnings.iter().cloned());
    // A training is not lost because an earlier one cannot be read.
    if let Ok(Some(first)) = app.store().revision(running.model.key, 1).await {
        answer.warnings.extend(first.metrics.and_then(|first| notes::entropy_fell(&first, &answer)));
    }
    let value = serde_json::to_value(&answer).map_err(ApiError::internal)?;
    let (store, account, model) = (app.store().clone(), running.model.account, running.model.id.clone());
    let write = tokio::spawn(async move {
        let written = match state {
            None => store.finish_unchanged(&running, &value).await,
            Some(state) => {
                let bytes = tokio::task::spawn_blocking(move || (state.adapter.to_bytes(), state.optimizer_to_bytes())).await;
                let (adapter, optimizer) = bytes.map_err(|error| StoreError::Internal(error.to_string()))?;
                let outcome = tiger_store::Outcome {
                    adapter: Bytes::from(adapter),
                    optimizer: Bytes::from(optimizer),
                    metrics: value.clone(),
                    answer: value,
                };
                store.commit_train(&running, outcome).await.map(|_| ())
            }
        };
        if let Err(error) = &written {
            let _ = store.fail_train(&running, &error.to_string()).await;
        }
        written
    });
    let written = write.await.map_err(ApiError::internal)?;
    metrics::training(match (&written, updated) {
        (Err(_), _) => "failed",
        (_, true) => "updated",
        (_, false) => "unchanged",
    });
    written?;
    app.recorder()?.usage(UsageRecord {
        account,
        key: waiting.caller.and_then(|caller| caller.key),
        model,
        kind: "train".to_owned(),
        input_tokens: i64::try_from(answer.usage.input_tokens).unwrap_or(i64::MAX),
        output_tokens: 0,
        trained_tokens: i64::try_from(answer.usage.trained_tokens).unwrap_or(i64::MAX),
        duration,
    });
    Ok(answer)
}

/// The revision of `model` that made a sample of `sampler`, where they are the same model.
pub fn same_model_revision(model: ModelKey, sampler: Option<ModelKey>, revision: Option<i64>) -> Option<i64> {
    if sampler == Some(model) { revision } else { None }
}
