//! The Rust client of a TigerCity server: typed requests and answers, streams, retries. Knows only `wire`.
//!
//! ```no_run
//! # async fn example() -> Result<(), tiger_client::Error> {
//! use tiger_client::Client;
//! use tiger_wire::{GenerateRequest, Message, Role};
//!
//! let client = Client::new("http://localhost:45678", &std::env::var("TIGER_API_KEY").unwrap_or_default())?;
//! let messages = vec![Message::new(Role::User, "Hello!")];
//! let answer = client.generate(&GenerateRequest { model: "tiger-nano".into(), messages, ..Default::default() }).await?;
//! println!("{}", answer.message.content);
//! # Ok(())
//! # }
//! ```

mod form;
mod lines;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use tiger_wire::limits::IDEMPOTENCY_KEY_HEADER;
use tiger_wire::{
    Chunk, CreateModelRequest, DeleteModelResponse, ErrorBody, ErrorEnvelope, EvaluateRequest, EvaluateResponse, GenerateRequest,
    GenerateResponse, ModelInfo, PatchModelRequest, RevisionInfo, RollbackRequest, TrainRequest, TrainResponse,
};

pub use form::NewAdapter;
use lines::Lines;

/// Tries of a request that may be repeated: connection failures, 429 and 503.
const TRIES: u32 = 4;
/// First pause between tries; doubled each time unless the server names its own.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause that a server can ask for before the error is given to the caller.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Time to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The lines of a streamed answer; exactly one `stop` or `error` ends it. Dropping it is a hang-up.
pub type Chunks = BoxStream<'static, Result<Chunk, Error>>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with an error; the text is the server's.
    #[error("{}", .body.message)]
    Api {
        /// HTTP status.
        status: u16,
        /// Type, code, message, field and request id.
        body: Box<ErrorBody>,
    },
    /// No answer at all.
    #[error("cannot reach {url}: {reason}")]
    Unreachable {
        /// Where the client looked.
        url: String,
        /// Why it failed.
        reason: String,
    },
    /// The answer is none of this API's.
    #[error("unexpected answer from the server: {0}")]
    Protocol(String),
    /// The address or the key cannot be used in a request.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// The id to quote when reporting a problem.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Error::Api { body, .. } => Some(&body.request_id),
            _ => None,
        }
    }

    /// HTTP status, if the server answered.
    pub fn status(&self) -> Option<u16> {
        match self {
            Error::Api { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Talks to one server with one key. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Client {
    /// `base_url` without `/v1`, e.g. `http://localhost:45678`. The key is sent as a bearer token and printed nowhere.
    pub fn new(base_url: &str, key: &str) -> Result<Client, Error> {
        let base = base_url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            return Err(Error::Invalid(format!("the server's address must start with http:// or https://, not {base_url:?}")));
        }
        if key.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(Error::Invalid("the API key has characters that no key has; copy it again".into()));
        }
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).build().map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(Client { http, base, key: key.to_owned() })
    }

    /// Every model that this key may use, base models first.
    pub async fn models(&self) -> Result<Vec<ModelInfo>, Error> {
        self.get("/v1/models").await
    }

    /// One model by id or name.
    pub async fn model(&self, id: &str) -> Result<ModelInfo, Error> {
        self.get(&format!("/v1/models/{}", encode(id))).await
    }

    /// Makes a private copy of a base or of another private model.
    pub async fn create(&self, request: &CreateModelRequest) -> Result<ModelInfo, Error> {
        self.send(|| self.request(Method::POST, "/v1/models").json(request), false).await
    }

    /// Makes a private model from an adapter in PEFT's form.
    pub async fn import_adapter(&self, adapter: &NewAdapter) -> Result<ModelInfo, Error> {
        let (kind, body) = adapter.form();
        let request = || self.request(Method::POST, "/v1/adapters").header(reqwest::header::CONTENT_TYPE, &kind).body(body.clone());
        self.send(request, false).await
    }

    /// A file of an own model's adapter, `adapter_config.json` or `adapter_model.safetensors`, at a revision or the newest.
    pub async fn adapter_file(&self, id: &str, file: &str, revision: Option<u64>) -> Result<Bytes, Error> {
        let query = revision.map_or_else(String::new, |revision| format!("?revision={revision}"));
        let path = format!("/v1/models/{}/adapter/{}{query}", encode(id), encode(file));
        let answer = self.attempt(|| self.request(Method::GET, &path), true).await?;
        answer.bytes().await.map_err(|e| self.unreachable(&e))
    }

    /// Changes an own model's description or defaults.
    pub async fn patch(&self, id: &str, request: &PatchModelRequest) -> Result<ModelInfo, Error> {
        self.send(|| self.request(Method::PATCH, &format!("/v1/models/{}", encode(id))).json(request), true).await
    }

    /// Deletes an own model.
    pub async fn delete(&self, id: &str) -> Result<DeleteModelResponse, Error> {
        self.send(|| self.request(Method::DELETE, &format!("/v1/models/{}", encode(id))), false).await
    }

    /// All of a model's revisions with their metrics, newest first, page by page.
    pub async fn revisions(&self, id: &str) -> Result<Vec<RevisionInfo>, Error> {
        let mut all: Vec<RevisionInfo> = Vec::new();
        loop {
            let page = self.revisions_page(id, None, all.last().map(|last| last.revision)).await?;
            let ended = page.last().is_none_or(|last| last.revision == 0);
            all.extend(page);
            if ended {
                return Ok(all);
            }
        }
    }

    /// At most `limit` revisions before revision `before`, newest first. The server may give fewer; after revision 0 there is none.
    pub async fn revisions_page(&self, id: &str, limit: Option<u32>, before: Option<u64>) -> Result<Vec<RevisionInfo>, Error> {
        let limit = limit.map(|limit| format!("limit={limit}"));
        let query: Vec<String> = limit.into_iter().chain(before.map(|before| format!("before={before}"))).collect();
        self.get(&format!("/v1/models/{}/revisions?{}", encode(id), query.join("&"))).await
    }

    /// A revision beside its parent or another revision, on given prompts.
    pub async fn evaluate(&self, id: &str, request: &EvaluateRequest) -> Result<EvaluateResponse, Error> {
        let whole = EvaluateRequest { stream: false, ..request.clone() };
        self.send(|| self.request(Method::POST, &format!("/v1/models/{}/evaluate", encode(id))).json(&whole), true).await
    }

    /// The same, with progress. Dropping the stream cancels the work on the server.
    pub async fn evaluate_stream(&self, id: &str, request: &EvaluateRequest) -> Result<Chunks, Error> {
        let streamed = EvaluateRequest { stream: true, ..request.clone() };
        self.stream(|| self.request(Method::POST, &format!("/v1/models/{}/evaluate", encode(id))).json(&streamed), true).await
    }

    /// Makes an old revision's weights the newest revision.
    pub async fn rollback(&self, id: &str, revision: u64) -> Result<ModelInfo, Error> {
        let request = RollbackRequest { revision };
        self.send(|| self.request(Method::POST, &format!("/v1/models/{}/rollback", encode(id))).json(&request), false).await
    }

    /// One answer, whole.
    pub async fn generate(&self, request: &GenerateRequest) -> Result<GenerateResponse, Error> {
        let whole = GenerateRequest { stream: false, ..request.clone() };
        self.send(|| self.request(Method::POST, "/v1/generate_response").json(&whole), true).await
    }

    /// The answer as it is made. Dropping the stream cancels the work on the server.
    pub async fn generate_stream(&self, request: &GenerateRequest) -> Result<Chunks, Error> {
        let streamed = GenerateRequest { stream: true, ..request.clone() };
        self.stream(|| self.request(Method::POST, "/v1/generate_response").json(&streamed), true).await
    }

    /// Trains one step; with an `idempotency_key` a repeated call gets the first one's answer and changes nothing.
    pub async fn train(&self, request: &TrainRequest, idempotency_key: Option<&str>) -> Result<TrainResponse, Error> {
        let whole = TrainRequest { stream: false, ..request.clone() };
        self.send(|| self.train_request(&whole, idempotency_key), idempotency_key.is_some()).await
    }

    /// The same, with progress.
    pub async fn train_stream(&self, request: &TrainRequest, idempotency_key: Option<&str>) -> Result<Chunks, Error> {
        let streamed = TrainRequest { stream: true, ..request.clone() };
        self.stream(|| self.train_request(&streamed, idempotency_key), idempotency_key.is_some()).await
    }

    fn train_request(&self, request: &TrainRequest, idempotency_key: Option<&str>) -> RequestBuilder {
        let builder = self.request(Method::POST, "/v1/train").json(request);
        match idempotency_key {
            Some(key) => builder.header(IDEMPOTENCY_KEY_HEADER, key),
            None => builder,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.key)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.send(|| self.request(Method::GET, path), true).await
    }

    async fn send<T: DeserializeOwned>(&self, request: impl Fn() -> RequestBuilder, repeatable: bool) -> Result<T, Error> {
        let answer = self.attempt(request, repeatable).await?;
        let body = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        serde_json::from_slice(&body).map_err(|e| Error::Protocol(e.to_string()))
    }

    async fn stream(&self, request: impl Fn() -> RequestBuilder, repeatable: bool) -> Result<Chunks, Error> {
        let answer = self.attempt(request, repeatable).await?;
        let base = self.base.clone();
        let mut lines = Lines::default();
        let pieces = answer.bytes_stream().map(Some).chain(futures::stream::once(async { None }));
        let chunks = pieces.flat_map(move |piece| {
            let found = match piece {
                Some(Ok(bytes)) => lines.push(&bytes).into_iter().map(|line| parse_line(&line)).collect(),
                Some(Err(error)) => vec![Err(Error::Unreachable { url: base.clone(), reason: reason(&error) })],
                None => lines.finish().map(|line| parse_line(&line)).into_iter().collect(),
            };
            futures::stream::iter(found)
        });
        Ok(chunks.boxed())
    }

    /// Sends until there is an answer that is no reason to try again. A connection that was never opened changed nothing, so it may always
    /// be tried again; 429 and 503 are answered before any work.
    async fn attempt(&self, request: impl Fn() -> RequestBuilder, repeatable: bool) -> Result<reqwest::Response, Error> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            let last = attempt == TRIES;
            match request().send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status();
                    let asked = retry_after(&answer);
                    let busy = status == StatusCode::TOO_MANY_REQUESTS || (status == StatusCode::SERVICE_UNAVAILABLE && asked.is_some());
                    let wait = asked.unwrap_or(pause);
                    if last || !busy || wait > LONGEST_PAUSE {
                        return Err(api_error(answer).await);
                    }
                    pause_with_jitter(wait).await;
                }
                Err(error) if !last && (error.is_connect() || repeatable) => pause_with_jitter(pause).await,
                Err(error) => return Err(self.unreachable(&error)),
            }
            pause *= 2;
        }
        unreachable!("the loop returns on its last attempt")
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        Error::Unreachable { url: self.base.clone(), reason: reason(error) }
    }
}

