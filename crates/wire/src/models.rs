//! `/v1/models`: what a model is to a client, making, changing, deleting and rolling back.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{given, is_false, null_as_default};

/// Whether a model can answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelStatus {
    /// It answers (its weights may still have to be read first).
    Ready,
    /// Its weights are being read.
    Loading,
    /// Its weights are not on this machine.
    NotDownloaded,
    /// It is being trained; it answers meanwhile with its old revision.
    Training,
}

/// A model as the list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelInfo {
    /// Name, as given.
    pub name: String,
    /// Id for paths and requests.
    pub id: String,
    /// What it is for.
    pub description: String,
    /// Base models cannot be trained, changed or deleted.
    pub read_only: bool,
    /// Name of the model it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_model: Option<String>,
    /// Number of trainings so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Time of the latest training, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<f64>,
    /// The one selected at start-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_model: Option<bool>,
    /// Default of requests that leave it out.
    pub temperature: f64,
    /// Default of requests that leave it out.
    pub top_p: f64,
    /// Default of requests that leave it out; 0 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Most tokens of a response that does not ask for a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Tokens of prompt and response together; absent while the weights are not on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
    /// Name of the read-only model at its root.
    pub base_model: String,
    /// LoRA rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// LoRA alpha.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Dropout while training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Learning rate of train calls that leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Whether it can answer now.
    pub status: ModelStatus,
    /// Parameters of the base model; absent while the weights are not on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    /// Bytes on the disk: the checkpoint of a base, the learnt weights of one's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<f64>,
}

/// Makes a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "pirate", "description": "Talks like a pirate", "parent_model": "tiger-nano"}))]
pub struct CreateModelRequest {
    /// Unique within the account, 1..64 characters, no control characters or `/`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[^/\\x00-\\x1f\\x7f-\\x9f]+$")]
    pub name: String,
    /// What it is for; may be empty.
    pub description: String,
    /// A base model, or one's own, whose learnt weights are then copied.
    pub parent_model: String,
    /// LoRA rank, 1..256. Default: the parent's, or by its architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 256)]
    pub rank: Option<u32>,
    /// LoRA alpha. Default: 2 × rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1000000)]
    pub alpha: Option<f64>,
    /// Dropout while training, 0 ≤ d < 1. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, exclusive_maximum = 1)]
    pub dropout: Option<f64>,
    /// Default of generate requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Default of generate requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Default of generate requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 4194304)]
    pub top_k: Option<u32>,
    /// Default of generate requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// Default of train requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub learning_rate: Option<f64>,
    /// Seed of the first weights. Default: random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Answer in chunks.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    #[schema(value_type = Option<bool>)]
    pub stream: bool,
}

/// Changes one's own model; what is left out stays. `null` takes a default back: the parent's or base's own holds again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"description": "Talks like a pirate, always", "temperature": 0.7}))]
pub struct PatchModelRequest {
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Default of generate requests.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, minimum = 0, maximum = 2)]
    pub temperature: Option<Option<f64>>,
    /// Default of generate requests.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<Option<f64>>,
    /// Default of generate requests.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, maximum = 4194304)]
    pub top_k: Option<Option<u32>>,
    /// Default of generate requests.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub max_tokens: Option<Option<u32>>,
    /// Default of train requests.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, exclusive_minimum = 0, maximum = 1)]
    pub learning_rate: Option<Option<f64>>,
    /// The one selected at start-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_model: Option<bool>,
}

/// Answer of a delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeleteModelResponse {
    /// Id that is gone.
    pub id: String,
    /// `model has been deleted`.
    pub message: String,
}

/// One revision of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RevisionInfo {
    /// Number; 0 at creation.
    pub revision: u64,
    /// Unix seconds.
    pub created: f64,
    /// The training that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_id: Option<String>,
    /// The revision whose weights it repeats, where it is a roll-back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u64>,
    /// Whether a roll-back to it is possible.
    pub available: bool,
    /// The numbers of the training that made it: the fields of a train answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<crate::train::TrainResponse>)]
    pub metrics: Option<serde_json::Value>,
}

/// Makes an old revision's weights the newest revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"revision": 0}))]
pub struct RollbackRequest {
    /// Revision to go back to.
    pub revision: u64,
}
