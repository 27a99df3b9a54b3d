//! `/api/pulls`: base models on their way to this machine.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Downloads a base model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullRequest {
    /// A listed base (`Llama-3.1-8b`) or a hub repository (`owner/name`).
    pub model: String,
}

/// Where a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PullState {
    /// Bytes come.
    Running,
    /// Everything is there and is read once.
    Checking,
    /// The model is in the list.
    Done,
    /// It ended with `error`; what came stays, and the next pull goes on from there.
    Failed,
    /// Somebody stopped it; what came stays, and the next pull goes on from there.
    Stopped,
}

/// One pull.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PullInfo {
    /// Id that the model will have.
    pub id: String,
    /// What was asked for.
    pub model: String,
    /// Where it is.
    pub state: PullState,
    /// Bytes that are here.
    pub bytes: u64,
    /// Bytes in all; 0 until it is known.
    pub total_bytes: u64,
    /// Bytes a second, over the last seconds.
    pub bytes_per_s: f64,
    /// Seconds left at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<f64>,
    /// Why it failed, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Unix seconds.
    pub started: f64,
}
