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
use crate::app::App;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::stream::Frames;

/// Fields of a response that say nothing to the model, or are fine at the value that changes nothing.
fn check_rest(rest: &Map<String, Value>) -> Result<(), ApiError> {
    let mut others = rest.clone();
    for (name, value) in rest {
        let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        match name.as_str() {
            "tools" | "previous_response_id" | "conversation" | "prompt" if !empty => {
                let message = format!("`{name}` is not supported here: responses are text only and not stored; use chat/completions, or send the whole conversation as `input`");
                return Err(ApiError::invalid(name.clone(), message));
            }
            "tools" | "previous_response_id" | "conversation" | "prompt" | "tool_choice" | "reasoning" | "max_tool_calls" => {
                others.remove(name);
            }
            "top_logprobs" if value.as_u64() == Some(0) => {
                others.remove(name);
            }
            _ => {}
        }
    }
    super::check_rest(&others)
}

/// Checks a request by turning it into a chat request.
pub async fn check(app: &App, caller: Caller, started: Instant, request: ResponseRequest) -> Result<Chat, ApiError> {
    check_rest(&request.rest)?;
    let message = |role: &str, text: String| ChatMessage {
        role: role.to_owned(),
        content: Some(Content::Text(text)),
        name: None,
        tool_calls: None,
        tool_call_id: None,
        rest: Map::new(),
    };
    let mut messages: Vec<ChatMessage> = request.instructions.into_iter().map(|text| message("system", text)).collect();
    match request.input {
        ResponseInput::Text(text) => messages.push(message("user", text)),
        ResponseInput::Messages(given) => messages.extend(given),
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
        response_format: request.text.map(|text| text["format"].clone()),
        tools: None,
        tool_choice: None,
        rest: Map::new(),
    };
    chat::check(app, caller, started, chat).await.map_err(rename)
}

/// Errors name this endpoint's fields.
fn rename(error: ApiError) -> ApiError {
    let param = error.named_param().map(|param| match param {
        "max_completion_tokens" | "max_tokens" => "max_output_tokens".to_owned(),
        param => param.replacen("response_format", "text.format", 1).replacen("messages", "input", 1),
    });
    match param {
        Some(param) => error.param(param),
        None => error,
    }
}

/// What the parts of one response are made of.
struct Shape<'a> {
    head: &'a Head,
    text: &'a str,
    reasoning: &'a str,
    /// `None` while it goes on.
    end: Option<(StopReason, &'a Usage)>,
}

fn message_id(head: &Head) -> String {
    head.id.replacen("resp_", "msg_", 1)
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn item(head: &Head, status: &str, content: Vec<Value>) -> Value {
    json!({"id": message_id(head), "type": "message", "status": status, "role": "assistant", "content": content})
}

/// The whole response object.
fn response(shape: &Shape<'_>) -> Value {
    let head = shape.head;
    let cut = matches!(shape.end, Some((StopReason::MaxTokens, _)));
    let status = match shape.end {
        None => "in_progress",
        Some(_) if cut => "incomplete",
        Some(_) => "completed",
    };
    let mut output = Vec::new();
    if shape.end.is_some() {
        if !shape.reasoning.is_empty() {
            let content = json!([{"type": "reasoning_text", "text": shape.reasoning}]);
            output.push(json!({"id": head.id.replacen("resp_", "rs_", 1), "type": "reasoning", "summary": [], "content": content}));
        }
        output.push(item(head, status, vec![part(shape.text)]));
    }
    let usage = shape.end.map(|(_, usage)| {
        json!({
            "input_tokens": usage.input_tokens, "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.input_tokens + usage.output_tokens
        })
    });
    json!({
        "id": head.id, "object": "response", "created_at": head.created, "status": status, "error": null,
        "incomplete_details": cut.then(|| json!({"reason": "max_output_tokens"})), "instructions": null, "metadata": {}, "model": head.model,
        "output": output, "parallel_tool_calls": false, "previous_response_id": null, "store": false, "temperature": null, "top_p": null,
        "tool_choice": "none", "tools": [], "text": {"format": {"type": "text"}}, "truncation": "disabled", "usage": usage
    })
}

/// The answer.
pub fn answer(head: &Head, sample: &Sample, usage: &Usage) -> Value {
    let reasoning = sample.reasoning.as_deref().unwrap_or_default();
    response(&Shape { head, text: &sample.content, reasoning, end: Some((sample.stop_reason, usage)) })
}

/// Events of the answer.
pub struct ResponseFrames {
    head: Head,
    sequence: u64,
    began: bool,
    text: String,
    reasoning: String,
}

impl ResponseFrames {
    /// For one request.
    pub fn new(head: Head) -> ResponseFrames {
        ResponseFrames { head, sequence: 0, began: false, text: String::new(), reasoning: String::new() }
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
        let empty = response(&Shape { head: &self.head, text: "", reasoning: "", end: None });
        self.event(out, "response.created", json!({"response": empty}));
        self.event(out, "response.in_progress", json!({"response": empty}));
        let item = item(&self.head, "in_progress", Vec::new());
        self.event(out, "response.output_item.added", json!({"output_index": 0, "item": item}));
        self.event(out, "response.content_part.added", self.place(json!({"part": part("")})));
    }

    fn place(&self, mut fields: Value) -> Value {
        fields["item_id"] = Value::from(message_id(&self.head));
        fields["output_index"] = Value::from(0);
        fields["content_index"] = Value::from(0);
        fields
    }

    fn stop(&mut self, stop: &GenerateStop, out: &mut String) {
        self.begin(out);
        let cut = stop.stop_reason == StopReason::MaxTokens;
        let done = self.place(json!({"text": self.text, "logprobs": []}));
        self.event(out, "response.output_text.done", done);
        let done = self.place(json!({"part": part(&self.text)}));
        self.event(out, "response.content_part.done", done);
        let status = if cut { "incomplete" } else { "completed" };
        let item = item(&self.head, status, vec![part(&self.text)]);
        self.event(out, "response.output_item.done", json!({"output_index": 0, "item": item}));
        let end = Some((stop.stop_reason, &stop.usage));
        let whole = response(&Shape { head: &self.head, text: &self.text, reasoning: &self.reasoning, end });
        self.event(out, if cut { "response.incomplete" } else { "response.completed" }, json!({"response": whole}));
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
                self.reasoning.push_str(delta.reasoning.as_deref().unwrap_or_default());
                if let Some(text) = delta.delta.as_deref().filter(|text| !text.is_empty()) {
                    self.text.push_str(text);
                    let fields = self.place(json!({"delta": text, "logprobs": []}));
                    self.event(&mut out, "response.output_text.delta", fields);
                }
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
