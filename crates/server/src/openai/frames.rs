//! Streamed answers as OpenAI's server-sent events: this server's chunks in, theirs out, `[DONE]` at the end. Does not know how the chunks
//! are made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Bytes;
use serde::Serialize;
use tiger_wire::limits::EVENT_STREAM;
use tiger_wire::openai::{
    AnswerDelta, ChatCompletionChunk, ChatLogprobs, ChunkChoice, CompletionUsage, OpenAiErrorEnvelope, ToolCallDelta,
};
use tiger_wire::{Chunk, DeltaChunk, ErrorBody, GenerateStop, StopChunk, StopReason};

use super::answer::{Head, finish_reason, logprobs, usage};
use super::tools::{CallReader, Tools};
use crate::bases::Front;
use crate::error::ApiError;
use crate::stream::Frames;

/// One event.
pub fn event(out: &mut String, data: &impl Serialize) {
    // Writing into a string cannot fail; a chunk of plain fields always serialises.
    let _ = write!(out, "data: {}\n\n", serde_json::to_string(data).unwrap_or_default());
}

/// What is said while something loads: a comment, which clients skip and connections are kept alive by.
pub fn comment(out: &mut String, message: &str) {
    let _ = write!(out, ": {}\n\n", message.replace(['\r', '\n'], " "));
}

/// The end of every stream.
pub const DONE: &str = "data: [DONE]\n\n";

/// An error within a stream, in OpenAI's shape.
pub fn error(body: &ErrorBody) -> OpenAiErrorEnvelope {
    let mut error = ApiError::new(body.kind, body.code, body.message.clone());
    if let Some(param) = &body.param {
        error = error.param(param.clone());
    }
    super::error(&error).1
}

/// Chunks of a chat answer.
pub struct ChatFrames {
    head: Head,
    include_usage: bool,
    front: Arc<Front>,
    tools: Option<Tools>,
    /// By answer, from its first chunk on.
    readers: BTreeMap<u32, Option<CallReader>>,
}

impl ChatFrames {
    /// For one request.
    pub fn new(head: Head, front: Arc<Front>, tools: Option<Tools>, include_usage: bool) -> ChatFrames {
        ChatFrames { head, include_usage, front, tools, readers: BTreeMap::new() }
    }

    fn chunk(&self, choices: Vec<ChunkChoice>, usage: Option<CompletionUsage>) -> ChatCompletionChunk {
        ChatCompletionChunk {
            id: self.head.id.clone(),
            object: "chat.completion.chunk".to_owned(),
            created: self.head.created,
            model: self.head.model.clone(),
            system_fingerprint: self.head.fingerprint(),
            choices,
            usage,
        }
    }

    fn choice(&self, out: &mut String, choice: ChunkChoice) {
        event(out, &self.chunk(vec![choice], None));
    }

    /// The first chunk of an answer names its role.
    fn open(&mut self, index: u32, out: &mut String) {
        if self.readers.contains_key(&index) {
            return;
        }
        self.readers.insert(index, self.tools.as_ref().map(CallReader::new));
        let delta = AnswerDelta { role: Some("assistant".to_owned()), content: Some(String::new()), ..AnswerDelta::default() };
        self.choice(out, ChunkChoice { index, delta, logprobs: None, finish_reason: None });
    }

    fn delta(&mut self, chunk: &DeltaChunk, out: &mut String) {
        let index = chunk.index.unwrap_or(0);
        self.open(index, out);
        let reader = self.readers.get_mut(&index).and_then(Option::as_mut);
        let content = match (&chunk.delta, reader) {
            (Some(text), Some(reader)) => Some(reader.push(text)),
            (text, _) => text.clone(),
        };
        let told = chunk.logprobs.as_deref().map(|tokens| logprobs(&self.front, tokens));
        let told: Option<ChatLogprobs> = told.filter(|told| told.content.as_ref().is_some_and(|tokens| !tokens.is_empty()));
        let content = content.filter(|text| !text.is_empty() || told.is_some());
        if content.is_none() && chunk.reasoning.is_none() && told.is_none() {
            return;
        }
        let delta = AnswerDelta { content, reasoning_content: chunk.reasoning.clone(), ..AnswerDelta::default() };
        self.choice(out, ChunkChoice { index, delta, logprobs: told, finish_reason: None });
    }

    fn stop(&mut self, stop: &GenerateStop, out: &mut String) {
        let ends: Vec<(u32, StopReason)> = match &stop.responses {
            Some(all) => all.iter().map(|one| (one.index, one.stop_reason)).collect(),
            None => vec![(0, stop.stop_reason)],
        };
        for (index, reason) in ends {
            self.open(index, out);
            let (text, calls) = self.readers.get_mut(&index).and_then(Option::as_mut).map(CallReader::finish).unwrap_or_default();
            let called = !calls.is_empty();
            if called || !text.is_empty() {
                let calls = calls.into_iter().zip(0..).map(|(call, index)| ToolCallDelta { index, call });
                let delta = AnswerDelta {
                    content: (!text.is_empty()).then_some(text),
                    tool_calls: called.then(|| calls.collect()),
                    ..AnswerDelta::default()
                };
                self.choice(out, ChunkChoice { index, delta, logprobs: None, finish_reason: None });
            }
            let finish_reason = Some(finish_reason(reason, called).to_owned());
            self.choice(out, ChunkChoice { index, delta: AnswerDelta::default(), logprobs: None, finish_reason });
        }
        if self.include_usage {
            event(out, &self.chunk(Vec::new(), Some(usage(&stop.usage))));
        }
    }
}

impl Frames for ChatFrames {
    fn media_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn frame(&mut self, chunk: &Chunk) -> Bytes {
        let mut out = String::new();
        match chunk {
            Chunk::Info(info) => comment(&mut out, &info.message),
            Chunk::Delta(delta) => self.delta(delta, &mut out),
            Chunk::Stop(stop) => {
                if let StopChunk::Generate(stop) = stop.as_ref() {
                    self.stop(stop, &mut out);
                }
                out.push_str(DONE);
            }
            Chunk::Error(failed) => event(&mut out, &error(&failed.error)),
            Chunk::Progress(_) => {}
        }
        Bytes::from(out)
    }
}
