//! Responses of OpenAI's API in their text form. Knows no engine.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{Content, NamedSchema, PromptTokensDetails, Speaker, StreamOptions};
use crate::object;

/// Shapes of `text.format` of a response: as in chat completions, the schema a level higher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseTextFormat {
    /// Any text.
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema(NamedSchema),
}

/// Shape of `text` of a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResponseText {
    /// Constrains the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ResponseTextFormat>,
}

/// Shapes of the items of a response's input; read by hand, for errors that say what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum InputItem {
    /// A message; `type` may be left out.
    Message {
        /// `message`.
        #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<MessageKind>)]
        kind: Option<String>,
        /// Who speaks.
        role: Speaker,
        /// What is said.
        content: Content,
    },
    /// What an earlier answer thought; left out.
    Reasoning {
        /// `reasoning`.
        #[serde(rename = "type")]
        #[schema(value_type = ReasoningKind)]
        kind: String,
    },
}

/// The type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// A message.
    Message,
}

/// The type of a thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningKind {
    /// A thought.
    Reasoning,
}

/// Input of a response: a text, or items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or an array of messages")]
pub enum ResponseInput {
    /// A text of the user.
    Text(String),
    /// A conversation: messages, and items of earlier answers.
    #[schema(value_type = Vec<InputItem>)]
    Items(Vec<Value>),
}

/// Body of `POST /openai/v1/responses`, text only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"model": "tiger-nano", "input": "What is the capital of France?", "max_output_tokens": 32}))]
pub struct ResponseRequest {
    /// Id or name of a model.
    pub model: String,
    /// What is answered.
    pub input: ResponseInput,
    /// The system message.
    #[serde(default)]
    pub instructions: Option<String>,
    /// Typed server-sent events.
    #[serde(default)]
    pub stream: Option<bool>,
    /// Taken with `stream`: events are not padded.
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
    /// Most tokens.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_output_tokens: Option<u32>,
    /// `{"format": {"type": "text" | "json_object" | "json_schema", …}}`.
    #[serde(default)]
    #[schema(value_type = Option<ResponseText>)]
    pub text: Option<Value>,
    /// `true` is OpenAI's default and taken, but nothing is stored: answers cannot be fetched again.
    #[serde(default)]
    pub store: Option<bool>,
    /// Everything else, looked at by name.
    #[serde(flatten)]
    #[schema(ignore)]
    pub rest: Map<String, Value>,
}

/// Tokens that a response took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResponseUsage {
    /// Of the prompt.
    pub input_tokens: u64,
    /// Which were not computed again.
    pub input_tokens_details: PromptTokensDetails,
    /// Sampled.
    pub output_tokens: u64,
    /// Part of them.
    pub output_tokens_details: OutputTokensDetails,
    /// Both.
    pub total_tokens: u64,
}

/// Part of the usage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputTokensDetails {
    /// Always 0: thoughts are not counted apart.
    pub reasoning_tokens: u64,
}

/// Answer of `POST /openai/v1/responses`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResponseObject {
    /// Names it.
    pub id: String,
    /// `response`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// `completed`, or `incomplete` where a limit of tokens cut it; `in_progress` in a stream.
    pub status: String,
    /// Always null: errors are answers of their own.
    #[schema(value_type = Option<Object>)]
    pub error: Option<Value>,
    /// Why it is incomplete.
    #[schema(value_type = Option<Object>)]
    pub incomplete_details: Option<Value>,
    /// Always empty.
    #[schema(value_type = Object)]
    pub metadata: Value,
    /// Id of the model.
    pub model: String,
    /// Thought, where there is some, and message.
    #[schema(value_type = Vec<Object>)]
    pub output: Vec<Value>,
    /// Always false.
    pub parallel_tool_calls: bool,
    /// Always null: nothing is stored.
    pub previous_response_id: Option<String>,
    /// Always false.
    pub store: bool,
    /// Always `none`.
    pub tool_choice: String,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub tools: Vec<Value>,
    /// Always `disabled`.
    pub truncation: String,
    /// Null while it goes on.
    pub usage: Option<ResponseUsage>,
    /// As asked for.
    pub instructions: Option<String>,
    /// As asked for.
    pub temperature: Option<f64>,
    /// As asked for.
    pub top_p: Option<f64>,
    /// As asked for.
    pub max_output_tokens: Option<u32>,
    /// As asked for.
    pub text: ResponseText,
}

/// An event of a streamed response; which fields it has besides depends on its type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResponseEvent {
    /// `response.created`, `response.output_text.delta`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// From 0.
    pub sequence_number: u64,
}