/// One line of a stream.
fn parse_line(line: &[u8]) -> Result<Chunk, Error> {
    serde_json::from_slice(line).map_err(|e| Error::Protocol(format!("{e} in {:?}", String::from_utf8_lossy(line))))
}

/// The innermost cause: "connection refused" rather than three layers of "error sending request".
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn retry_after(answer: &reqwest::Response) -> Option<Duration> {
    answer.headers().get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

async fn api_error(answer: reqwest::Response) -> Error {
    let status = answer.status().as_u16();
    let body = answer.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<ErrorEnvelope>(&body) {
        Ok(envelope) => Error::Api { status, body: Box::new(envelope.error) },
        Err(_) => Error::Protocol(format!("status {status} with a body that is no error of this API; is the address right?")),
    }
}

/// Up to a quarter longer, so that many clients do not come back at the same moment.
async fn pause_with_jitter(pause: Duration) {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    tokio::time::sleep(pause + pause.mul_f64(f64::from(nanos % 1000) / 4000.0)).await;
}

/// A path segment: everything but unreserved characters as %XX (RFC 3986).
fn encode(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_segments_are_encoded() {
        assert_eq!(encode("My Model/ä"), "My%20Model%2F%C3%A4");
        assert_eq!(encode("tiger-nano_1.0"), "tiger-nano_1.0");
    }

    #[test]
    fn addresses_and_keys_are_checked() {
        assert!(Client::new("localhost:45678", "k").is_err());
        assert!(Client::new("http://localhost:45678/", "with space").is_err());
        assert_eq!(Client::new("http://localhost:45678/v1/", "k").unwrap().base, "http://localhost:45678");
    }
}
