//! Errors as they leave the door: one shape, one mapping from every crate's errors, and JSON bodies read with it.
//! Does not know the request's id: the outermost layer writes it in.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRef, FromRequest, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tiger_engine::{EngineError, Rejected};
use tiger_wire::{ErrorBody, ErrorCode, ErrorType};

use crate::app::App;
use crate::limits::{FRACTIONS_BYTES, QUOTE_CHARS};

/// An error on its way out.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    kind: ErrorType,
    code: ErrorCode,
    message: String,
    param: Option<String>,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// Any error; the message says what is wrong and what to do.
    pub fn new(kind: ErrorType, code: ErrorCode, message: impl Into<String>) -> ApiError {
        ApiError { kind, code, message: message.into(), param: None, retry_after_s: None }
    }

    /// 422 about one field.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorType::Validation, ErrorCode::InvalidParameter, message).param(param)
    }

    /// 422 about one field with its own code.
    pub fn refused(code: ErrorCode, param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError::new(ErrorType::Validation, code, message).param(param)
    }

    /// 404, the same for another account's model and one that does not exist.
    pub fn model_not_found(model: &str) -> ApiError {
        let message = format!("there is no model {}; GET /v1/models lists those that you can use", quoted(model));
        ApiError::new(ErrorType::NotFound, ErrorCode::ModelNotFound, message).param("model")
    }

    /// 500. `detail` goes to the log only.
    pub fn internal(detail: impl std::fmt::Display) -> ApiError {
        tracing::error!(%detail, "internal error");
        let message = "something went wrong on our side; try again, and report the request id if it stays";
        ApiError::new(ErrorType::Internal, ErrorCode::InternalError, message)
    }

    /// Names the field.
    pub fn param(mut self, param: impl Into<String>) -> ApiError {
        self.param = Some(param.into());
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, seconds: u64) -> ApiError {
        self.retry_after_s = Some(seconds.max(1));
        self
    }

    /// What exactly.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// Which kind.
    pub fn kind(&self) -> ErrorType {
        self.kind
    }

    /// The field at fault.
    pub fn named_param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// For the log of a stream's end.
    pub fn status(&self) -> u16 {
        self.kind.status()
    }

    /// What is wrong, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// As it is sent.
    pub fn body(&self, request_id: &str) -> ErrorBody {
        ErrorBody {
            kind: self.kind,
            code: self.code,
            message: self.message.clone(),
            param: self.param.clone(),
            request_id: request_id.to_owned(),
        }
    }

    /// Seconds of `Retry-After`.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        // The outermost layer turns it into JSON with the request's id.
        response.extensions_mut().insert(self);
        response
    }
}

