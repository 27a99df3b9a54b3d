//! The dialect of OpenAI's API: their requests become this server's own, and answers become theirs. What has no counterpart here is refused
//! by name, never ignored where it would change the answer. Does not know how text is made.

pub mod answer;
pub mod chat;
pub mod completions;
pub mod frames;
mod history;
pub mod others;
pub mod responses;
pub mod tools;

use serde_json::Value;
use tiger_wire::openai::{OpenAiError, OpenAiErrorEnvelope};
use tiger_wire::{ErrorCode, ErrorType, ResponseFormat, ResponseFormatType};

use crate::error::ApiError;

/// Paths that speak this dialect.
pub const PREFIX: &str = "/openai/";

/// HTTP status and body of an error in OpenAI's shape: what is 422 here is 400 there.
pub fn error(error: &ApiError) -> (u16, OpenAiErrorEnvelope) {
    let kind = match error.kind() {
        ErrorType::InvalidRequest | ErrorType::Validation | ErrorType::NotFound | ErrorType::MethodNotAllowed | ErrorType::TooLarge => {
            "invalid_request_error"
        }
        ErrorType::Authentication => "authentication_error",
        ErrorType::Permission => "permission_error",
        ErrorType::Conflict | ErrorType::Timeout => "invalid_request_error",
        ErrorType::RateLimit => "rate_limit_error",
        ErrorType::Internal | ErrorType::Unavailable => "server_error",
    };
    let status = if error.kind() == ErrorType::Validation { 400 } else { error.status() };
    let code = match error.code() {
        ErrorCode::MissingKey | ErrorCode::InvalidKey => "invalid_api_key".to_owned(),
        ErrorCode::RateLimited | ErrorCode::TooManyInFlight | ErrorCode::QueueFull => "rate_limit_exceeded".to_owned(),
        code => serde_json::to_value(code).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default(),
    };
    let body = OpenAiError {
        message: error.message().to_owned(),
        kind: kind.to_owned(),
        param: error.named_param().map(str::to_owned),
        code: Some(code),
    };
    (status, OpenAiErrorEnvelope { error: body })
}

/// OpenAI's `response_format`, or `text.format` of a response, whose schema lies a level higher.
pub fn format(value: Option<&Value>, param: &str) -> Result<Option<ResponseFormat>, ApiError> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let kind = match value["type"].as_str() {
        Some("text") => return Ok(None),
        Some("json_object") => ResponseFormatType::JsonObject,
        Some("json_schema") => ResponseFormatType::JsonSchema,
        _ => {
            let message = format!("`{param}.type` must be `text`, `json_object` or `json_schema`");
            return Err(ApiError::invalid(format!("{param}.type"), message));
        }
    };
    if kind == ResponseFormatType::JsonObject {
        return Ok(Some(ResponseFormat { kind, schema: None }));
    }
    let schema = [&value["json_schema"]["schema"], &value["schema"]].into_iter().find(|schema| schema.is_object());
    let missing = || ApiError::invalid(format!("{param}.json_schema.schema"), "`json_schema` needs a `schema`, an object");
    Ok(Some(ResponseFormat { kind, schema: Some(schema.ok_or_else(missing)?.clone()) }))
}
