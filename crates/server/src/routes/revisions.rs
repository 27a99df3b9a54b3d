//! `/v1/models/{id}/revisions` and `/v1/models/{id}/rollback`.

use axum::Json;
use axum::extract::{Path, State};
use tiger_store::{Error as StoreError, RevisionRow};
use tiger_wire::{ErrorEnvelope, ModelInfo, RevisionInfo, RollbackRequest};

use super::models::info_of_own;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiJson};
use crate::limits::REVISIONS;
use crate::target::Target;

/// Lists the latest revisions, newest first, with the numbers of their trainings.
#[utoipa::path(
    get,
    path = "/v1/models/{id}/revisions",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name")),
    responses(
        (status = 200, description = "The revisions", body = Vec<RevisionInfo>),
        (status = 401, description = "No key, or an unknown or revoked one", body = ErrorEnvelope),
        (status = 403, description = "A base model has none", body = ErrorEnvelope),
        (status = 404, description = "No such model", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn list(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Vec<RevisionInfo>>, ApiError> {
    let own = Target::find_own(&app, caller.account, &id, "trained, so it has no revisions").await?;
    let rows = app.store().revisions(own.row.key, REVISIONS, None).await?;
    Ok(Json(rows.into_iter().map(info).collect()))
}

fn info(row: RevisionRow) -> RevisionInfo {
    RevisionInfo {
        revision: u64::try_from(row.revision).unwrap_or(0),
        created: row.created,
        train_id: row.train.map(|train| format!("train_{}", train.0)),
        rolled_back_to: row.restored_from.and_then(|revision| u64::try_from(revision).ok()),
        available: row.blob_sha256.is_some(),
        metrics: row.metrics,
    }
}

/// Makes an earlier revision's weights the newest revision.
#[utoipa::path(
    post,
    path = "/v1/models/{id}/rollback",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name")),
    request_body = RollbackRequest,
    responses(
        (status = 200, description = "The model as it is now", body = ModelInfo),
        (status = 400, description = "The body is not JSON", body = ErrorEnvelope),
        (status = 401, description = "No key, or an unknown or revoked one", body = ErrorEnvelope),
        (status = 403, description = "A base model", body = ErrorEnvelope),
        (status = 404, description = "No such model", body = ErrorEnvelope),
        (status = 409, description = "That revision's weights are no longer kept", body = ErrorEnvelope),
        (status = 422, description = "No such revision", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn rollback(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    ApiJson(request): ApiJson<RollbackRequest>,
) -> Result<Json<ModelInfo>, ApiError> {
    let own = Target::find_own(&app, caller.account, &id, "rolled back").await?;
    let revision = i64::try_from(request.revision).unwrap_or(i64::MAX);
    let row = app.store().rollback(own.row.key, revision).await.map_err(|error| match error {
        StoreError::NotFound("the revision") => {
            let message = format!("{} has no revision {revision}; GET /v1/models/{}/revisions lists them", own.row.name, own.row.id);
            ApiError::invalid("revision", message)
        }
        other => other.into(),
    })?;
    Ok(Json(info_of_own(&app, &row)))
}
