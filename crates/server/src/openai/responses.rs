//! `responses` in their text form: one answer to a text or a conversation, nothing stored, no tools. Does not know HTTP.

use std::fmt::Write as _;
use std::time::Instant;

use axum::body::Bytes;
use serde_json::{Map, Value, json};
use tiger_wire::limits::EVENT_STREAM;
use tiger_wire::openai::{ChatCompletionRequest, ChatMessage, Content, ResponseInput, ResponseRequest};
use tiger_wire::{Chunk, GenerateStop, Sample, StopChunk, StopReason, Usage};

use super::answer::Head;
use super::chat::{self, Chat};
use super::frames::comment;
use super::others;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, quoted};
use crate::generation::Run;
use crate::stream::Frames;

/// A response request that passed every check, and what its answer repeats of it.
pub struct Checked {
    /// What will be computed.
    pub chat: Chat,
    /// Fields of the response object.
    pub echo: Map<String, Value>,
}

impl Checked {
    /// Encodes the prompt and asks the engine.
    pub async fn start(self, app: &App) -> Result<Run, ApiError> {
        self.chat.start(app).await.map_err(rename)
    }
}

/// Checks a request by turning it into a chat request.
pub async fn check(app: &App, caller: Caller, started: Instant, request: ResponseRequest) -> Result<Checked, ApiError> {
    others::check(&request.rest, &others::OF_RESPONSES)?;
    if request.max_output_tokens == Some(0) {
        return Err(ApiError::invalid("max_output_tokens", "`max_output_tokens` is 0; it must be at least 1"));
    }
    if request.text.as_ref().is_some_and(|text| !text.is_object() && !text.is_null()) {
        return Err(ApiError::invalid("text", "`text` must be an object, such as {\"format\": {\"type\": \"json_object\"}}"));
    }
    let text = request.text.as_ref().map(|text| text["format"].clone());
    super::format(text.as_ref(), "text.format")?;
    let echo = json!({
        "instructions": request.instructions, "temperature": request.temperature, "top_p": request.top_p,
        "max_output_tokens": request.max_output_tokens,
        "text": {"format": text.clone().filter(|format| !format.is_null()).unwrap_or_else(|| json!({"type": "text"}))},
    });
    let mut messages: Vec<ChatMessage> = request.instructions.into_iter().map(|text| message("system", text)).collect();
    let added = messages.len();
    match request.input {
        ResponseInput::Text(text) => messages.push(message("user", text)),
        ResponseInput::Items(items) => {
            for (at, one) in items.into_iter().enumerate() {
                messages.extend(item_message(one, at)?);
            }
        }
    }
    // The instructions stand where a conversation's own system message would.
    if let Some(at) = messages.iter().skip(added).position(|one| added > 0 && (one.role == "system" || one.role == "developer")) {
        let message = "give `instructions` or a system message, not both";
        return Err(ApiError::invalid(format!("input[{at}].role"), message));
    }
    let chat = ChatCompletionRequest {
        model: request.model,
        messages,
        stream: request.stream,
        stream_options: None,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: None,
        min_p: None,
        n: None,
        max_tokens: None,
        max_completion_tokens: request.max_output_tokens,
        stop: None,
        seed: None,
        logprobs: None,
        top_logprobs: None,
        response_format: text,
        tools: None,
        tool_choice: None,
        rest: Map::new(),
    };
    let chat = chat::check(app, caller, started, chat).await.map_err(rename)?;
    let Value::Object(echo) = echo else { return Err(ApiError::internal("an object is an object")) };
    Ok(Checked { chat, echo })
}

fn message(role: &str, text: String) -> ChatMessage {
    ChatMessage {
        role: role.to_owned(),
        content: Some(Content::Text(text)),
        name: None,
        tool_calls: None,
        tool_call_id: None,
        rest: Map::new(),
    }
}

