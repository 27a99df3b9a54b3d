//! `/healthz`, `/readyz`, `/metrics`: for whoever runs the server. No key needed, nothing private in them.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tiger_wire::ErrorEnvelope;
use utoipa::ToSchema;

use crate::app::App;
use crate::error::ApiError;
use crate::metrics;

/// How the server is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, `ready`.
    #[schema(value_type = String)]
    status: &'static str,
}

/// The process lives.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "Always, while the process lives", body = Health)),
)]
pub async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// The server takes requests.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "It does", body = Health),
        (status = 503, description = "Starting or draining", body = ErrorEnvelope),
    ),
)]
pub async fn readyz(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    app.readiness()?;
    Ok(Json(Health { status: "ready" }))
}

/// Numbers for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "operation",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")),
)]
pub async fn metrics_text(State(app): State<App>) -> Response {
    let text = metrics::render(&app.engine().status());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
