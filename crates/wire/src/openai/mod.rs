//! `/openai/v1`: what clients made for OpenAI's API send and read, as far as this server answers it: chat completions, text completions,
//! responses in their text form, models, errors. Field names and shapes are theirs (OpenAI API reference, 2025). Knows no engine.

mod completions;
mod responses;

pub use completions::*;
pub use responses::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::object;

/// Kinds of parts that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// Of chat messages.
    Text,
    /// Of what the user says to a response.
    InputText,
    /// Of what the model said in a response.
    OutputText,
    /// Of an answer that was refused.
    Refusal,
}

/// Who speaks in OpenAI's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Speaker {
    /// Instructions, first only.
    System,
    /// Its newer name.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a call.
    Tool,
}

/// The only kind of tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// A function with a JSON schema.
    Function,
}

/// One part of a message's content; only text is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ContentPart {
    /// `text`, `input_text`, `output_text` or `refusal`.
    #[serde(rename = "type")]
    #[schema(value_type = PartKind)]
    pub kind: String,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A message's content: a text, or parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a text, or an array of parts of type `text`")]
pub enum Content {
    /// A text.
    Text(String),
    /// Parts, which are joined.
    Parts(Vec<ContentPart>),
}

/// A function that the model called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CalledFunction {
    /// Its name.
    pub name: String,
    /// Its arguments as JSON text.
    pub arguments: String,
}

/// A call in a finished message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ToolCall {
    /// Names the call for the answer to it.
    pub id: String,
    /// `function`.
    #[serde(rename = "type")]
    #[schema(value_type = ToolKind)]
    pub kind: String,
    /// What was called.
    pub function: CalledFunction,
}

/// One message of a chat request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatMessage {
    /// `system` or `developer` (first only), `user`, `assistant`, `tool`.
    #[schema(value_type = Speaker)]
    pub role: String,
    /// Text; may be absent beside `tool_calls`.
    #[serde(default)]
    pub content: Option<Content>,
    /// Of the speaker; templates may show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls that an earlier answer made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// Which call a `tool` message answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Fields that earlier answers carry and that say nothing to the model.
    #[serde(flatten)]
    #[schema(ignore)]
    pub rest: Map<String, Value>,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FunctionTool {
    /// 1..64 of a-z, A-Z, 0-9, `_`, `-`.
    #[schema(min_length = 1, max_length = 64, pattern = "^[a-zA-Z0-9_-]+$")]
    pub name: String,
    /// When to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON schema of its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Calls that the model may make or not (`auto`) fit the schema, too; named and required ones always do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// A tool of a chat request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tool {
    /// `function`.
    #[serde(rename = "type")]
    #[schema(value_type = ToolKind)]
    pub kind: String,
    /// The function.
    pub function: FunctionTool,
}

/// How a stream is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamOptions {
    /// A last chunk without choices has `usage`.
    #[serde(default)]
    pub include_usage: Option<bool>,
    /// Taken: chunks are not padded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_obfuscation: Option<bool>,
}

/// A schema with a name, as `response_format` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NamedSchema {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema.
    #[schema(value_type = Object)]
    pub schema: Value,
    /// Taken and not needed: the text always fits the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// Shapes of `response_format`; read by hand, for errors that say what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChatFormat {
    /// Any text.
    Text,
    /// One JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema {
        /// The schema.
        json_schema: NamedSchema,
    },
}

/// Whether the model must call a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolMode {
    /// It calls none.
    None,
    /// As it likes.
    Auto,
    /// It calls one.
    Required,
}

/// The name of a function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FunctionName {
    /// One of `tools`.
    pub name: String,
}

/// Shapes of `tool_choice`; read by hand, for errors that say what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum ToolChoice {
    /// By a word.
    Mode(ToolMode),
    /// This function.
    Function {
        /// `function`.
        #[serde(rename = "type")]
        #[schema(value_type = ToolKind)]
        kind: String,
        /// Which.
        function: FunctionName,
    },
}

/// Body of `POST /openai/v1/chat/completions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"model": "tiger-nano", "messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32}))]
pub struct ChatCompletionRequest {
    /// Id or name of a model.
    pub model: String,
    /// The conversation.
    #[schema(min_items = 1)]
    pub messages: Vec<ChatMessage>,
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
    /// Beyond OpenAI's: the most probable so many; 0 keeps all.
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
    /// Most tokens of an answer.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_tokens: Option<u32>,
    /// The newer name of `max_tokens`.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub max_completion_tokens: Option<u32>,
    /// A string or up to 4.
    #[serde(default)]
    pub stop: Option<crate::generate::Stop>,
    /// Any integer; the same request with the same seed gives the same text.
    #[serde(default)]
    pub seed: Option<i64>,
    /// Gives each token with its log-probability.
    #[serde(default)]
    pub logprobs: Option<bool>,
    /// With `logprobs`: so many of the most probable tokens, 0..20.
    #[serde(default)]
    #[schema(maximum = 20)]
    pub top_logprobs: Option<u32>,
    /// `{"type": "text" | "json_object"}` or `{"type": "json_schema", "json_schema": {"name", "schema"}}`.
    #[serde(default)]
    #[schema(value_type = Option<ChatFormat>)]
    pub response_format: Option<Value>,
    /// Functions that the model may call.
    #[serde(default)]
    pub tools: Option<Vec<Tool>>,
    /// `none`, `auto`, `required`, or `{"type": "function", "function": {"name"}}`.
    #[serde(default)]
    #[schema(value_type = Option<ToolChoice>)]
    pub tool_choice: Option<Value>,
    /// Everything else, looked at by name.
    #[serde(flatten)]
    #[schema(ignore)]
    pub rest: Map<String, Value>,
}