/// A client's string for an error message: in backquotes, without control characters, cut when long.
pub fn quoted(text: &str) -> String {
    let head: String = text.chars().take(QUOTE_CHARS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(QUOTE_CHARS).is_some() { format!("`{head}…`") } else { format!("`{head}`") }
}

impl From<tiger_store::Error> for ApiError {
    fn from(error: tiger_store::Error) -> ApiError {
        use tiger_store::Error;
        let message = error.to_string();
        match error {
            Error::NotFound("the model") => ApiError::new(ErrorType::NotFound, ErrorCode::ModelNotFound, message).param("model"),
            Error::NotFound(_) => ApiError::new(ErrorType::NotFound, ErrorCode::NotFound, message),
            Error::NameTaken(_) => ApiError::new(ErrorType::Conflict, ErrorCode::NameTaken, message).param("name"),
            Error::Invalid { param, .. } => ApiError::invalid(param, message),
            Error::ChatMoved { .. } => ApiError::new(ErrorType::Conflict, ErrorCode::Conflict, message).param("version"),
            Error::ChatsFull(_) => ApiError::new(ErrorType::Validation, ErrorCode::InvalidParameter, message),
            Error::OwnerExists | Error::OwnerStays => ApiError::new(ErrorType::Conflict, ErrorCode::Conflict, message),
            Error::BadInvitation => ApiError::new(ErrorType::Permission, ErrorCode::InvalidCredentials, message).param("invitation"),
            Error::RevisionMoved { .. } => ApiError::new(ErrorType::Conflict, ErrorCode::RevisionConflict, message),
            Error::Cancelled | Error::Fenced => ApiError::new(ErrorType::Conflict, ErrorCode::ModelDeleted, message),
            Error::QueueFull(_) => ApiError::new(ErrorType::RateLimit, ErrorCode::QueueFull, message).retry_after(10),
            Error::WeightsGone(_) => ApiError::new(ErrorType::Conflict, ErrorCode::Conflict, message).param("revision"),
            Error::DiskFull => ApiError::new(ErrorType::Unavailable, ErrorCode::DiskFull, message),
            Error::DamagedBlob { .. } => {
                tracing::error!(detail = %message, "damaged weights");
                ApiError::new(
                    ErrorType::Unavailable,
                    ErrorCode::LoadFailed,
                    "the stored weights of this model are damaged; roll it back, or ask the operator",
                )
            }
            _ => ApiError::internal(message),
        }
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> ApiError {
        let message = rejected.to_string();
        match rejected {
            Rejected::QueueFull { retry_after_s, .. } => {
                ApiError::new(ErrorType::RateLimit, ErrorCode::QueueFull, message).retry_after(u64::from(retry_after_s))
            }
            Rejected::Draining => ApiError::draining(),
            Rejected::Invalid(_) => ApiError::new(ErrorType::Validation, ErrorCode::InvalidParameter, message),
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        let message = error.to_string();
        match error {
            EngineError::Load(_) => ApiError::new(ErrorType::Unavailable, ErrorCode::LoadFailed, message),
            EngineError::Constraint(_) => ApiError::refused(ErrorCode::UnsupportedSchema, "response_format", message),
            EngineError::Diverged(_) => {
                let message = format!("{message}; nothing was changed; try a lower learning_rate or smaller rewards");
                ApiError::new(ErrorType::Validation, ErrorCode::TrainingDiverged, message)
            }
            EngineError::Invalid(_) => ApiError::new(ErrorType::Validation, ErrorCode::InvalidParameter, message),
            EngineError::OutOfMemory(_) => ApiError::new(ErrorType::Unavailable, ErrorCode::OutOfMemory, message),
            EngineError::Cancelled => ApiError::new(ErrorType::Unavailable, ErrorCode::Cancelled, "the request was cancelled; try again"),
            EngineError::Internal => ApiError::internal("the engine reported an internal error"),
        }
    }
}

impl ApiError {
    /// 503 while the server stops.
    pub fn draining() -> ApiError {
        let message = "the server is shutting down; try again when it is back";
        ApiError::new(ErrorType::Unavailable, ErrorCode::Draining, message).retry_after(5)
    }

    /// What an answer made by a library (404, 405, 413, a panic) becomes; `None` for one that is no error.
    pub fn of_status(status: StatusCode) -> Option<ApiError> {
        let (kind, code, message) = match status.as_u16() {
            404 => (ErrorType::NotFound, ErrorCode::NotFound, "there is nothing at this path; /openapi.json lists the paths"),
            405 => {
                (ErrorType::MethodNotAllowed, ErrorCode::MethodNotAllowed, "this path does not take this method; /openapi.json lists them")
            }
            408 => (ErrorType::Timeout, ErrorCode::RequestTimeout, "the request took too long to arrive; send it again"),
            413 => (ErrorType::TooLarge, ErrorCode::BodyTooLarge, "the body is too large; send less text or split the request"),
            400 | 411 | 414 | 415 | 417 | 431 => {
                (ErrorType::InvalidRequest, ErrorCode::BadRequest, "the request could not be read; send JSON as /openapi.json describes")
            }
            s if s >= 500 => return Some(ApiError::internal(format!("a layer answered {s}"))),
            _ => return None,
        };
        Some(ApiError::new(kind, code, message))
    }
}

/// A JSON body. Not JSON: 400. JSON of another shape: 422 with the field. Too large: 413. Too slow: 408. The content type is not looked at.
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T>(pub T);

impl<T, S> FromRequest<S> for ApiJson<T>
where
    T: DeserializeOwned,
    App: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let limit: Duration = App::from_ref(state).limits().body_time;
        let reading = tokio::time::timeout(limit, Bytes::from_request(request, state)).await;
        let read = reading.map_err(|_| ApiError::of_status(StatusCode::REQUEST_TIMEOUT).unwrap_or_else(ApiError::draining))?;
        let bytes = read.map_err(|rejection| {
            let status = rejection.into_response().status();
            ApiError::of_status(status).unwrap_or_else(|| ApiError::internal(format!("body rejected with {status}")))
        })?;
        parse_json(&bytes).map(ApiJson)
    }
}

/// Reads JSON; the error names the field. A whole number may be written as 3.0, which JSON does not tell from 3, in bodies of at most
/// [`FRACTIONS_BYTES`].
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Derived readers take an array of the fields, too.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|error| malformed(&error))?;
        let message = "the body is an array; send an object as /openapi.json describes";
        return Err(ApiError::new(ErrorType::Validation, ErrorCode::InvalidParameter, message));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed: Result<T, _> = serde_path_to_error::deserialize(&mut deserializer);
    let value = match parsed {
        Ok(value) => value,
        Err(error) => return misshapen(bytes, error),
    };
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::new(ErrorType::InvalidRequest, ErrorCode::MalformedJson, format!("the body is not valid JSON: {error}"))
}

