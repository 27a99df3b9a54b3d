//! `/api/usage` and `/api/status`: what the account used, and what the server does now. Shows nobody else's numbers but sums.

use std::collections::HashMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::Deserialize;
use tiger_wire::{ErrorEnvelope, LoadedBase, StatusInfo, UsageSum};
use utoipa::IntoParams;

use super::keys::public_id;
use crate::app::App;
use crate::auth::Page;
use crate::error::ApiError;
use crate::limits::{USAGE_DAYS, USAGE_DAYS_DEFAULT};
use crate::metrics;

/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// How far back.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Days {
    /// Days, today (UTC) the last of them, 1..366. Default 30.
    #[param(minimum = 1, maximum = 366)]
    days: Option<u32>,
}

/// What the account used, by day, key, model and kind, newest day first.
#[utoipa::path(
    get,
    path = "/api/usage",
    operation_id = "get_usage",
    tag = "account",
    params(Days),
    responses(
        (status = 200, description = "The sums", body = Vec<UsageSum>),
        (status = 422, description = "`days` is invalid", body = ErrorEnvelope),
    ),
    security(("session" = [])),
)]
pub async fn usage(
    State(app): State<App>,
    Page(account): Page,
    query: Result<Query<Days>, QueryRejection>,
) -> Result<Json<Vec<UsageSum>>, ApiError> {
    let wrong = |problem: String| ApiError::invalid("days", format!("{problem}; `days` must be between 1 and {USAGE_DAYS}"));
    let Query(Days { days }) = query.map_err(|rejection| wrong(rejection.body_text()))?;
    let days = days.unwrap_or(USAGE_DAYS_DEFAULT);
    if days == 0 || days > USAGE_DAYS {
        return Err(wrong(format!("`days` is {days}")));
    }
    let since = app.store().now().await? - f64::from(days - 1) * DAY_S;
    let names: HashMap<_, _> = app.store().keys(account.id).await?.into_iter().map(|key| (key.id, key.name)).collect();
    let count = |value: i64| u64::try_from(value).unwrap_or(0);
    let sums = app.store().usage(account.id, since).await?.into_iter().map(|sum| UsageSum {
        day: sum.day,
        key: sum.key.map(public_id),
        key_name: sum.key.and_then(|key| names.get(&key).cloned()),
        model: sum.model,
        kind: sum.kind,
        requests: count(sum.requests),
        input_tokens: count(sum.input_tokens),
        output_tokens: count(sum.output_tokens),
        trained_tokens: count(sum.trained_tokens),
        duration: sum.duration,
    });
    Ok(Json(sums.collect()))
}

/// The server at this moment.
#[utoipa::path(
    get,
    path = "/api/status",
    operation_id = "get_status",
    tag = "account",
    responses(
        (status = 200, description = "Queue, memory and counts", body = StatusInfo),
    ),
    security(("session" = [])),
)]
pub async fn status(State(app): State<App>, _page: Page) -> Json<StatusInfo> {
    let status = app.engine().status();
    let count = |value: usize| value as u64;
    Json(StatusInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_s: app.uptime().as_secs_f64(),
        waiting: count(status.waiting),
        running: count(status.running),
        trainings: count(status.trainings),
        pages_used: count(status.pages_used),
        pages_total: count(status.pages_total),
        resident_bytes: metrics::resident_bytes(),
        bases: status.bases.iter().map(|(id, bytes)| LoadedBase { id: id.0.to_string(), bytes: *bytes }).collect(),
        loading: status.loading.iter().map(|id| id.0.to_string()).collect(),
        adapters: count(status.adapters),
        prompt_tokens: status.prompt_tokens,
        cached_tokens: status.cached_tokens,
        sampled_tokens: status.sampled_tokens,
        trained_tokens: status.trained_tokens,
    })
}