/// Tokens that a request took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompletionUsage {
    /// Of the prompt.
    pub prompt_tokens: u64,
    /// Of all answers.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// Which were not computed again.
    pub prompt_tokens_details: PromptTokensDetails,
}

/// Part of the usage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromptTokensDetails {
    /// Tokens of the prompt found computed.
    pub cached_tokens: u64,
}

/// One alternative of a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopLogprob {
    /// Its text, with replacement characters where it is part of one.
    pub token: String,
    /// Natural log of its probability at temperature 1.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
}

/// One token of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatTokenLogprob {
    /// Its text, with replacement characters where it is part of one.
    pub token: String,
    /// Natural log of its probability at temperature 1.
    pub logprob: f32,
    /// Its bytes.
    pub bytes: Option<Vec<u8>>,
    /// The most probable tokens in its place, where asked for.
    pub top_logprobs: Vec<TopLogprob>,
}

/// Log-probabilities of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatLogprobs {
    /// Each token.
    pub content: Option<Vec<ChatTokenLogprob>>,
    /// Always null.
    pub refusal: Option<Vec<ChatTokenLogprob>>,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnswerMessage {
    /// `assistant`.
    pub role: String,
    /// The text; null beside tool calls without text.
    pub content: Option<String>,
    /// Always null.
    pub refusal: Option<String>,
    /// What a reasoning model thought first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// What it calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCall>>,
}

/// One of the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatChoice {
    /// From 0.
    pub index: u32,
    /// The answer.
    pub message: AnswerMessage,
    /// Where asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// `stop`, `length` or `tool_calls`.
    pub finish_reason: String,
    /// Beyond OpenAI's: names the exact tokens for `POST /v1/train`.
    pub response_id: String,
}

/// Answer of a chat request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletion {
    /// Names it.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Unix seconds.
    pub created: i64,
    /// Id of the model.
    pub model: String,
    /// `rev_n`: the revision of the model that answered.
    pub system_fingerprint: String,
    /// The answers.
    pub choices: Vec<ChatChoice>,
    /// Tokens.
    pub usage: CompletionUsage,
}

/// A piece of a streamed call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolCallDelta {
    /// Which of the calls.
    pub index: u32,
    /// The whole call, which comes in one piece.
    #[serde(flatten)]
    pub call: ToolCall,
}

/// A piece of an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AnswerDelta {
    /// `assistant`, in the first piece.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Thought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// Calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<Vec<ToolCallDelta>>,
}

/// A choice of a chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChunkChoice {
    /// Which answer.
    pub index: u32,
    /// What is new.
    pub delta: AnswerDelta,
    /// Of the new tokens, where asked for.
    pub logprobs: Option<ChatLogprobs>,
    /// In the last chunk of an answer.
    pub finish_reason: Option<String>,
}

/// A chunk of a streamed chat answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatCompletionChunk {
    /// Names the answer; the same in every chunk.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    /// Unix seconds.
    pub created: i64,
    /// Id of the model.
    pub model: String,
    /// `rev_n`.
    pub system_fingerprint: String,
    /// What is new; empty in the chunk of the usage.
    pub choices: Vec<ChunkChoice>,
    /// Null but in the last chunk, where `include_usage` asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<CompletionUsage>,
}

/// A model as OpenAI's clients list it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Id.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Unix seconds.
    pub created: i64,
    /// `tigercity` for bases, `you` for one's own.
    pub owned_by: String,
}

/// The list of models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    /// All of them.
    pub data: Vec<Model>,
}

/// Answer of a delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelDeleted {
    /// Id that is gone.
    pub id: String,
    /// `model`.
    pub object: String,
    /// `true`.
    pub deleted: bool,
}

/// An error in OpenAI's shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenAiError {
    /// What is wrong and what to do.
    pub message: String,
    /// `invalid_request_error`, `authentication_error`, `rate_limit_error`, `server_error`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault.
    pub param: Option<String>,
    /// What exactly.
    pub code: Option<String>,
}

/// Body of every error under `/openai/v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenAiErrorEnvelope {
    /// The error.
    pub error: OpenAiError,
}