/// What became of a body that is not read as it stands.
fn misshapen<T: DeserializeOwned>(bytes: &[u8], error: serde_path_to_error::Error<serde_json::Error>) -> Result<T, ApiError> {
    let path = error.path().to_string();
    let inner = error.into_inner();
    // A value of the wrong type is found before the end is read; what is no JSON at all stays 400.
    if let Err(broken) = serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        return Err(malformed(&broken));
    }
    if inner.classify() != serde_json::error::Category::Data {
        return Err(malformed(&inner));
    }
    let message = inner.to_string();
    if bytes.len() <= FRACTIONS_BYTES
        && let Some(value) = without_fractions(bytes)
        && let Ok(value) = T::deserialize(value)
    {
        return Ok(value);
    }
    let param = field_of(&path, &message);
    let message: String = message.chars().take(4 * QUOTE_CHARS).collect();
    let error = ApiError::new(ErrorType::Validation, ErrorCode::InvalidParameter, message);
    Err(if param.is_empty() { error } else { error.param(param) })
}

/// The body with its whole numbers written without a fraction; `None` where there was no such fraction.
fn without_fractions(bytes: &[u8]) -> Option<Value> {
    fn walk(value: &mut Value) -> bool {
        match value {
            Value::Number(number) => {
                let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0) else { return false };
                // The first numbers beyond u64 and of i64: what is there may have been rounded to it.
                const END: f64 = 18_446_744_073_709_551_616.0;
                const START: f64 = -9_223_372_036_854_775_808.0;
                if (0.0..END).contains(&float) {
                    *number = (float as u64).into();
                } else if float > START && float < 0.0 {
                    *number = (float as i64).into();
                } else {
                    return false;
                }
                true
            }
            // Every one, not up to the first.
            Value::Array(all) => all.iter_mut().map(walk).filter(|changed| *changed).count() > 0,
            Value::Object(all) => all.values_mut().map(walk).filter(|changed| *changed).count() > 0,
            _ => false,
        }
    }
    let mut value = serde_json::from_slice(bytes).ok()?;
    walk(&mut value).then_some(value)
}

/// Where in the body serde stopped; for a missing or unknown field, that field.
fn field_of(path: &str, message: &str) -> String {
    let path = if path == "." { "" } else { path };
    let named = message.split_once("field `").and_then(|(_, rest)| rest.split_once('`')).map(|(name, _)| name);
    match named {
        Some(name) if message.starts_with("missing") || message.starts_with("unknown") || message.starts_with("duplicate") => {
            let name: String = name.chars().take(QUOTE_CHARS).collect();
            let parent = path.strip_suffix(name.as_str()).unwrap_or(path).trim_end_matches('.');
            if parent.is_empty() { name } else { format!("{parent}.{name}") }
        }
        _ => path.chars().take(2 * QUOTE_CHARS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use tiger_wire::{Against, EvaluateRequest};

    use super::*;

    fn read(text: &str) -> Result<EvaluateRequest, ApiError> {
        parse_json(text.as_bytes())
    }

    #[test]
    fn a_whole_number_may_have_a_fraction_of_nothing() {
        let read_well =
            read(r#"{"prompts": [{"messages": []}], "samples": 3.0, "against": 2e0, "temperature": 1.0, "seed": 7}"#).expect("a request");
        assert_eq!(
            (read_well.samples, read_well.against, read_well.temperature, read_well.seed),
            (Some(3), Some(Against::Revision(2)), Some(1.0), Some(7))
        );
        for (body, param) in [
            (r#"{"prompts": [], "samples": 3.5}"#, "samples"),
            (r#"{"prompts": [], "samples": -3.0}"#, "samples"),
            (r#"{"prompts": [], "seed": 1e30}"#, "seed"),
            (r#"{"prompts": [], "samples": "3", "temperature": 1.0}"#, "samples"),
        ] {
            let error = read(body).expect_err("no request");
            assert_eq!((error.kind(), error.named_param()), (ErrorType::Validation, Some(param)), "{body}");
        }
        let long = format!(r#"{{"prompts": [], "samples": 3.0}}{}"#, " ".repeat(FRACTIONS_BYTES));
        assert_eq!(read(&long).expect_err("too long").named_param(), Some("samples"));
        assert_eq!(read(r#"{"prompts": [], "samples": 3.0"#).expect_err("no JSON").kind(), ErrorType::InvalidRequest);
    }
}
