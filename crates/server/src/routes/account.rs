//! `/api/session`, `/api/password`, `/api/owner`: who is signed in. API keys open none of it.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};
use tiger_store::{AccountRow, SESSION_TTL_S};
use tiger_wire::{
    ChangePasswordRequest, CreateOwnerRequest, ErrorCode, ErrorEnvelope, ErrorType, SessionInfo, SignInRequest, SignOutResponse,
};

use crate::app::App;
use crate::auth::{Page, SESSION_COOKIE, check_csrf, page_session, session_token};
use crate::error::{ApiError, ApiJson};

async fn info(app: &App, account: Option<AccountRow>) -> Result<SessionInfo, ApiError> {
    let needs_owner = !app.store().has_owner().await?;
    Ok(SessionInfo {
        signed_in: account.is_some(),
        owner: account.as_ref().is_some_and(|account| account.owner),
        name: account.map(|account| account.name),
        needs_owner,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Begins a session: the answer with its cookie.
pub(super) async fn begin(app: &App, account: AccountRow, status: StatusCode) -> Result<Response, ApiError> {
    let token = app.store().create_session(account.id, SESSION_TTL_S).await?;
    let mut response = (status, Json(info(app, Some(account)).await?)).into_response();
    set_cookie(app, &mut response, &token, SESSION_TTL_S as u64)?;
    Ok(response)
}

fn set_cookie(app: &App, response: &mut Response, token: &str, max_age_s: u64) -> Result<(), ApiError> {
    let secure = if app.config().secure_cookies { "; Secure" } else { "" };
    let cookie = format!("{SESSION_COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}");
    let value = HeaderValue::from_str(&cookie).map_err(ApiError::internal)?;
    response.headers_mut().append(header::SET_COOKIE, value);
    Ok(())
}

/// Who is signed in.
#[utoipa::path(
    get,
    path = "/api/session",
    tag = "account",
    responses((status = 200, description = "Who is signed in, if anybody", body = SessionInfo)),
)]
pub async fn get_session(State(app): State<App>, headers: HeaderMap) -> Result<Json<SessionInfo>, ApiError> {
    let account = page_session(&app, &headers).await?;
    Ok(Json(info(&app, account).await?))
}

/// Signs in with name and password.
#[utoipa::path(
    post,
    path = "/api/session",
    tag = "account",
    request_body = SignInRequest,
    responses(
        (status = 200, description = "Signed in; the session is in the cookie", body = SessionInfo),
        (status = 401, description = "Name or password is wrong", body = ErrorEnvelope),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
        (status = 429, description = "Too many attempts", body = ErrorEnvelope),
    ),
)]
pub async fn sign_in(State(app): State<App>, headers: HeaderMap, ApiJson(request): ApiJson<SignInRequest>) -> Result<Response, ApiError> {
    check_csrf(&headers)?;
    app.gate().sign_in(&request.name)?;
    let account = app.store().verify_password(&request.name, &request.password).await?;
    let wrong = || ApiError::new(ErrorType::Authentication, ErrorCode::InvalidCredentials, "the name or the password is wrong");
    begin(&app, account.ok_or_else(wrong)?, StatusCode::OK).await
}

/// Signs out.
#[utoipa::path(
    delete,
    path = "/api/session",
    tag = "account",
    responses(
        (status = 200, description = "Signed out", body = SignOutResponse),
        (status = 403, description = "The page's header is missing", body = ErrorEnvelope),
    ),
)]
pub async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response, ApiError> {
    check_csrf(&headers)?;
    if let Some(token) = session_token(&headers) {
        app.store().revoke_session(token).await?;
    }
    let mut response = Json(SignOutResponse { message: "signed out".to_owned() }).into_response();
    set_cookie(&app, &mut response, "", 0)?;
    Ok(response)
}

/// Creates the owner's account with the one-time token that the server printed, and signs in.
#[utoipa::path(
    post,
    path = "/api/owner",
    tag = "account",
    request_body = CreateOwnerRequest,
    responses(
        (status = 201, description = "Signed in as the owner", body = SessionInfo),
        (status = 403, description = "The token is wrong, or the page's header is missing", body = ErrorEnvelope),
        (status = 409, description = "There is an owner already", body = ErrorEnvelope),
        (status = 422, description = "Name or password is not acceptable", body = ErrorEnvelope),
        (status = 429, description = "Too many attempts", body = ErrorEnvelope),
    ),
)]
pub async fn create_owner(
    State(app): State<App>,
    headers: HeaderMap,
    ApiJson(request): ApiJson<CreateOwnerRequest>,
) -> Result<Response, ApiError> {
    check_csrf(&headers)?;
    app.gate().sign_in("")?;
    let Some(token) = app.setup_token() else { return Err(tiger_store::Error::OwnerExists.into()) };
    // Equal hashes, not equal bytes: the time of the comparison tells nothing of the token.
    if Sha256::digest(token) != Sha256::digest(&request.token) {
        let message = "this setup token is wrong; use the link that the server printed when it started";
        return Err(ApiError::new(ErrorType::Permission, ErrorCode::InvalidCredentials, message).param("token"));
    }
    let account = app.store().create_owner(&request.name, Some(&request.password)).await?;
    app.forget_setup_token();
    begin(&app, account, StatusCode::CREATED).await
}

/// Changes one's own password. Every other session of the account ends.
#[utoipa::path(
    put,
    path = "/api/password",
    tag = "account",
    request_body = ChangePasswordRequest,
    responses(
        (status = 200, description = "Changed; the new session is in the cookie", body = SessionInfo),
        (status = 403, description = "The current password is wrong, or the page's header is missing", body = ErrorEnvelope),
        (status = 422, description = "The new password is not acceptable", body = ErrorEnvelope),
        (status = 429, description = "Too many attempts", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn change_password(
    State(app): State<App>,
    Page(account): Page,
    ApiJson(request): ApiJson<ChangePasswordRequest>,
) -> Result<Response, ApiError> {
    app.gate().sign_in(&account.name)?;
    if app.store().verify_password(&account.name, &request.current).await?.is_none() {
        let error = ApiError::new(ErrorType::Permission, ErrorCode::InvalidCredentials, "the current password is wrong");
        return Err(error.param("current"));
    }
    app.store().set_password(account.id, &request.password).await?;
    begin(&app, account, StatusCode::OK).await
}
