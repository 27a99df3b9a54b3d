//! Numbers for Prometheus. No label names a user, a key or a private model.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tiger_engine::Status;

const HTTP_DURATION: &str = "tiger_http_request_duration_seconds";
const FIRST_TOKEN: &str = "tiger_time_to_first_token_seconds";
const PER_TOKEN: &str = "tiger_time_per_output_token_seconds";
const TOKENS: &str = "tiger_tokens_total";
const TRAININGS: &str = "tiger_trainings_total";

/// Upper bounds in seconds: from a cached answer to a long training.
const DURATIONS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];
/// Upper bounds in seconds of one token.
const TOKEN_TIMES: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Installs the recorder once for the process.
pub fn install() {
    HANDLE.get_or_init(|| {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Full(HTTP_DURATION.to_owned()), &DURATIONS);
        let builder = builder.and_then(|b| b.set_buckets_for_metric(Matcher::Full(FIRST_TOKEN.to_owned()), &DURATIONS));
        let builder = builder.and_then(|b| b.set_buckets_for_metric(Matcher::Full(PER_TOKEN.to_owned()), &TOKEN_TIMES));
        let recorder = builder.ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        Some(handle)
    });
}

/// Drops old samples; to be called every few seconds.
pub fn upkeep() {
    if let Some(Some(handle)) = HANDLE.get() {
        handle.run_upkeep();
    }
}

/// The text of `/metrics`, with the engine's numbers of this moment.
pub fn render(status: &Status) -> String {
    metrics::gauge!("tiger_queue_requests").set(status.waiting as f64);
    metrics::gauge!("tiger_running_sequences").set(status.running as f64);
    metrics::gauge!("tiger_trainings_in_engine").set(status.trainings as f64);
    metrics::gauge!("tiger_kv_pages_used").set(status.pages_used as f64);
    metrics::gauge!("tiger_kv_pages").set(status.pages_total as f64);
    metrics::gauge!("tiger_adapters_loaded").set(status.adapters as f64);
    metrics::gauge!("tiger_bases_loaded").set(status.bases.len() as f64);
    metrics::gauge!("tiger_base_bytes").set(status.bases.iter().map(|base| base.1).sum::<u64>() as f64);
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    for (kind, count) in [
        ("prompt", status.prompt_tokens),
        ("cached", status.cached_tokens),
        ("sampled", status.sampled_tokens),
        ("trained", status.trained_tokens),
        ("drafted", status.drafted_tokens),
        ("accepted", status.accepted_tokens),
    ] {
        metrics::counter!(TOKENS, "kind" => kind).absolute(count);
    }
    HANDLE.get().and_then(Option::as_ref).map(PrometheusHandle::render).unwrap_or_default()
}

/// Bytes of this process in memory, where the system tells.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// A request ended.
pub fn request(route: &str, method: &str, status: u16, duration: Duration) {
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::histogram!(HTTP_DURATION, &labels).record(duration.as_secs_f64());
}

/// The first token of a request came.
pub fn first_token(after: Duration) {
    metrics::histogram!(FIRST_TOKEN).record(after.as_secs_f64());
}

/// A response ended: time per token after the first.
pub fn per_token(seconds: f64) {
    metrics::histogram!(PER_TOKEN).record(seconds);
}

/// A training ended: `updated`, `unchanged` or `failed`.
pub fn training(outcome: &'static str) {
    metrics::counter!(TRAININGS, "outcome" => outcome).increment(1);
}
