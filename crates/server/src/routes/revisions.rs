//! `/v1/models/{id}/revisions` and `/v1/models/{id}/rollback`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use tiger_store::{Error as StoreError, RevisionRow};
use tiger_wire::{ErrorEnvelope, ModelInfo, RevisionInfo, RollbackRequest};
use utoipa::IntoParams;

use super::models::info_of_own;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, ApiJson};
use crate::limits::{REVISIONS, REVISIONS_AT_ONCE, REVISIONS_BYTES};
use crate::target::Target;

/// Which part of the list.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// At most so many revisions, 1..1000. Default 1000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// Only revisions before this one.
    before: Option<u64>,
}

/// Lists the latest revisions, newest first, with the numbers of their trainings.
///
/// A page may hold fewer than `limit` where trainings were large; the next one is `before` its last revision, and revision 0 is the last of all.
#[utoipa::path(
    get,
    path = "/v1/models/{id}/revisions",
    operation_id = "list_revisions",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name"), Page),
    responses(
        (status = 200, description = "The revisions", body = Vec<RevisionInfo>),
        (status = 403, description = "A base model has none", body = ErrorEnvelope),
        (status = 404, description = "No such model", body = ErrorEnvelope),
        (status = 422, description = "`limit` or `before` is invalid", body = ErrorEnvelope),
    ),
    security(("api_key" = [])),
)]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<RevisionInfo>>, ApiError> {
    let own = Target::find_own(&app, caller.account, &id, "trained, so it has no revisions").await?;
    let wrong =
        |problem: String| ApiError::invalid("query", format!("{problem}; the query may have `limit` and `before`, both whole numbers"));
    let Query(page) = page.map_err(|rejection| wrong(rejection.body_text()))?;
    let limit = page.limit.unwrap_or(REVISIONS);
    if limit == 0 || limit > REVISIONS {
        return Err(ApiError::invalid("limit", format!("`limit` is {limit}; it must be between 1 and {REVISIONS}")));
    }
    let mut before = page.before.map(|before| i64::try_from(before).unwrap_or(i64::MAX));
    let (mut revisions, mut bytes) = (Vec::new(), 0);
    while revisions.len() < limit as usize && bytes < REVISIONS_BYTES {
        let left = limit - u32::try_from(revisions.len()).unwrap_or(limit);
        let rows = app.store().revisions(own.row.key, left.min(REVISIONS_AT_ONCE), before).await?;
        let Some(last) = rows.last() else { break };
        before = Some(last.revision);
        bytes += rows.iter().map(|row| row.metrics.as_ref().map_or(0, |metrics| metrics.to_string().len())).sum::<usize>();
        revisions.extend(rows.into_iter().map(info));
    }
    Ok(Json(revisions))
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
    operation_id = "rollback_model",
    tag = "models",
    params(("id" = String, Path, description = "Id, or URL-encoded name")),
    request_body = RollbackRequest,
    responses(
        (status = 200, description = "The model as it is now", body = ModelInfo),
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
