//! `/api/accounts` and `/api/invitations`: who may use this server. For its owner, but for the acceptance of an invitation.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tiger_store::{AccountId, InvitationId};
use tiger_wire::{
    AcceptInvitationRequest, AccountInfo, DeletedResponse, ErrorCode, ErrorEnvelope, ErrorType, InvitationInfo, InvitationResponse,
    SessionInfo,
};

use super::account::begin;
use crate::app::App;
use crate::auth::{Owner, check_csrf};
use crate::error::{ApiError, ApiJson, quoted};
use crate::limits::INVITATION_DAYS;

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;
const ACCOUNT: &str = "acct_";
const INVITATION: &str = "inv_";

/// The number of a public id.
fn number(id: &str, prefix: &str, what: &str) -> Result<i64, ApiError> {
    let number = id.strip_prefix(prefix).and_then(|number| number.parse().ok());
    number.ok_or_else(|| ApiError::new(ErrorType::NotFound, ErrorCode::NotFound, format!("there is no {what} {}", quoted(id))))
}

/// Lists accounts, oldest first.
#[utoipa::path(
    get,
    path = "/api/accounts",
    operation_id = "list_accounts",
    tag = "account",
    responses(
        (status = 200, description = "The accounts", body = Vec<AccountInfo>),
        (status = 403, description = "Not the owner", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn list(State(app): State<App>, _owner: Owner) -> Result<Json<Vec<AccountInfo>>, ApiError> {
    let rows = app.store().accounts().await?.into_iter();
    let info = |row: tiger_store::AccountRow| AccountInfo {
        id: format!("{ACCOUNT}{}", row.id.0),
        name: row.name,
        owner: row.owner,
        created: row.created,
    };
    Ok(Json(rows.map(info).collect()))
}

/// Deletes an account with everything that is its own.
#[utoipa::path(
    delete,
    path = "/api/accounts/{id}",
    operation_id = "delete_account",
    tag = "account",
    params(("id" = String, Path, description = "Id of the list")),
    responses(
        (status = 200, description = "It is gone, with its sessions, keys, models and chats", body = DeletedResponse),
        (status = 403, description = "Not the owner, or the page's header is missing", body = ErrorEnvelope),
        (status = 404, description = "No such account", body = ErrorEnvelope),
        (status = 409, description = "The owner's own account", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn delete(State(app): State<App>, _owner: Owner, Path(id): Path<String>) -> Result<Json<DeletedResponse>, ApiError> {
    app.store().delete_account(AccountId(number(&id, ACCOUNT, "account")?)).await?;
    Ok(Json(DeletedResponse { id, message: "account has been deleted".to_owned() }))
}

/// Makes an invitation for one new account.
#[utoipa::path(
    post,
    path = "/api/invitations",
    tag = "account",
    responses(
        (status = 201, description = "The invitation, shown once", body = InvitationResponse),
        (status = 403, description = "Not the owner, or the page's header is missing", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn create_invitation(State(app): State<App>, Owner(owner): Owner) -> Result<(StatusCode, Json<InvitationResponse>), ApiError> {
    let made = app.store().create_invitation(owner.id, INVITATION_DAYS * DAY_S).await?;
    Ok((StatusCode::CREATED, Json(InvitationResponse { invitation: made.token, expires: made.expires })))
}

/// Lists invitations that can still be used, newest first.
#[utoipa::path(
    get,
    path = "/api/invitations",
    operation_id = "list_invitations",
    tag = "account",
    responses(
        (status = 200, description = "The invitations, without their tokens", body = Vec<InvitationInfo>),
        (status = 403, description = "Not the owner", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn invitations(State(app): State<App>, _owner: Owner) -> Result<Json<Vec<InvitationInfo>>, ApiError> {
    let rows = app.store().invitations().await?.into_iter();
    let info = |row: tiger_store::InvitationRow| InvitationInfo {
        id: format!("{INVITATION}{}", row.id.0),
        created: row.created,
        expires: row.expires,
    };
    Ok(Json(rows.map(info).collect()))
}

/// Withdraws an invitation.
#[utoipa::path(
    delete,
    path = "/api/invitations/{id}",
    operation_id = "withdraw_invitation",
    tag = "account",
    params(("id" = String, Path, description = "Id of the list")),
    responses(
        (status = 200, description = "It opens nothing any more", body = DeletedResponse),
        (status = 403, description = "Not the owner, or the page's header is missing", body = ErrorEnvelope),
        (status = 404, description = "No such invitation, or it was used", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn withdraw(State(app): State<App>, _owner: Owner, Path(id): Path<String>) -> Result<Json<DeletedResponse>, ApiError> {
    app.store().withdraw_invitation(InvitationId(number(&id, INVITATION, "invitation")?)).await?;
    Ok(Json(DeletedResponse { id, message: "invitation has been withdrawn".to_owned() }))
}

/// Makes an account with an invitation, and signs in.
#[utoipa::path(
    post,
    path = "/api/accounts",
    tag = "account",
    request_body = AcceptInvitationRequest,
    responses(
        (status = 201, description = "Signed in", body = SessionInfo),
        (status = 403, description = "The invitation is not good, or the page's header is missing", body = ErrorEnvelope),
        (status = 409, description = "The name is taken", body = ErrorEnvelope),
        (status = 422, description = "Name or password is not acceptable", body = ErrorEnvelope),
        (status = 429, description = "Too many attempts", body = ErrorEnvelope),
    ),
)]
pub async fn accept_invitation(
    State(app): State<App>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<AcceptInvitationRequest>,
) -> Result<Response, ApiError> {
    check_csrf(&headers)?;
    app.gate().sign_in("")?;
    let account = app.store().accept_invitation(&request.invitation, &request.name, &request.password).await?;
    begin(&app, account, StatusCode::CREATED).await
}
