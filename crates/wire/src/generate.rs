//! `POST /v1/generate_response`. Does not know a model's defaults: what is left out stays absent.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{is_false, null_as_default};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions, first message only.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Message {
        Message { role, content: content.into() }
    }
}

/// Stop strings: one, or a list of at most 4.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a string or a list of strings")]
pub enum Stop {
    /// One string.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Stop {
    /// The strings as a slice.
    pub fn strings(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Kind of text asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseFormatType {
    /// Any text.
    #[default]
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema,
}

/// Constrains the text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResponseFormat {
    /// Kind of text.
    #[serde(rename = "type")]
    pub kind: ResponseFormatType,
    /// The JSON schema; with `json_schema` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub schema: Option<Value>,
}

/// Body of a generate request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "tiger-nano", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32}))]
pub struct GenerateRequest {
    /// A name or an id of the list of models.
    pub model: String,
    /// The conversation; the last message is from the user, or an assistant message to continue.
    #[schema(min_items = 1)]
    pub messages: Vec<Message>,
    /// Answer in chunks while the text is made.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    #[schema(value_type = Option<bool>)]
    pub stream: bool,
    /// 0..2; 0 always takes the most probable token. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// (0, 1]: the smallest set of tokens with this much probability. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// The k most probable tokens; 0 keeps all. Default: the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 4194304)]
    pub top_k: Option<u32>,
    /// 0..1: tokens with at least this fraction of the best one's probability. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1)]
    pub min_p: Option<f64>,
    /// Most tokens of one response. Default: what the context leaves, at most the model's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// The text ends before any of these strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The same seed and request give the same text. Default: random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Independent responses, 1..64. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 64)]
    pub n: Option<u32>,
    /// Also give each token with the log of its probability.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    #[schema(value_type = Option<bool>)]
    pub logprobs: bool,
    /// With `logprobs`: so many of the most probable tokens beside each, 0..20. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 20)]
    pub top_logprobs: Option<u32>,
    /// Constrains the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<ResponseFormat>,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model ended its turn.
    EndTurn,
    /// `max_tokens` or the context was reached.
    MaxTokens,
    /// A stop string was seen.
    StopSequence,
}

/// One sampled token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenLogprob {
    /// Id in the model's vocabulary.
    pub token_id: u32,
    /// Its text alone; where it is part of a character, with replacement characters.
    pub token: String,
    /// Natural log of its probability at temperature 1.
    pub logprob: f32,
    /// The most probable tokens in its place, falling, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<Vec<TopToken>>,
}

/// A token that might have been sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopToken {
    /// Id in the model's vocabulary.
    pub token_id: u32,
    /// Its text alone.
    pub token: String,
    /// Natural log of its probability at temperature 1.
    pub logprob: f32,
}

/// What a request took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Seconds from the request's arrival to its end.
    pub duration: f64,
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the prompt that were not computed again.
    pub cached_tokens: u64,
    /// Tokens sampled, all responses together, ends of turn included.
    pub output_tokens: u64,
}

/// One of several responses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// The text.
    pub content: String,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Names the exact tokens for a train call, for 24 hours.
    pub response_id: String,
    /// Each token, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// What a reasoning model thought first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
}

/// Answer of a generate request that is not streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GenerateResponse {
    /// Names this request.
    pub id: String,
    /// Id of the model.
    pub model: String,
    /// Revision that answered; 0 for a base model.
    pub revision: u64,
    /// The first response as a message, ready to be appended to the conversation.
    pub message: Message,
    /// Why it ended.
    pub stop_reason: StopReason,
    /// Names the exact tokens for a train call, for 24 hours.
    pub response_id: String,
    /// What it took.
    pub usage: Usage,
    /// Each token of the first response, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// What a reasoning model thought first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// With `n` > 1: all responses, the first included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responses: Option<Vec<Sample>>,
}
