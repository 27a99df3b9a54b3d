//! `POST /v1/models/{id}/evaluate`: checks the request and finds the two revisions.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use tiger_store::Error as StoreError;
use tiger_wire::limits::{EVALUATE_MAX_TOKENS, MAX_EVALUATE_PROMPTS, MAX_EVALUATE_SAMPLES, MAX_RESPONSES};
use tiger_wire::{Against, ErrorCode, ErrorEnvelope, ErrorType, EvaluateRequest, EvaluateResponse, EvaluateStop, StopChunk, StopReason};

use super::InFlight;
use super::generate::too_long;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiJson};
use crate::evaluation::Comparison;
use crate::generation::check_defaults;
use crate::prompt;
use crate::stream::{Framing, respond};
use crate::target::{Own, Target};

/// Compares a revision of one's own model with its parent or with another revision: sampled answers side by side, and log-probs.
///
/// With `stream` the answer is one JSON object a line: `info`, `progress`, and one last `stop` (with the fields of the answer) or `error`.
#[utoipa::path(
    post,
    path = "/v1/models/{id}/evaluate",
    operation_id = "evaluate_model",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name")),
    request_body = EvaluateRequest,
    responses(
        (status = 200, description = "The comparison; with `stream`, chunks", content(
            (EvaluateResponse = "application/json"), (tiger_wire::Chunk = "application/x-ndjson"), (tiger_wire::Chunk = "text/event-stream"),
        )),
        (status = 403, description = "A base model has nothing to be compared with", body = ErrorEnvelope),
        (status = 404, description = "No such model or revision", body = ErrorEnvelope),
        (status = 409, description = "That revision's weights are no longer kept", body = ErrorEnvelope),
        (status = 422, description = "A field is invalid; `param` names it", body = ErrorEnvelope),
        (status = 503, description = "Starting, draining, or the model's weights are not here", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn evaluate(
    State(app): State<App>,
    caller: Caller,
    Extension(flight): InFlight,
    Path(id): Path<String>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<EvaluateRequest>,
) -> Result<Response, ApiError> {
    let newest = Target::find_own(&app, caller.account, &id, "evaluated, for it has no parent to be compared with").await?;
    let samples = check(&app, &request)?;
    newest.base.facts()?;
    let revision = request.revision.map_or(Ok(newest.row.revision), i64::try_from);
    let against = match request.against.unwrap_or_default() {
        // The parent is kept as revision 0 of its copy.
        Against::Named(_) => Ok(0),
        Against::Revision(revision) => i64::try_from(revision),
    };
    let sides = [
        at(&app, &newest, revision.unwrap_or(i64::MAX), "revision").await?,
        at(&app, &newest, against.unwrap_or(i64::MAX), "against").await?,
    ];
    let own_max = newest.row.sampling.max_tokens.and_then(|max| u32::try_from(max).ok());
    let max_tokens = request.max_tokens.or(own_max).unwrap_or(EVALUATE_MAX_TOKENS);
    let streamed = request.stream;
    let comparison = Comparison { caller, started: flight.started(), sides, request, samples, max_tokens };
    if !streamed {
        let limit = app.limits().request_time;
        let work = async { comparison.encode(&app, None).await?.run(&app, None).await };
        let answer = tokio::time::timeout(limit, work).await.map_err(|_| too_long(limit.as_secs()))??;
        return Ok(Json(answer).into_response());
    }
    let (framing, request_id, cut) = (Framing::of(&headers), flight.request_id.clone(), app.cut_signal());
    // What can be refused at once is refused with its status.
    let early = if newest.base.front_is_loaded() { Ok(comparison.encode(&app, None).await?) } else { Err(comparison) };
    Ok(respond(framing, request_id, cut, move |sink| async move {
        let evaluation = match early {
            Ok(evaluation) => evaluation,
            Err(comparison) => comparison.encode(&app, Some(&sink)).await?,
        };
        let answer = evaluation.run(&app, Some(&sink)).await?;
        Ok(StopChunk::Evaluate(EvaluateStop { stop_reason: StopReason::EndTurn, answer }))
    }))
}

/// The model at one of its revisions, its weights pinned.
async fn at(app: &App, newest: &Own, revision: i64, param: &str) -> Result<Own, ApiError> {
    match app.store().pin_revision(newest.row.key, revision).await {
        Ok((row, pin)) => Ok(newest.at(&row, pin)),
        Err(StoreError::NotFound(_)) => {
            let message = format!(
                "{} has no revision {revision}; GET /v1/models/{}/revisions lists those that it has",
                newest.row.name, newest.row.id
            );
            Err(ApiError::new(ErrorType::NotFound, ErrorCode::NotFound, message).param(param))
        }
        Err(error) => Err(ApiError::from(error).param(param)),
    }
}

/// The number of samples, where everything that needs no tokenizer is right.
fn check(app: &App, request: &EvaluateRequest) -> Result<u32, ApiError> {
    check_defaults(request.temperature, request.top_p, request.top_k, request.max_tokens)?;
    let samples = request.samples.unwrap_or(1);
    if samples > MAX_EVALUATE_SAMPLES {
        return Err(ApiError::invalid("samples", format!("`samples` is {samples}; it must be between 0 and {MAX_EVALUATE_SAMPLES}")));
    }
    let prompts = &request.prompts;
    if prompts.is_empty() || prompts.len() > MAX_EVALUATE_PROMPTS {
        let message = format!("`prompts` has {}; it must have 1 to {MAX_EVALUATE_PROMPTS}", prompts.len());
        return Err(ApiError::invalid("prompts", message));
    }
    for (index, prompt) in prompts.iter().enumerate() {
        let messages = format!("prompts[{index}].messages");
        prompt::check_messages(&prompt.messages, &messages, app.limits().messages)?;
        prompt::check_ends_with_user(&prompt.messages, &messages)?;
        let responses = prompt.responses.as_deref().unwrap_or_default();
        let param = format!("prompts[{index}].responses");
        if responses.len() > MAX_RESPONSES {
            let message = format!("`{param}` has {} responses; at most {MAX_RESPONSES} are allowed", responses.len());
            return Err(ApiError::invalid(param, message));
        }
        if let Some(at) = responses.iter().position(String::is_empty) {
            return Err(ApiError::invalid(format!("{param}[{at}]"), "the response is empty; leave it out or give it text"));
        }
        if samples == 0 && responses.is_empty() {
            let message = format!("with `samples` 0 each prompt needs `responses` to score; `{param}` has none");
            return Err(ApiError::invalid(param, message));
        }
    }
    Ok(samples)
}