/// One item of the input. Thoughts of earlier answers are left out, as templates do.
fn item_message(item: Value, at: usize) -> Result<Option<ChatMessage>, ApiError> {
    match item["type"].as_str().unwrap_or("message") {
        "message" => {}
        "reasoning" => return Ok(None),
        kind => {
            let message = format!("items of type {} are not supported; send messages", quoted(kind));
            return Err(ApiError::invalid(format!("input[{at}].type"), message));
        }
    }
    let read: Result<ChatMessage, _> = serde_json::from_value(item);
    let refused = |error: serde_json::Error| {
        ApiError::invalid(
            format!("input[{at}]"),
            format!("{error}; a message has `role` and `content`, a text or parts of type `input_text`"),
        )
    };
    read.map(Some).map_err(refused)
}

/// Errors name this endpoint's fields.
fn rename(error: ApiError) -> ApiError {
    let param = error.named_param().map(|param| match param {
        "max_completion_tokens" | "max_tokens" => "max_output_tokens".to_owned(),
        "response_format.json_schema.schema" => "text.format.schema".to_owned(),
        param => param.replacen("response_format", "text.format", 1).replacen("messages", "input", 1),
    });
    match param {
        Some(param) => error.param(param),
        None => error,
    }
}

/// What an answer consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Message,
}

impl Kind {
    fn id(self, head: &Head) -> String {
        head.id.replacen("resp", if self == Kind::Message { "msg" } else { "rs" }, 1)
    }

    fn part(self, text: &str) -> Value {
        match self {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": text}),
            Kind::Message => json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
        }
    }

    fn item(self, head: &Head, status: &str, content: Vec<Value>) -> Value {
        match self {
            Kind::Reasoning => json!({"id": self.id(head), "type": "reasoning", "status": status, "summary": [], "content": content}),
            Kind::Message => json!({"id": self.id(head), "type": "message", "status": status, "role": "assistant", "content": content}),
        }
    }

    /// Name of the events of its text.
    fn text_event(self) -> &'static str {
        if self == Kind::Message { "response.output_text" } else { "response.reasoning_text" }
    }
}

/// `completed`, or `incomplete` where `max_output_tokens` or the context cut it.
fn status(reason: StopReason) -> &'static str {
    if reason == StopReason::MaxTokens { "incomplete" } else { "completed" }
}

/// The whole response object; `end` is `None` while it goes on.
fn response(head: &Head, echo: &Map<String, Value>, output: Vec<Value>, end: Option<(StopReason, &Usage)>) -> Value {
    let cut = matches!(end, Some((StopReason::MaxTokens, _)));
    let usage = end.map(|(_, usage)| {
        json!({
            "input_tokens": usage.input_tokens, "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input_tokens + usage.output_tokens
        })
    });
    let mut whole = json!({
        "id": head.id, "object": "response", "created_at": head.created, "status": end.map_or("in_progress", |(reason, _)| status(reason)),
        "error": null, "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})), "metadata": {}, "model": head.model,
        "output": output, "parallel_tool_calls": false, "previous_response_id": null, "store": false, "tool_choice": "none", "tools": [],
        "truncation": "disabled", "usage": usage
    });
    for (name, value) in echo {
        whole[name] = value.clone();
    }
    whole
}

/// The answer.
pub fn answer(head: &Head, echo: &Map<String, Value>, sample: &Sample, usage: &Usage) -> Value {
    let ended = status(sample.stop_reason);
    let thought = sample.reasoning.as_deref().filter(|text| !text.is_empty());
    let mut output: Vec<Value> =
        thought.map(|text| Kind::Reasoning.item(head, "completed", vec![Kind::Reasoning.part(text)])).into_iter().collect();
    output.push(Kind::Message.item(head, ended, vec![Kind::Message.part(&sample.content)]));
    response(head, echo, output, Some((sample.stop_reason, usage)))
}

/// Events of the answer.
pub struct ResponseFrames {
    head: Head,
    echo: Map<String, Value>,
    sequence: u64,
    began: bool,
    /// Items so far; the last is open.
    items: Vec<(Kind, String)>,
}

impl ResponseFrames {
    /// For one request.
    pub fn new(head: Head, echo: Map<String, Value>) -> ResponseFrames {
        ResponseFrames { head, echo, sequence: 0, began: false, items: Vec::new() }
    }

