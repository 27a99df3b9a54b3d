//! Every route in one list, and the layers around all of them: request id, errors as JSON, panics, limits, the refusal while draining.

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use hyper::body::{Frame, SizeHint};
use tiger_wire::ErrorEnvelope;
use tiger_wire::limits::REQUEST_ID_HEADER;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::ApiError;
use crate::flight::Flight;
use crate::limits::REQUEST_ID_CHARS;
use crate::routes::openai as openai_routes;
use crate::routes::{
    account, accounts, adapter, adapters, chats, evaluate, generate, health, keys, models, pulls, revisions, train, usage,
};
use crate::{openai, openapi};

/// The routes with their document.
fn documented(app: &App) -> OpenApiRouter<App> {
    let limits = app.limits();
    let generate = OpenApiRouter::new()
        .routes(routes!(generate::generate_response))
        .routes(routes!(evaluate::evaluate))
        .routes(routes!(openai_routes::chat_completions))
        .routes(routes!(openai_routes::complete))
        .routes(routes!(openai_routes::respond_text))
        .layer(DefaultBodyLimit::max(limits.generate_body_bytes));
    let train = OpenApiRouter::new().routes(routes!(train::train)).layer(DefaultBodyLimit::max(limits.train_body_bytes));
    let chat = OpenApiRouter::new()
        .routes(routes!(chats::list, chats::create, chats::delete_all))
        .routes(routes!(chats::get, chats::update, chats::delete))
        .layer(DefaultBodyLimit::max(limits.chat_body_bytes));
    let adapter = OpenApiRouter::new().routes(routes!(adapters::import)).layer(DefaultBodyLimit::max(limits.adapter_body_bytes));
    let small = OpenApiRouter::new()
        .routes(routes!(models::list, models::create))
        .routes(routes!(models::get, models::patch, models::delete))
        .routes(routes!(openai_routes::list_models))
        .routes(routes!(openai_routes::get_model, openai_routes::delete_model))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::rollback))
        .routes(routes!(account::get_session, account::sign_in, account::sign_out))
        .routes(routes!(account::create_owner))
        .routes(routes!(account::change_password))
        .routes(routes!(accounts::list, accounts::accept_invitation))
        .routes(routes!(accounts::delete))
        .routes(routes!(accounts::invitations, accounts::create_invitation))
        .routes(routes!(accounts::withdraw))
        .routes(routes!(usage::usage))
        .routes(routes!(usage::status))
        .routes(routes!(adapter::download))
        .routes(routes!(pulls::begin, pulls::list))
        .routes(routes!(pulls::stop))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::revoke))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics_text))
        .layer(DefaultBodyLimit::max(limits.small_body_bytes));
    OpenApiRouter::with_openapi(openapi::head()).merge(generate).merge(train).merge(chat).merge(adapter).merge(small)
}

/// Everything that answers.
pub fn router(app: &App) -> Router {
    let (router, document) = documented(app).split_for_parts();
    let document = openapi::finish(&document).map(|document| Bytes::from(document.to_string()));
    let document = document.map_err(|error| ApiError::internal(format!("the OpenAPI document: {error}")));
    router
        .merge(crate::page::routes())
        .route("/openapi.json", get(move || async move { document.map(|text| ([(header::CONTENT_TYPE, "application/json")], text)) }))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(app.clone(), border))
        .with_state(app.clone())
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::internal(format!("a handler panicked: {}", text.unwrap_or("no message"))).into_response()
}

/// The outermost layer: names the request, refuses while draining, gives every error its one shape.
async fn border(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    let flight = Flight::begin(id.clone(), request.method().as_str(), &route, app.flights());
    let refused = app.is_draining() && (route.starts_with("/v1") || route.starts_with(openai::PREFIX) || request.method() != Method::GET);
    // HTTP/2 names the host in its request line; what is checked below is the header.
    if let (None, Some(host)) = (request.headers().get(header::HOST), request.uri().authority()) {
        let host = HeaderValue::from_str(host.as_str());
        request.headers_mut().extend(host.ok().map(|host| (header::HOST, host)));
    }
    let private = request.uri().path().starts_with("/api");
    let theirs = request.uri().path().starts_with(openai::PREFIX);
    request.extensions_mut().insert(Arc::clone(&flight));
    let response = if refused { ApiError::draining().into_response() } else { next.run(request).await };
    let mut response = shaped(response, &id, theirs);
    flight.answered(response.status().as_u16());
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static(REQUEST_ID_HEADER), value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if private {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response.map(|body| Body::new(Held { body, _flight: flight }))
}

/// An error in the contract's shape, or in OpenAI's under their paths, whoever made it.
fn shaped(mut response: Response, request_id: &str, theirs: bool) -> Response {
    let error = match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error,
        None if response.status().is_success() || response.headers().get(header::CONTENT_TYPE).is_some_and(|t| t == "application/json") => {
            return response;
        }
        None => match ApiError::of_status(response.status()) {
            Some(error) => error,
            None => return response,
        },
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let status = |status: u16| StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut shaped = if theirs {
        let (code, envelope) = openai::error(&error);
        (status(code), Json(envelope)).into_response()
    } else {
        (status(error.status()), Json(ErrorEnvelope { error: error.body(request_id) })).into_response()
    };
    if let Some(allow) = allow {
        shaped.headers_mut().insert(header::ALLOW, allow);
    }
    if let Some(seconds) = error.retry_after_s() {
        shaped.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    shaped
}

/// The client's own id where it is short and plain, else a fresh one.
fn request_id(headers: &HeaderMap) -> String {
    let sane = |id: &&str| {
        !id.is_empty() && id.len() <= REQUEST_ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let given = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok()).filter(sane);
    given.map_or_else(|| random_id("req"), str::to_owned)
}

/// `prefix_` and 16 characters that cannot be guessed.
pub fn random_id(prefix: &str) -> String {
    let mut bytes = [0; 12];
    if getrandom::fill(&mut bytes).is_err() {
        tracing::error!("the operating system gives no randomness");
    }
    format!("{prefix}_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).replace('-', "a").replace('_', "b"))
}

/// A body that keeps its request in flight until its last byte, or until the client is gone.
struct Held {
    body: Body,
    _flight: Arc<Flight>,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
