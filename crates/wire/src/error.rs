//! The one shape of every error: status, `type`, `code`, a message that says what to do, the field, the request.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Group of errors; each has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    /// 400: the body is not JSON, or the request is not one this server understands.
    InvalidRequest,
    /// 401: no, unknown or revoked key.
    Authentication,
    /// 403: not allowed with this key or on this model.
    Permission,
    /// 404: no such model, path or thing (or another account's).
    NotFound,
    /// 405: the path exists with another method.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    Timeout,
    /// 409: the state of things forbids it now.
    Conflict,
    /// 413: the body is too large.
    TooLarge,
    /// 422: well-formed but invalid; `param` names the field.
    Validation,
    /// 429: over a limit; `Retry-After` says when to try again.
    RateLimit,
    /// 500: our fault; details are in the log only.
    Internal,
    /// 503: starting, draining, or no weights.
    Unavailable,
}

impl ErrorType {
    /// HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InvalidRequest => 400,
            Self::Authentication => 401,
            Self::Permission => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::Validation => 422,
            Self::RateLimit => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

/// What exactly went wrong; programs may match on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is not JSON.
    MalformedJson,
    /// The request line, a header or the content type is not understood.
    BadRequest,
    /// No `Authorization: Bearer` header.
    MissingKey,
    /// The key is unknown or revoked.
    InvalidKey,
    /// The user or password is wrong.
    InvalidCredentials,
    /// The page's session is missing or expired.
    NoSession,
    /// The same-site header of the page's own calls is missing.
    MissingCsrfHeader,
    /// The account may not do this.
    Forbidden,
    /// Base models are read-only.
    ReadOnly,
    /// No such model for this account.
    ModelNotFound,
    /// Anything else that does not exist.
    NotFound,
    /// The path exists with another method.
    MethodNotAllowed,
    /// The request took too long to arrive.
    RequestTimeout,
    /// The name is in use.
    NameTaken,
    /// The model is at another revision than the request asks for.
    RevisionConflict,
    /// The same `Idempotency-Key` is being worked on.
    IdempotencyInFlight,
    /// The model was deleted while this went on.
    ModelDeleted,
    /// An owner exists already, or another one-time step was done before.
    Conflict,
    /// The body is larger than allowed.
    BodyTooLarge,
    /// A field is missing, unknown or out of range.
    InvalidParameter,
    /// The `Idempotency-Key` was used with another body.
    IdempotencyMismatch,
    /// The prompt does not fit the model's context.
    ContextLengthExceeded,
    /// The model's chat template refuses these messages.
    InvalidMessages,
    /// The schema of `response_format` uses what is not supported.
    UnsupportedSchema,
    /// The `response_id` is unknown, expired, or of another model or account.
    UnknownResponse,
    /// A loss or gradient was not finite; nothing changed.
    TrainingDiverged,
    /// Too many requests in this time.
    RateLimited,
    /// Too many requests at once.
    TooManyInFlight,
    /// The line is full.
    QueueFull,
    /// Our fault.
    InternalError,
    /// The server is starting.
    Starting,
    /// The server is shutting down.
    Draining,
    /// The model's weights are not on this machine.
    NotDownloaded,
    /// The weights could not be loaded.
    LoadFailed,
    /// The machine has too little memory for this.
    OutOfMemory,
    /// The disk is full; nothing was changed.
    DiskFull,
    /// The caller left or the server stopped before the end.
    Cancelled,
}

/// An error as it is sent, in an HTTP answer or as the last chunk of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// Group, one HTTP status each.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// What exactly.
    pub code: ErrorCode,
    /// What is wrong and what to do.
    pub message: String,
    /// The field at fault, e.g. `messages[2].role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub param: Option<String>,
    /// Names the request in the server's logs; equals the `x-request-id` header.
    pub request_id: String,
}

/// Body of every HTTP error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorEnvelope {
    /// The error.
    pub error: ErrorBody,
}
