//! `POST /v1/models/{id}/evaluate`: a revision beside another one or the parent, on given prompts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::generate::{Message, StopReason};
use crate::{is_false, null_as_default};

/// A conversation to be answered by both, and texts to be scored by both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluatePrompt {
    /// The conversation; the last message is from the user.
    #[schema(min_items = 1)]
    pub messages: Vec<Message>,
    /// Responses whose probability is wanted, at most 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 256)]
    pub responses: Option<Vec<String>>,
}

/// The name of what a model was made from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParentName {
    /// The parent as it was when the model was made, which is revision 0.
    #[default]
    Parent,
}

/// What a revision is compared with: `"parent"` or a revision's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`parent` or the number of a revision")]
pub enum Against {
    /// By name.
    Named(ParentName),
    /// This revision.
    Revision(u64),
}

impl Default for Against {
    fn default() -> Against {
        Against::Named(ParentName::Parent)
    }
}

/// Body of an evaluate request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"prompts": [{"messages": [{"role": "user", "content": "What is the capital of France?"}], "responses": ["Arr, it be Paris!"]}], "samples": 2, "max_tokens": 32}))]
pub struct EvaluateRequest {
    /// 1..64 prompts.
    #[schema(min_items = 1, max_items = 64)]
    pub prompts: Vec<EvaluatePrompt>,
    /// The revision in question. Default: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// `"parent"` (default) or a revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// Answers of each to each prompt, 0..16. Default 1; 0 only scores the given responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 16)]
    pub samples: Option<u32>,
    /// 0..2. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// (0, 1]. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// The k most probable tokens; 0 keeps all. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 4194304)]
    pub top_k: Option<u32>,
    /// Most tokens of one answer. Default: the model's own, else 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// The answers to prompt i (from 0) are drawn with seed + i, the same for both. Default: random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Answer in chunks while it goes on.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    #[schema(value_type = Option<bool>)]
    pub stream: bool,
}

/// One sampled answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluatedAnswer {
    /// The text.
    pub content: String,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Names the exact tokens for a train call, for 24 hours.
    pub response_id: String,
    /// Tokens, the end of turn included.
    pub tokens: u64,
    /// Mean log-prob of a token under the revision that made it, at temperature 1.
    pub logprob: f64,
    /// The same under the other one.
    pub logprob_other: f64,
    /// What a reasoning model thought first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

/// The answers to one prompt, side by side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluatedAnswers {
    /// Of the revision in question.
    pub model: Vec<EvaluatedAnswer>,
    /// Of what it is compared with.
    pub against: Vec<EvaluatedAnswer>,
}

/// A given response, scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluatedResponse {
    /// The text.
    pub content: String,
    /// Tokens, the end of turn included.
    pub tokens: u64,
    /// Mean log-prob of a token under the revision in question.
    pub logprob: f64,
    /// The same under what it is compared with.
    pub logprob_against: f64,
}

/// What was found for one prompt.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluateResult {
    /// Sampled answers; empty with `samples` 0.
    pub answers: EvaluatedAnswers,
    /// The given responses, in the request's order.
    pub responses: Vec<EvaluatedResponse>,
}

/// What an evaluation took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluateUsage {
    /// Seconds from the request's arrival to its end.
    pub duration: f64,
    /// Tokens of the prompts, once for each side that answered.
    pub input_tokens: u64,
    /// Tokens of these that were not computed again.
    pub cached_tokens: u64,
    /// Tokens sampled.
    pub output_tokens: u64,
    /// Tokens of responses that were scored, once for each side that scored.
    pub scored_tokens: u64,
}

/// Answer of an evaluate request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluateResponse {
    /// Names this evaluation.
    pub id: String,
    /// Id of the model.
    pub model: String,
    /// The revision in question.
    pub revision: u64,
    /// What it is compared with.
    pub against: Against,
    /// Seed of the answers to the first prompt.
    pub seed: u64,
    /// One for each prompt, in the request's order.
    pub results: Vec<EvaluateResult>,
    /// Mean log-prob of a token of all given responses under the revision; absent where none were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_logprob: Option<f64>,
    /// The same under what it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_logprob_against: Option<f64>,
    /// Mean tokens of the revision's answers; absent where none were sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_tokens: Option<f64>,
    /// The same of what it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_tokens_against: Option<f64>,
    /// Mean of `logprob` − `logprob_other` over the tokens of the revision's own answers: an estimate of the KL divergence per token where they
    /// were drawn at temperature 1 from all tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// What it took.
    pub usage: EvaluateUsage,
}
