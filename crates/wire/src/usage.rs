//! `/api/usage` and `/api/status`: what was used, and what the server does at this moment.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What was used on one day with one key and model for one purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UsageSum {
    /// `YYYY-MM-DD`, UTC.
    pub day: String,
    /// Id of the API key; none for the web page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_name: Option<String>,
    /// Id of the model.
    pub model: String,
    /// What was done: `generate`, `train`, `evaluate`.
    pub kind: String,
    /// Requests.
    pub requests: u64,
    /// Tokens of prompts.
    pub input_tokens: u64,
    /// Tokens sampled.
    pub output_tokens: u64,
    /// Tokens trained on.
    pub trained_tokens: u64,
    /// Seconds of work.
    pub duration: f64,
}

/// A base model in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadedBase {
    /// Its id.
    pub id: String,
    /// Bytes of its weights.
    pub bytes: u64,
}

/// The server at this moment; counts are since its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusInfo {
    /// The server's version.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: f64,
    /// Requests that wait for a place.
    pub waiting: u64,
    /// Responses that are being sampled.
    pub running: u64,
    /// Trainings that wait or run.
    pub trainings: u64,
    /// Pages of keys and values in use.
    pub pages_used: u64,
    /// Pages of keys and values.
    pub pages_total: u64,
    /// Bytes of the process in memory, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Bases in memory.
    pub bases: Vec<LoadedBase>,
    /// Ids of bases that are being loaded.
    pub loading: Vec<String>,
    /// Adapters in memory.
    pub adapters: u64,
    /// Prompt tokens computed.
    pub prompt_tokens: u64,
    /// Prompt tokens that were not computed again.
    pub cached_tokens: u64,
    /// Tokens sampled.
    pub sampled_tokens: u64,
    /// Tokens trained on.
    pub trained_tokens: u64,
}
