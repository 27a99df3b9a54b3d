//! Who asks: an API key on `/v1`, the web page's session on `/api` (and on `/v1` with the page's own header). Also how often they may.
//! Does not know what they ask for.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tiger_store::{AccountId, AccountRow, KeyId};
use tiger_wire::limits::{CSRF_HEADER, MAX_NAME_CHARS};
use tiger_wire::{ErrorCode, ErrorType};

use crate::app::App;
use crate::error::ApiError;
use crate::flight::Flight;
use crate::limits::Limits;

/// Name of the session's cookie.
pub const SESSION_COOKIE: &str = "tiger_session";

/// Whose limits count: a key, or an account's web page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// An API key.
    Key(KeyId),
    /// The web page of an account.
    Page(AccountId),
}

/// Counts requests.
pub struct Gate {
    requests: DefaultKeyedRateLimiter<Holder>,
    sign_ins: DefaultKeyedRateLimiter<String>,
    all_sign_ins: DefaultDirectRateLimiter,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// From the limits.
    pub fn new(limits: &Limits) -> Gate {
        let quota = |per_minute: u32| Quota::per_minute(NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN));
        Gate {
            requests: RateLimiter::keyed(quota(limits.requests_per_minute)),
            sign_ins: RateLimiter::keyed(quota(limits.sign_ins_per_minute)),
            all_sign_ins: RateLimiter::direct(quota(limits.sign_ins_per_minute_in_all)),
        }
    }

    /// Admits one more request of `holder`, or says when.
    fn request(&self, holder: Holder) -> Result<(), ApiError> {
        self.requests.check_key(&holder).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now());
            too_often("too many requests with this key", wait.as_secs() + 1)
        })
    }

    /// Admits one more attempt to sign in as `name`, or says when.
    pub fn sign_in(&self, name: &str) -> Result<(), ApiError> {
        let wait = |not_until: governor::NotUntil<_>| not_until.wait_time_from(DefaultClock::default().now()).as_secs() + 1;
        // No account has a longer name; what is remembered stays small.
        let name: String = name.chars().take(MAX_NAME_CHARS).flat_map(char::to_lowercase).collect();
        let by_name = self.sign_ins.check_key(&name);
        by_name.map_err(|not_until| too_often("too many attempts to sign in with this name", wait(not_until)))?;
        // Refused attempts of one name take nothing from the others.
        self.all_sign_ins.check().map_err(|not_until| too_often("too many attempts to sign in", wait(not_until)))
    }

    /// Forgets holders that have not asked for a while.
    pub fn prune(&self) {
        self.requests.retain_recent();
        self.sign_ins.retain_recent();
        self.requests.shrink_to_fit();
        self.sign_ins.shrink_to_fit();
    }
}

fn too_often(what: &str, seconds: u64) -> ApiError {
    ApiError::new(ErrorType::RateLimit, ErrorCode::RateLimited, format!("{what}; try again in {seconds} s")).retry_after(seconds)
}

/// The caller of a `/v1` endpoint. Its place among the key's requests is held until the answer's last byte.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Whose models.
    pub account: AccountId,
    /// The key; `None` for the account's web page.
    pub key: Option<KeyId>,
}

impl<S> FromRequestParts<S> for Caller
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Caller, ApiError> {
        let app = App::from_ref(state);
        let caller = match bearer(&parts.headers)? {
            Some(secret) => {
                let found = app.store().authenticate(secret).await?;
                let found = found.ok_or_else(|| {
                    unauthorized(ErrorCode::InvalidKey, "this API key is unknown or was revoked; make one in the Playground under ApiKeys")
                })?;
                Caller { account: found.account, key: Some(found.key) }
            }
            None => {
                let Some(account) = page_session(&app, &parts.headers).await? else { return Err(missing_key()) };
                check_csrf(&parts.headers)?;
                Caller { account: account.id, key: None }
            }
        };
        let holder = caller.key.map_or(Holder::Page(caller.account), Holder::Key);
        app.gate().request(holder)?;
        if let Some(flight) = parts.extensions.get::<Arc<Flight>>() {
            flight.hold(app.places().take(holder)?);
        }
        Ok(caller)
    }
}

fn missing_key() -> ApiError {
    unauthorized(
        ErrorCode::MissingKey,
        "no API key; send the header `Authorization: Bearer $TIGER_API_KEY` (keys are made in the Playground under ApiKeys, or with `tiger keys create`)",
    )
}

/// The secret of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match text.split_once(' ') {
        Some((scheme, secret)) if scheme.eq_ignore_ascii_case("bearer") && !secret.trim().is_empty() => Ok(Some(secret.trim())),
        _ => Err(missing_key()),
    }
}

fn unauthorized(code: ErrorCode, message: &str) -> ApiError {
    ApiError::new(ErrorType::Authentication, code, message)
}

/// The token of the session's cookie.
pub fn session_token(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == SESSION_COOKIE).map(|(_, token)| token).filter(|token| !token.is_empty())
}

/// Who is signed in, if anybody.
pub async fn page_session(app: &App, headers: &HeaderMap) -> Result<Option<AccountRow>, ApiError> {
    let Some(token) = session_token(headers) else { return Ok(None) };
    Ok(app.store().session(token).await?.map(|session| session.account))
}

/// The page's own calls carry a header that a form or a link of another site cannot.
pub fn check_csrf(headers: &HeaderMap) -> Result<(), ApiError> {
    if !headers.contains_key(CSRF_HEADER) {
        let message = format!("the header `{CSRF_HEADER}: 1` is missing; only the Playground's own pages may use its session");
        return Err(ApiError::new(ErrorType::Permission, ErrorCode::MissingCsrfHeader, message));
    }
    if is_from_elsewhere(headers) {
        let message = "this call comes from another site's page; only the Playground's own pages may use its session (a proxy in front must pass the header `Host` on as it came)";
        return Err(ApiError::new(ErrorType::Permission, ErrorCode::Forbidden, message));
    }
    Ok(())
}

/// Whether a browser says that another site's page, or one on another port of this host, made the call. Programs say nothing of it.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return true;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    !matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

/// The signed-in account of an `/api` call; calls that change something need the page's header.
#[derive(Debug, Clone)]
pub struct Page(pub AccountRow);

impl<S> FromRequestParts<S> for Page
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Page, ApiError> {
        let app = App::from_ref(state);
        let account = page_session(&app, &parts.headers).await?;
        let account = account.ok_or_else(|| unauthorized(ErrorCode::NoSession, "not signed in, or the session ended; sign in again"))?;
        if parts.method != Method::GET && parts.method != Method::HEAD {
            check_csrf(&parts.headers)?;
        }
        app.gate().request(Holder::Page(account.id))?;
        Ok(Page(account))
    }
}

/// The server's owner, signed in; anybody else is answered 403.
#[derive(Debug, Clone)]
pub struct Owner(pub AccountRow);

impl<S> FromRequestParts<S> for Owner
where
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Owner, ApiError> {
        let Page(account) = Page::from_request_parts(parts, state).await?;
        if account.owner {
            return Ok(Owner(account));
        }
        Err(ApiError::new(ErrorType::Permission, ErrorCode::Forbidden, "only the owner of this server may do this"))
    }
}
