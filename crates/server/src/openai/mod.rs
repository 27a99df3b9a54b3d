//! The dialect of OpenAI's API: their requests become this server's own, and answers become theirs. What has no counterpart here is refused
//! by name, never ignored where it would change the answer. Does not know how text is made.

pub mod answer;
pub mod chat;
pub mod completions;
pub mod frames;
mod history;
pub mod responses;
pub mod tools;

use serde_json::{Map, Value};
use tiger_wire::openai::{OpenAiError, OpenAiErrorEnvelope};
use tiger_wire::{ErrorCode, ErrorType, ResponseFormat, ResponseFormatType};

use crate::error::{ApiError, quoted};

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

/// Fields that change nothing here: accounting, hints of latency and caches, defaults spelt out.
const HARMLESS: [&str; 11] = [
    "user",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "service_tier",
    "reasoning_effort",
    "verbosity",
    "parallel_tool_calls",
    "prediction",
    "truncation",
];

/// Fields that are fine at the value that changes nothing, and refused at any other: (name, values that are fine).
fn neutral(name: &str, value: &Value) -> Option<bool> {
    Some(match name {
        "frequency_penalty" | "presence_penalty" => value.as_f64() == Some(0.0),
        "logit_bias" => value.as_object().is_some_and(Map::is_empty),
        "store" | "background" | "echo" => value.as_bool() == Some(false),
        "modalities" => value.as_array().is_some_and(|all| all.iter().all(|one| one == "text")),
        "best_of" => value.as_u64() == Some(1),
        // What else it asks for belongs to tools and thoughts, which come unasked or not at all.
        "include" => value.as_array().is_some_and(|all| all.iter().all(|one| one != "message.output_text.logprobs")),
        "suffix" => value.as_str() == Some(""),
        _ => return None,
    })
}

/// Refuses fields that are unknown or that this server cannot honour. Null is as good as absent.
pub fn check_rest(rest: &Map<String, Value>) -> Result<(), ApiError> {
    for (name, value) in rest {
        if value.is_null() || HARMLESS.contains(&name.as_str()) || neutral(name, value) == Some(true) {
            continue;
        }
        let message = match neutral(name, value) {
            Some(_) => format!("{} is not supported by this server; leave it out", quoted(name)),
            None => format!(
                "{} is not a parameter that this server knows; leave it out, or look for its spelling at /openapi.json",
                quoted(name)
            ),
        };
        return Err(ApiError::invalid(name.clone(), message));
    }
    Ok(())
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
