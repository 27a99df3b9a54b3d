//! Streamed answers: chunks from a task, through a bounded channel, as NDJSON lines or server-sent events. A client that hangs up drops
//! the body, which ends the task, which frees what it held. Does not know what the chunks say.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use futures::{FutureExt, Stream};
use tiger_wire::limits::{EVENT_STREAM, NDJSON};
use tiger_wire::{Chunk, ErrorChunk, InfoChunk, StopChunk};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::error::ApiError;
use crate::limits::STREAM_CHUNKS;

/// How chunks are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// One JSON object a line.
    Lines,
    /// Server-sent events, `data:` lines.
    Events,
}

impl Framing {
    /// What the client accepts: events only where it asks for them by name.
    pub fn of(headers: &HeaderMap) -> Framing {
        let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let asked = accepts.flat_map(|value| value.split(',')).any(|part| {
            let media = part.split(';').next().unwrap_or_default().trim();
            media.eq_ignore_ascii_case(EVENT_STREAM)
        });
        if asked { Framing::Events } else { Framing::Lines }
    }
}

/// How chunks become bytes; may remember what it sent.
pub trait Frames: Send + Unpin + 'static {
    /// Of the whole answer.
    fn media_type(&self) -> &'static str;

    /// The bytes of one chunk; may be none.
    fn frame(&mut self, chunk: &Chunk) -> Bytes;
}

impl Frames for Framing {
    fn media_type(&self) -> &'static str {
        match self {
            Framing::Lines => NDJSON,
            Framing::Events => EVENT_STREAM,
        }
    }

    fn frame(&mut self, chunk: &Chunk) -> Bytes {
        // JSON has no raw line break, so one chunk is one line in both framings.
        let json = serde_json::to_string(chunk).unwrap_or_else(|_| r#"{"type":"error","error":{"type":"internal","code":"internal_error","message":"a chunk could not be written","request_id":""}}"#.to_owned());
        match self {
            Framing::Lines => Bytes::from(json + "\n"),
            Framing::Events => Bytes::from(format!("data: {json}\n\n")),
        }
    }
}

/// Where a task puts its chunks. When the client is gone every call says so.
#[derive(Debug, Clone)]
pub struct ChunkSender(mpsc::Sender<Chunk>);

/// The client hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HungUp;

impl From<HungUp> for ApiError {
    fn from(_: HungUp) -> ApiError {
        // Nobody reads it; the log calls it a hang-up.
        ApiError::from(tiger_engine::EngineError::Cancelled)
    }
}

impl ChunkSender {
    /// Sends a chunk; waits where the client is slow.
    pub async fn send(&self, chunk: Chunk) -> Result<(), HungUp> {
        self.0.send(chunk).await.map_err(|_| HungUp)
    }

    /// Sends an `info` chunk.
    pub async fn info(&self, message: impl Into<String>, progress: Option<f32>, stage: &str) -> Result<(), HungUp> {
        let info = InfoChunk { message: message.into(), progress: progress.map(f64::from), stage: Some(stage.to_owned()) };
        self.send(Chunk::Info(info)).await
    }
}

/// Ends the task when the body is dropped.
struct Chunks<F> {
    receiver: mpsc::Receiver<Chunk>,
    frames: F,
    task: AbortHandle,
}

impl<F> Drop for Chunks<F> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<F: Frames> Stream for Chunks<F> {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.receiver.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(this.frames.frame(&chunk))))
    }
}

/// Becomes true when the server stops and can wait no longer.
pub type Cut = watch::Receiver<bool>;

/// Answers with the chunks that `work` sends. What it returns becomes the last chunk: `stop`, or `error` (a panic and a cut are one too).
pub fn respond<F, W>(frames: impl Frames, request_id: String, mut cut: Cut, work: W) -> Response
where
    F: Future<Output = Result<StopChunk, ApiError>> + Send + 'static,
    W: FnOnce(ChunkSender) -> F,
{
    let (sender, receiver) = mpsc::channel(STREAM_CHUNKS);
    let sender = ChunkSender(sender);
    let future = work(sender.clone());
    let task = tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = AssertUnwindSafe(future).catch_unwind() => outcome.unwrap_or_else(|_| Err(ApiError::internal("a streaming task panicked"))),
            Ok(_) = cut.wait_for(|cut| *cut) => Err(ApiError::draining()),
        };
        let last = match outcome {
            Ok(stop) => Chunk::Stop(Box::new(stop)),
            Err(error) => {
                tracing::info!(request_id, status = error.status(), code = ?error.code(), "stream ended in an error");
                Chunk::Error(ErrorChunk { error: error.body(&request_id) })
            }
        };
        let _ = sender.send(last).await;
    });
    let media_type = HeaderValue::from_static(frames.media_type());
    let chunks = Chunks { receiver, frames, task: task.abort_handle() };
    let mut response = Response::new(Body::from_stream(chunks));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would turn a stream into one late answer.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
