//! `/api/keys`: API keys of the signed-in account. A key is shown once, in the answer that makes it.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use tiger_store::{ApiKeyRow, KeyId};
use tiger_wire::{ApiKeyInfo, CreateKeyRequest, CreateKeyResponse, ErrorCode, ErrorEnvelope, ErrorType, RevokeKeyResponse};

use crate::app::App;
use crate::auth::Page;
use crate::error::{ApiError, ApiJson, quoted};

const PREFIX: &str = "key_";

/// A key's id as it is shown.
pub fn public_id(id: KeyId) -> String {
    format!("{PREFIX}{}", id.0)
}

fn info(row: ApiKeyRow) -> ApiKeyInfo {
    ApiKeyInfo { id: public_id(row.id), name: row.name, prefix: row.prefix, created: row.created, last_used: row.last_used }
}

/// Lists the keys that work, newest first.
#[utoipa::path(
    get,
    path = "/api/keys",
    operation_id = "list_keys",
    tag = "account",
    responses(
        (status = 200, description = "The keys", body = Vec<ApiKeyInfo>),
    ),
    security(("session" = [])),
)]
pub async fn list(State(app): State<App>, Page(account): Page) -> Result<Json<Vec<ApiKeyInfo>>, ApiError> {
    let rows = app.store().keys(account.id).await?;
    Ok(Json(rows.into_iter().filter(|row| row.revoked.is_none()).map(info).collect()))
}

/// Makes a key.
#[utoipa::path(
    post,
    path = "/api/keys",
    operation_id = "create_key",
    tag = "account",
    request_body = CreateKeyRequest,
    responses(
        (status = 201, description = "The key, shown once", body = CreateKeyResponse),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
        (status = 422, description = "The name is not acceptable", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn create(
    State(app): State<App>,
    Page(account): Page,
    ApiJson(request): ApiJson<CreateKeyRequest>,
) -> Result<(StatusCode, Json<CreateKeyResponse>), ApiError> {
    let made = app.store().create_key(account.id, &request.name).await?;
    Ok((StatusCode::CREATED, Json(CreateKeyResponse { key: made.secret, info: info(made.row) })))
}

/// Revokes a key; from the next request on it opens nothing.
#[utoipa::path(
    delete,
    path = "/api/keys/{id}",
    operation_id = "revoke_key",
    tag = "account",
    params(("id" = String, Path, description = "Id of the list")),
    responses(
        (status = 200, description = "It is gone", body = RevokeKeyResponse),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
        (status = 404, description = "No such key", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn revoke(State(app): State<App>, Page(account): Page, Path(id): Path<String>) -> Result<Json<RevokeKeyResponse>, ApiError> {
    let number = id.strip_prefix(PREFIX).and_then(|number| number.parse().ok());
    let not_found = || ApiError::new(ErrorType::NotFound, ErrorCode::NotFound, format!("there is no API key {}", quoted(&id)));
    app.store().revoke_key(account.id, KeyId(number.ok_or_else(not_found)?)).await?;
    Ok(Json(RevokeKeyResponse { id, message: "key has been revoked".to_owned() }))
}