    fn event(&mut self, out: &mut String, kind: &str, mut fields: Value) {
        fields["type"] = Value::from(kind);
        fields["sequence_number"] = Value::from(self.sequence);
        self.sequence += 1;
        let _ = write!(out, "event: {kind}\ndata: {fields}\n\n");
    }

    fn begin(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.began, true) {
            return;
        }
        let empty = response(&self.head, &self.echo, Vec::new(), None);
        self.event(out, "response.created", json!({"response": empty}));
        self.event(out, "response.in_progress", json!({"response": empty}));
    }

    /// Where the open item's only part is.
    fn place(&self, kind: Kind, mut fields: Value) -> Value {
        fields["item_id"] = Value::from(kind.id(&self.head));
        fields["output_index"] = Value::from(self.items.len().saturating_sub(1));
        fields["content_index"] = Value::from(0);
        if kind == Kind::Message && fields.get("part").is_none() {
            fields["logprobs"] = json!([]);
        }
        fields
    }

    /// Makes an item of this kind the open one.
    fn open(&mut self, kind: Kind, out: &mut String) {
        if self.items.last().is_some_and(|(open, _)| *open == kind) {
            return;
        }
        self.close("completed", out);
        self.items.push((kind, String::new()));
        let item = kind.item(&self.head, "in_progress", Vec::new());
        self.event(out, "response.output_item.added", json!({"output_index": self.items.len() - 1, "item": item}));
        self.event(out, "response.content_part.added", self.place(kind, json!({"part": kind.part("")})));
    }

    fn close(&mut self, status: &str, out: &mut String) {
        let Some((kind, text)) = self.items.last().cloned() else { return };
        self.event(out, &format!("{}.done", kind.text_event()), self.place(kind, json!({"text": text})));
        self.event(out, "response.content_part.done", self.place(kind, json!({"part": kind.part(&text)})));
        let item = kind.item(&self.head, status, vec![kind.part(&text)]);
        self.event(out, "response.output_item.done", json!({"output_index": self.items.len() - 1, "item": item}));
    }

    fn text(&mut self, kind: Kind, text: Option<&str>, out: &mut String) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        self.open(kind, out);
        if let Some((_, whole)) = self.items.last_mut() {
            whole.push_str(text);
        }
        self.event(out, &format!("{}.delta", kind.text_event()), self.place(kind, json!({"delta": text})));
    }

    fn stop(&mut self, stop: &GenerateStop, out: &mut String) {
        self.begin(out);
        self.open(Kind::Message, out);
        let ended = status(stop.stop_reason);
        self.close(ended, out);
        let last = self.items.len() - 1;
        let item = |(at, (kind, text)): (usize, &(Kind, String))| {
            kind.item(&self.head, if at == last { ended } else { "completed" }, vec![kind.part(text)])
        };
        let output = self.items.iter().enumerate().map(item).collect();
        let whole = response(&self.head, &self.echo, output, Some((stop.stop_reason, &stop.usage)));
        self.event(out, &format!("response.{ended}"), json!({"response": whole}));
    }
}

impl Frames for ResponseFrames {
    fn media_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn frame(&mut self, chunk: &Chunk) -> Bytes {
        let mut out = String::new();
        match chunk {
            Chunk::Info(info) => comment(&mut out, &info.message),
            Chunk::Delta(delta) => {
                self.begin(&mut out);
                self.text(Kind::Reasoning, delta.reasoning.as_deref(), &mut out);
                self.text(Kind::Message, delta.delta.as_deref(), &mut out);
            }
            Chunk::Stop(stop) => {
                if let StopChunk::Generate(stop) = stop.as_ref() {
                    self.stop(stop, &mut out);
                }
            }
            Chunk::Error(failed) => {
                let error = super::frames::error(&failed.error).error;
                self.event(&mut out, "error", json!({"code": error.code, "message": error.message, "param": error.param}));
            }
            Chunk::Progress(_) => {}
        }
        Bytes::from(out)
    }
}
