//! The HTTP contract as plain types: requests, answers, stream chunks, error codes and the numbers that bound them.
//! Knows serde and nothing else: no transport, no defaults of a model, no engine. Server, client and command line share it.
//!
//! Requests refuse unknown fields, so that a misspelt knob is an error and not a silent default.
//! Optional request fields take JSON `null` as absent; in a PATCH it takes a default back.

pub mod account;
pub mod chats;
pub mod error;
pub mod evaluate;
pub mod generate;
pub mod limits;
pub mod models;
pub mod openai;
pub mod pulls;
pub mod stream;
pub mod train;
pub mod usage;

pub use account::{
    AcceptInvitationRequest, AccountInfo, ApiKeyInfo, ChangePasswordRequest, CreateKeyRequest, CreateKeyResponse, CreateOwnerRequest,
    DeletedResponse, InvitationInfo, InvitationResponse, RevokeKeyResponse, SessionInfo, SignInRequest, SignOutResponse,
};
pub use chats::{Chat, ChatDocument, ChatList, ChatNode, ChatRole, ChatSettings, ChatSummary, DeletedChats, UpdateChatRequest};
pub use error::{ErrorBody, ErrorCode, ErrorEnvelope, ErrorType};
pub use evaluate::{
    Against, EvaluatePrompt, EvaluateRequest, EvaluateResponse, EvaluateResult, EvaluateUsage, EvaluatedAnswer, EvaluatedAnswers,
    EvaluatedResponse, ParentName,
};
pub use generate::{
    GenerateRequest, GenerateResponse, Message, ResponseFormat, ResponseFormatType, Role, Sample, Stop, StopReason, TokenLogprob, TopToken,
    Usage,
};
pub use models::{CreateModelRequest, DeleteModelResponse, ModelInfo, ModelStatus, PatchModelRequest, RevisionInfo, RollbackRequest};
pub use pulls::{PullInfo, PullRequest, PullState};
pub use stream::{
    Chunk, CreateStop, CreateUsage, DeltaChunk, ErrorChunk, EvaluateStop, GenerateStop, InfoChunk, ProgressChunk, StepMetricsOrEmpty,
    StopChunk, StreamedSample, TrainStop,
};
pub use train::{
    AdvantageScale, Baseline, BaselineKind, LengthNorm, Objective, RatioSummary, ResponseMetrics, ResponseMode, RewardSummary, StepMetrics,
    TrainGroup, TrainRequest, TrainResponse, TrainUsage, TrainedResponse,
};
pub use usage::{LoadedBase, StatusInfo, UsageSum};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Takes JSON `null` as the type's default.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// An object or null. `derive` would also take an array of the fields, an empty one where all may be left out.
fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned,
{
    let map = Option::<Map<String, Value>>::deserialize(deserializer)?;
    map.map(|map| serde_json::from_value(Value::Object(map)).map_err(serde::de::Error::custom)).transpose()
}

/// The same, null being the type's default.
fn object_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + DeserializeOwned,
{
    object(deserializer).map(Option::unwrap_or_default)
}

/// Tells JSON `null` (`Some(None)`) from a field that is left out (`None`, by `default`).
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// For `skip_serializing_if` of flags that are false when left out.
fn is_false(value: &bool) -> bool {
    !*value
}
