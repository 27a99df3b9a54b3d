//! `POST /v1/train`: checks the request, turns it into tokens, takes a place in the model's line.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use tiger_store::{BeginTrain, Begun, ModelRow, NewSample, StoredAnswer, sha256_hex};
use tiger_wire::limits::{IDEMPOTENCY_KEY_HEADER, IDEMPOTENT_REPLAYED_HEADER, MAX_RESPONSES, MAX_TRAIN_STEPS};
use tiger_wire::{
    Baseline, ErrorCode, ErrorEnvelope, ErrorType, StopChunk, StopReason, TrainGroup, TrainRequest, TrainResponse, TrainStop,
    TrainedResponse,
};

use super::InFlight;
use super::generate::too_long;
use crate::app::App;
use crate::auth::Caller;
use crate::bases::Front;
use crate::error::{ApiError, ApiJson, quoted};
use crate::generation::{check_range, prompt_sha256, random_seed};
use crate::limits::{LEARNING_RATE, REWARD};
use crate::notes;
use crate::prompt;
use crate::stream::{ChunkSender, Framing, respond};
use crate::target::{Own, Target};
use crate::training::{self, Job, JobGroup, JobRecorded, JobResponse, Waiting};

/// Trains one's own model on responses with rewards: one new revision, or none.
///
/// With `stream` the answer is one JSON object a line: `info`, `progress`, and one last `stop` (with the fields of the answer) or `error`.
#[utoipa::path(
    post,
    path = "/v1/train",
    operation_id = "train_model",
    tag = "train",
    request_body = TrainRequest,
    params(("idempotency-key" = Option<String>, Header, description = "The same key with the same body is trained once")),
    responses(
        (status = 200, description = "The numbers of the training; with `stream`, chunks", content(
            (TrainResponse = "application/json"), (tiger_wire::Chunk = "application/x-ndjson"), (tiger_wire::Chunk = "text/event-stream"),
        )),
        (status = 403, description = "A base model", body = ErrorEnvelope),
        (status = 404, description = "No such model", body = ErrorEnvelope),
        (status = 409, description = "`if_revision` does not hold, or the same `Idempotency-Key` is being worked on", body = ErrorEnvelope),
        (status = 422, description = "A field is invalid; `param` names it", body = ErrorEnvelope),
        (status = 503, description = "Starting, draining, or the model's weights are not here", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn train(
    State(app): State<App>,
    caller: Caller,
    Extension(flight): InFlight,
    headers: HeaderMap,
    ApiJson(request): ApiJson<TrainRequest>,
) -> Result<Response, ApiError> {
    let own = Target::find_own(&app, caller.account, &request.model, "trained").await?;
    check_knobs(&request)?;
    let groups = groups(&app, &request)?;
    let task = Task { app, caller, own, idempotency_key: idempotency_key(&headers)?, request, groups, started: flight.started() };
    if !task.request.stream {
        let limit = task.app.limits().request_time;
        let work = async {
            match task.begin(None).await? {
                Start::Replay(answer) => Ok((*answer, true)),
                Start::Fresh(fresh) => Ok((task.run(fresh, None).await?, false)),
            }
        };
        let outcome: Result<(TrainResponse, bool), ApiError> =
            tokio::time::timeout(limit, work).await.map_err(|_| too_long(limit.as_secs()))?;
        let (answer, replayed) = outcome?;
        return Ok(mark_replay(Json(answer).into_response(), replayed));
    }
    let (framing, request_id, cut) = (Framing::of(&headers), flight.request_id.clone(), task.app.cut_signal());
    let early = if task.own.base.front_is_loaded() { Some(task.begin(None).await?) } else { None };
    let replayed = matches!(early, Some(Start::Replay(_)));
    let response = respond(framing, request_id, cut, move |sink| async move {
        let begun = match early {
            Some(begun) => begun,
            None => task.begin(Some(&sink)).await?,
        };
        let answer = match begun {
            Start::Replay(answer) => *answer,
            Start::Fresh(fresh) => task.run(fresh, Some(&sink)).await?,
        };
        Ok(StopChunk::Train(TrainStop { stop_reason: StopReason::EndTurn, answer }))
    });
    Ok(mark_replay(response, replayed))
}

fn mark_replay(mut response: Response, replayed: bool) -> Response {
    if replayed {
        response.headers_mut().insert(HeaderName::from_static(IDEMPOTENT_REPLAYED_HEADER), HeaderValue::from_static("true"));
    }
    response
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY_HEADER) else { return Ok(None) };
    let text = value.to_str().map_err(|_| ApiError::invalid("Idempotency-Key", "the header `Idempotency-Key` must be plain ASCII"))?;
    Ok(Some(text.to_owned()))
}

struct Task {
    app: App,
    caller: Caller,
    own: Box<Own>,
    idempotency_key: Option<String>,
    request: TrainRequest,
    groups: Vec<TrainGroup>,
    started: std::time::Instant,
}

enum Start {
    Replay(Box<TrainResponse>),
    Fresh(Box<Fresh>),
}

struct Fresh {
    ticket: tiger_store::Ticket,
    job: Job,
}

impl Task {
    /// Turns the request into tokens and takes a place in the line.
    async fn begin(&self, sink: Option<&ChunkSender>) -> Result<Start, ApiError> {
        let base = &self.own.base;
        if let (Some(sink), false) = (sink, base.front_is_loaded()) {
            sink.info("Loading tokenizer", None, "loading").await?;
        }
        let front = base.front().await?;
        let row = &self.own.row;
        let samples = resolve(&self.app, self.caller, row, (&self.groups, self.request.batch.is_some())).await?;
        let (groups, now) = (self.groups.clone(), self.app.config().clock.unix_s());
        let limits = Limits {
            context: base.facts()?.architecture.context_length,
            tokens: self.app.limits().train_tokens,
            batch: self.request.batch.is_some(),
        };
        let key = row.key;
        let warnings = notes::responses_cut(samples.iter().flatten().flatten()).into_iter().collect();
        let encoded = prompt::blocking(front, move |front| encode(front, &groups, samples, now, &limits, key)).await?;
        let seed = match self.request.seed {
            Some(seed) => seed,
            None => random_seed()?,
        };
        let knobs = TrainRequest { messages: None, responses: None, batch: None, stream: false, ..self.request.clone() };
        let job = Job { groups: encoded, knobs, seed, warnings };
        // The same request, streamed or not, is the same training.
        let canonical = serde_json::to_vec(&TrainRequest { stream: false, ..self.request.clone() }).map_err(ApiError::internal)?;
        let begin = BeginTrain {
            model: row.key,
            idempotency_key: self.idempotency_key.clone(),
            request_sha256: sha256_hex(&canonical),
            request: Some(serde_json::to_string(&job).map_err(ApiError::internal)?),
            if_revision: self.request.if_revision.map(|revision| i64::try_from(revision).unwrap_or(i64::MAX)),
        };
        match self.app.store().begin_train(begin).await? {
            Begun::Queued(ticket) => Ok(Start::Fresh(Box::new(Fresh { ticket, job }))),
            Begun::Replay(StoredAnswer { answer, .. }) => {
                Ok(Start::Replay(Box::new(serde_json::from_value(answer).map_err(ApiError::internal)?)))
            }
            Begun::InFlight => {
                let message = "a training with this Idempotency-Key waits or runs; ask again when it has ended";
                Err(ApiError::new(ErrorType::Conflict, ErrorCode::IdempotencyInFlight, message))
            }
            Begun::OtherRequest => {
                let message = "this Idempotency-Key was used for another request to this model; use a new one";
                Err(ApiError::refused(ErrorCode::IdempotencyMismatch, "Idempotency-Key", message))
            }
        }
    }

    async fn run(&self, fresh: Box<Fresh>, sink: Option<&ChunkSender>) -> Result<TrainResponse, ApiError> {
        let waiting = Waiting { caller: Some(self.caller), started: self.started, sink };
        training::run(&self.app, &fresh.ticket, &fresh.job, waiting).await
    }
}

fn check_knobs(request: &TrainRequest) -> Result<(), ApiError> {
    let big = 1e9;
    check_range("learning_rate", request.learning_rate, (0.0, LEARNING_RATE), true)?;
    check_range("target_kl", request.target_kl, (0.0, big), true)?;
    check_range("kl_coefficient", request.kl_coefficient, (0.0, big), false)?;
    check_range("kl_limit", request.kl_limit, (0.0, big), true)?;
    check_range("clip_high", request.clip_high, (1.0, big), false)?;
    check_range("negative_floor", request.negative_floor, (0.0, 1.0), true)?;
    check_range("max_grad_norm", request.max_grad_norm, (0.0, big), true)?;
    if let Some(Baseline::Value(value)) = request.baseline {
        check_range("baseline", Some(value), (-REWARD, REWARD), false)?;
    }
    match request.steps {
        Some(steps) if steps == 0 || steps > MAX_TRAIN_STEPS => {
            Err(ApiError::invalid("steps", format!("`steps` is {steps}; it must be between 1 and {MAX_TRAIN_STEPS}")))
        }
        _ => Ok(()),
    }
}

/// The groups of a request, checked.
fn groups(app: &App, request: &TrainRequest) -> Result<Vec<TrainGroup>, ApiError> {
    let groups = match (&request.messages, &request.responses, &request.batch) {
        (Some(messages), Some(responses), None) => vec![TrainGroup { messages: messages.clone(), responses: responses.clone() }],
        (None, None, Some(batch)) => batch.clone(),
        (_, _, Some(_)) => {
            return Err(ApiError::invalid("batch", "`batch` takes the place of `messages` and `responses`; send one or the other"));
        }
        (None, _, None) => return Err(ApiError::invalid("messages", "`messages` is missing")),
        (_, None, None) => return Err(ApiError::invalid("responses", "`responses` is missing")),
    };
    let (batch, limits) = (request.batch.is_some(), app.limits());
    if groups.is_empty() || groups.len() > limits.train_groups {
        return Err(ApiError::invalid("batch", format!("`batch` has {} groups; it must have 1 to {}", groups.len(), limits.train_groups)));
    }
    for (index, group) in groups.iter().enumerate() {
        let messages = path(batch, index, "messages");
        prompt::check_messages(&group.messages, &messages, limits.messages)?;
        prompt::check_ends_with_user(&group.messages, &messages)?;
        let responses = path(batch, index, "responses");
        if group.responses.is_empty() || group.responses.len() > MAX_RESPONSES {
            let message = format!("`{responses}` has {} responses; it must have 1 to {MAX_RESPONSES}", group.responses.len());
            return Err(ApiError::invalid(responses, message));
        }
        for (at, response) in group.responses.iter().enumerate() {
            check_response(response, &format!("{responses}[{at}]"))?;
        }
    }
    Ok(groups)
}

fn path(batch: bool, index: usize, field: &str) -> String {
    if batch { format!("batch[{index}].{field}") } else { field.to_owned() }
}

fn check_response(response: &TrainedResponse, path: &str) -> Result<(), ApiError> {
    check_range(&format!("{path}.reward"), Some(response.reward), (-REWARD, REWARD), false)?;
    match (&response.content, &response.response_id) {
        (Some(content), None) if content.is_empty() => {
            Err(ApiError::invalid(format!("{path}.content"), "the response is empty; leave it out or give it text"))
        }
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (Some(_), Some(_)) => Err(ApiError::invalid(path, "a response has either `content` or `response_id`, not both")),
        (None, None) => Err(ApiError::invalid(path, "a response needs `content` (a text) or `response_id` (from a generate answer)")),
    }
}

/// The recorded samples, group by group, `None` for texts.
type Resolved = Vec<Vec<Option<NewSample>>>;

async fn resolve(app: &App, caller: Caller, row: &ModelRow, (groups, batch): (&[TrainGroup], bool)) -> Result<Resolved, ApiError> {
    let mut resolved = Vec::with_capacity(groups.len());
    for (index, group) in groups.iter().enumerate() {
        let mut samples = Vec::with_capacity(group.responses.len());
        for (at, response) in group.responses.iter().enumerate() {
            let Some(id) = &response.response_id else {
                samples.push(None);
                continue;
            };
            let param = format!("{}[{at}].response_id", path(batch, index, "responses"));
            let found = match app.recorder()?.sample(caller.account, id) {
                Some(unwritten) => Some(unwritten),
                None => app.store().sample(caller.account, id).await?.map(|found| found.sample),
            };
            let Some(sample) = found else {
                let message =
                    format!("`{param}`: {} is unknown or older than 24 hours; generate again, or give the text as `content`", quoted(id));
                return Err(ApiError::refused(ErrorCode::UnknownResponse, param, message));
            };
            if sample.base_model != row.base_model {
                let message = format!(
                    "`{param}` was sampled from {}, this model is made from {}; give the text as `content`",
                    sample.base_model, row.base_model
                );
                return Err(ApiError::refused(ErrorCode::UnknownResponse, param, message));
            }
            samples.push(Some(sample));
        }
        resolved.push(samples);
    }
    Ok(resolved)
}

struct Limits {
    context: usize,
    tokens: usize,
    batch: bool,
}

fn encode(
    front: &Front,
    groups: &[TrainGroup],
    samples: Resolved,
    now: i64,
    limits: &Limits,
    model: tiger_store::ModelKey,
) -> Result<Vec<JobGroup>, ApiError> {
    let mut encoded = Vec::with_capacity(groups.len());
    let mut total = 0;
    for (index, (group, samples)) in groups.iter().zip(samples).enumerate() {
        let messages = path(limits.batch, index, "messages");
        let prompt = prompt::encode_prompt(front, &group.messages, now).map_err(|error| error.param(messages))?.tokens;
        let sha256 = prompt_sha256(&prompt);
        let mut responses = Vec::with_capacity(samples.len());
        for (at, (response, sample)) in group.responses.iter().zip(samples).enumerate() {
            let param = format!("{}[{at}]", path(limits.batch, index, "responses"));
            let (tokens, recorded) = match sample {
                Some(sample) => recorded(sample, &sha256, model, &param)?,
                None => {
                    let content = response.content.as_deref().unwrap_or_default();
                    let tokens =
                        prompt::encode_response(front, &group.messages, content, now).map_err(|error| error.param(param.as_str()))?;
                    (tokens, None)
                }
            };
            let length = prompt.len() + tokens.len();
            if length > limits.context {
                let message =
                    format!("`{param}`: messages and response have {length} tokens together; the model's context has {}", limits.context);
                return Err(ApiError::refused(ErrorCode::ContextLengthExceeded, param, message));
            }
            if tokens.is_empty() {
                return Err(ApiError::invalid(param.clone(), format!("`{param}` has no token to train on; leave it out")));
            }
            total += tokens.len();
            responses.push(JobResponse { tokens, reward: response.reward.to_bits(), recorded });
        }
        total += prompt.len();
        encoded.push(JobGroup { prompt, responses });
    }
    if total > limits.tokens {
        let message = format!("the request has {total} tokens; at most {} are trained in one call; split it", limits.tokens);
        return Err(ApiError::invalid(if limits.batch { "batch" } else { "responses" }, message));
    }
    Ok(encoded)
}

fn recorded(
    sample: NewSample,
    prompt: &str,
    model: tiger_store::ModelKey,
    param: &str,
) -> Result<(Vec<u32>, Option<JobRecorded>), ApiError> {
    if sample.prompt_sha256 != prompt {
        let message =
            format!("`{param}.response_id` was sampled for other messages; send the messages it answered, or give its text as `content`");
        return Err(ApiError::refused(ErrorCode::UnknownResponse, format!("{param}.response_id"), message));
    }
    let revision = training::same_model_revision(model, sample.model, sample.revision);
    let logprobs = sample.logprobs.iter().map(|logprob| logprob.to_bits()).collect();
    Ok((sample.tokens, Some(JobRecorded { logprobs, revision })))
}
