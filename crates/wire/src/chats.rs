//! `/api/chats`: conversations of the web page, kept by the server. A chat is a tree of messages, of which one branch is shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::object_or_default;

use crate::{StopReason, Usage};

/// Who wrote a message of a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatRole {
    /// The person.
    User,
    /// The model.
    Assistant,
}

/// How answers of a chat are sampled; what is left out is the model's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatSettings {
    /// Temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Nucleus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Most probable tokens that are drawn from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// Least probability, as a share of the largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Tokens of one answer at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Texts that end an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Vec<String>>,
    /// Seed of every answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// One message. Several with one parent are branches: edited prompts, answers given again, other models' answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatNode {
    /// Unique within the chat, the page's choice.
    #[schema(min_length = 1, max_length = 64)]
    pub id: String,
    /// The message before this one, which stands earlier in the array; none for the first of a branch from the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Who wrote it.
    pub role: ChatRole,
    /// The text.
    pub content: String,
    /// What a reasoning model thought first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Id of the model that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Why it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<StopReason>,
    /// Names the exact tokens for a train call, for 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Unix seconds.
    pub created: f64,
    /// What it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Seconds to its first token, as the page saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_s: Option<f64>,
    /// Whether the person stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<bool>,
    /// Why it failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A chat as the page wrote it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatDocument {
    /// Its title.
    #[schema(max_length = 200)]
    pub title: String,
    /// Id of the model that answers next.
    pub model: String,
    /// System prompt; may be empty.
    #[serde(default)]
    pub system: String,
    /// How answers are sampled.
    #[serde(default, deserialize_with = "object_or_default")]
    #[schema(value_type = Option<ChatSettings>)]
    pub settings: ChatSettings,
    /// The messages, parents before children.
    #[serde(default)]
    pub nodes: Vec<ChatNode>,
    /// The end of the branch that is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<String>,
}

/// Writes a chat again, unless another tab or window did since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateChatRequest {
    /// The version that was read.
    pub version: u64,
    /// Its title.
    #[schema(max_length = 200)]
    pub title: String,
    /// Id of the model that answers next.
    pub model: String,
    /// System prompt; may be empty.
    #[serde(default)]
    pub system: String,
    /// How answers are sampled.
    #[serde(default, deserialize_with = "object_or_default")]
    #[schema(value_type = Option<ChatSettings>)]
    pub settings: ChatSettings,
    /// The messages, parents before children.
    #[serde(default)]
    pub nodes: Vec<ChatNode>,
    /// The end of the branch that is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<String>,
}

impl UpdateChatRequest {
    /// The version that was read, and the chat as it is to be.
    pub fn into_parts(self) -> (u64, ChatDocument) {
        let Self { version, title, model, system, settings, nodes, leaf } = self;
        (version, ChatDocument { title, model, system, settings, nodes, leaf })
    }
}

/// A chat as the server keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Chat {
    /// Its id.
    pub id: String,
    /// 1, and + 1 by every write.
    pub version: u64,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds of the last write.
    pub updated: f64,
    /// What was written.
    #[serde(flatten)]
    pub document: ChatDocument,
}

/// A chat as the list shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatSummary {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Id of the model that answers next.
    pub model: String,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds of the last write.
    pub updated: f64,
    /// Messages, all branches together.
    pub messages: u64,
    /// As in the chat.
    pub version: u64,
    /// In a search: the text around the first place found in a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<String>,
}

/// A part of the list, last written first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChatList {
    /// The chats.
    pub chats: Vec<ChatSummary>,
    /// Where the list goes on, for `before`; none at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Answer of the deletion of all chats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedChats {
    /// How many there were.
    pub deleted: u64,
}
