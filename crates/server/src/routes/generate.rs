//! `POST /v1/generate_response`.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use tiger_wire::{ErrorCode, ErrorEnvelope, ErrorType, GenerateRequest, GenerateResponse, StopChunk};

use super::InFlight;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiJson};
use crate::generation::Plan;
use crate::stream::{Framing, respond};

/// Generates one or several responses to a conversation.
///
/// With `stream` the answer is one JSON object a line: `info`, `delta`, and one last `stop` or `error`.
#[utoipa::path(
    post,
    path = "/v1/generate_response",
    tag = "generate",
    request_body = GenerateRequest,
    responses(
        (status = 200, description = "The response; with `stream`, chunks", content(
            (GenerateResponse = "application/json"), (tiger_wire::Chunk = "application/x-ndjson"), (tiger_wire::Chunk = "text/event-stream"),
        )),
        (status = 404, description = "No such model", body = ErrorEnvelope),
        (status = 422, description = "A field is invalid; `param` names it", body = ErrorEnvelope),
        (status = 503, description = "Starting, draining, or the model's weights are not here", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn generate_response(
    State(app): State<App>,
    caller: Caller,
    Extension(flight): InFlight,
    headers: HeaderMap,
    ApiJson(request): ApiJson<GenerateRequest>,
) -> Result<Response, ApiError> {
    let (streamed, started) = (request.stream, flight.started());
    let plan = Plan::check(&app, caller, started, request).await?;
    if !streamed {
        let limit = app.limits().request_time;
        let work = async { plan.start(&app, None).await?.finish(&app, None).await?.response() };
        let answer = tokio::time::timeout(limit, work).await.map_err(|_| too_long(limit.as_secs()))??;
        return Ok(Json(answer).into_response());
    }
    let (framing, request_id, cut) = (Framing::of(&headers), flight.request_id.clone(), app.cut_signal());
    // What can be refused at once is refused with its status; only what must wait is refused within the stream.
    let early = if plan.is_quick() { Ok(plan.start(&app, None).await?) } else { Err(plan) };
    Ok(respond(framing, request_id, cut, move |sink| async move {
        let run = match early {
            Ok(run) => run,
            Err(plan) => plan.start(&app, Some(&sink)).await?,
        };
        let finished = run.finish(&app, Some(&sink)).await?;
        Ok(StopChunk::Generate(finished.stop()?))
    }))
}

/// An answer that is not streamed took too long.
pub fn too_long(seconds: u64) -> ApiError {
    let message = format!("there was no answer within {seconds} s; use `\"stream\": true` for long work");
    ApiError::new(ErrorType::Timeout, ErrorCode::RequestTimeout, message)
}
