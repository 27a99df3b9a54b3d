//! `/api/pulls`: base models from the hub, without the command line. The owner begins and stops them, everybody sees them.

use std::time::Instant;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use tiger_wire::{ErrorCode, ErrorEnvelope, ErrorType, PullInfo, PullRequest};

use crate::app::App;
use crate::auth::{Owner, Page};
use crate::bases::hub_repository;
use crate::error::{ApiError, ApiJson, quoted};
use crate::pulls::Pulls;

/// Downloads a base model; goes on where an earlier pull ended.
#[utoipa::path(
    post,
    path = "/api/pulls",
    operation_id = "begin_pull",
    tag = "pulls",
    request_body = PullRequest,
    responses(
        (status = 202, description = "It begins", body = PullInfo),
        (status = 200, description = "It goes on already", body = PullInfo),
        (status = 403, description = "Not the owner, or the page's header is missing", body = ErrorEnvelope),
        (status = 409, description = "The base is there already", body = ErrorEnvelope),
        (status = 422, description = "Neither a listed base nor a repository", body = ErrorEnvelope),
        (status = 429, description = "Too many pulls at once", body = ErrorEnvelope),
        (status = 503, description = "This server does not download", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn begin(
    State(app): State<App>,
    _owner: Owner,
    ApiJson(request): ApiJson<PullRequest>,
) -> Result<(StatusCode, Json<PullInfo>), ApiError> {
    let named = hub_repository(&request.model).ok_or_else(|| {
        let message =
            format!("{} is neither a listed base (Llama-3.1-8b, DeepSeek-R1-8b) nor a repository (owner/name)", quoted(&request.model));
        ApiError::invalid("model", message)
    })?;
    if app.bases().get(&named.1).is_some_and(|base| base.dir().is_some()) {
        let message = format!("the base {} is there already; GET /v1/models lists it", named.1);
        return Err(ApiError::new(ErrorType::Conflict, ErrorCode::Conflict, message).param("model"));
    }
    let (entry, fresh) = app.pulls().begin(&app, &request.model, named)?;
    Ok((if fresh { StatusCode::ACCEPTED } else { StatusCode::OK }, Json(entry.info(Instant::now()))))
}

/// The pulls since the server's start, newest first.
#[utoipa::path(
    get,
    path = "/api/pulls",
    operation_id = "list_pulls",
    tag = "pulls",
    responses(
        (status = 200, description = "The pulls", body = Vec<PullInfo>),
    ),
    security(("session" = [])),
)]
pub async fn list(State(app): State<App>, _page: Page) -> Json<Vec<PullInfo>> {
    let now = Instant::now();
    Json(app.pulls().all().iter().map(|entry| entry.info(now)).collect())
}

/// Stops a pull; what came stays, and the next one goes on from there.
#[utoipa::path(
    delete,
    path = "/api/pulls/{id}",
    operation_id = "stop_pull",
    tag = "pulls",
    params(("id" = String, Path, description = "Id of the list")),
    responses(
        (status = 200, description = "It is stopped, or had ended", body = PullInfo),
        (status = 403, description = "Not the owner, or the page's header is missing", body = ErrorEnvelope),
        (status = 404, description = "No such pull", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn stop(State(app): State<App>, _owner: Owner, Path(id): Path<String>) -> Result<Json<PullInfo>, ApiError> {
    let not_found = || ApiError::new(ErrorType::NotFound, ErrorCode::NotFound, format!("there is no pull {}", quoted(&id)));
    let entry = app.pulls().get(&id).ok_or_else(not_found)?;
    Pulls::stop(&entry);
    Ok(Json(entry.info(Instant::now())))
}
