//! Text completions of OpenAI's API, without a chat template. Knows no engine.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{CompletionUsage, StreamOptions};
use crate::object;

/// A prompt of a text completion: a text, or tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, an array with one text, or an array of token ids")]
pub enum CompletionPrompt {
    /// A text.
    Text(String),
    /// Texts; one is taken.
    Texts(Vec<String>),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// Body of `POST /openai/v1/completions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"model": "tiger-nano", "prompt": "The capital of France", "max_tokens": 8}))]
pub struct CompletionRequest {
    /// Id or name of a model.
    pub model: String,
    /// What is continued, without a chat template.
    pub prompt: CompletionPrompt,
    /// Server-sent events, ended by `[DONE]`.
    #[serde(default)]
    pub stream: Option<bool>,
    /// With `stream`.
    #[serde(default, deserialize_with = "object")]
    pub stream_options: Option<StreamOptions>,
    /// 0..2.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Above 0, at most 1.
    #[serde(default)]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Beyond OpenAI's: 0 keeps all.
    #[serde(default)]
    #[schema(maximum = 4194304)]
    pub top_k: Option<u32>,
    /// Beyond OpenAI's: 0..1.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// 1..64.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 64)]
    pub n: Option<u32>,
    /// Most tokens of an answer; 16 where left out, as OpenAI has it.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// A string or up to 4.
    #[serde(default)]
    pub stop: Option<crate::generate::Stop>,
    /// Any integer.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Gives each token's log-probability, and so many alternatives, 0..5.
    #[serde(default)]
    #[schema(maximum = 5)]
    pub logprobs: Option<u32>,
    /// Everything else, looked at by name.
    #[serde(flatten)]
    #[schema(ignore)]
    pub rest: Map<String, Value>,
}

/// Log-probabilities of a text completion.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionLogprobs {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Their log-probabilities.
    pub token_logprobs: Vec<f32>,
    /// Of each, the alternatives by text.
    pub top_logprobs: Option<Vec<Map<String, Value>>>,
    /// Where each begins in the text, characters.
    pub text_offset: Vec<usize>,
}

/// One of the texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CompletionChoice {
    /// From 0.
    pub index: u32,
    /// The text, or its next piece.
    pub text: String,
    /// Where asked for.
    pub logprobs: Option<CompletionLogprobs>,
    /// `stop` or `length`; null in all but the last chunk of a stream.
    pub finish_reason: Option<String>,
}

/// Answer, or chunk of the answer, of a text completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Completion {
    /// Names it.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// Unix seconds.
    pub created: i64,
    /// Id of the model.
    pub model: String,
    /// `rev_n`.
    pub system_fingerprint: String,
    /// The texts.
    pub choices: Vec<CompletionChoice>,
    /// Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<CompletionUsage>,
}
