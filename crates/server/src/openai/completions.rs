//! `completions`: text goes on without a chat template. Does not know HTTP.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use serde_json::{Map, Value};
use tiger_wire::limits::EVENT_STREAM;
use tiger_wire::openai::{Completion, CompletionChoice, CompletionLogprobs, CompletionPrompt, CompletionRequest, CompletionUsage};
use tiger_wire::{Chunk, ErrorCode, GenerateRequest, GenerateStop, Sample, StopChunk, StopReason, TokenLogprob, Usage};

use super::answer::{Head, finish_reason, text_tokens, usage};
use super::frames::{DONE, comment, error, event};
use super::others;
use crate::app::App;
use crate::auth::Caller;
use crate::bases::Front;
use crate::error::ApiError;
use crate::generation::Plan;
use crate::prompt::{Conversation, Prompt, plain};
use crate::stream::Frames;
use crate::target::Target;

/// Tokens of an answer that does not ask for a number, as OpenAI documents it.
const MAX_TOKENS: u32 = 16;
/// Most alternatives, as OpenAI documents it.
const MAX_ALTERNATIVES: u32 = 5;

/// Errors of the prompt's length name this endpoint's field.
pub fn rename(error: ApiError) -> ApiError {
    if error.named_param() == Some("messages") { error.param("prompt") } else { error }
}

/// Checks a request, finds its model, encodes its prompt.
pub async fn check(
    app: &App,
    caller: Caller,
    started: Instant,
    request: CompletionRequest,
) -> Result<(Plan, Arc<Front>, Prompt), ApiError> {
    others::check(&request.rest, &[])?;
    if request.logprobs.is_some_and(|asked| asked > MAX_ALTERNATIVES) {
        return Err(ApiError::invalid("logprobs", format!("`logprobs` must be between 0 and {MAX_ALTERNATIVES}")));
    }
    let target = Target::find(app, caller.account, &request.model).await?;
    let generate = GenerateRequest {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        max_tokens: request.max_tokens.or(Some(MAX_TOKENS)),
        stop: request.stop,
        seed: request.seed.map(i64::cast_unsigned),
        n: request.n,
        logprobs: request.logprobs.is_some(),
        top_logprobs: request.logprobs,
        ..GenerateRequest::default()
    };
    let conversation = Conversation { messages: Vec::new(), tools: None, continues: false, opening: String::new(), calls: None };
    let plan = Plan::with(target, (caller, started), (generate, conversation))?;
    let front = plan.front().await?;
    let prompt = match request.prompt {
        CompletionPrompt::Text(text) => plain(Arc::clone(&front), text).await?,
        CompletionPrompt::Texts(texts) => match <[String; 1]>::try_from(texts) {
            Ok([text]) => plain(Arc::clone(&front), text).await?,
            Err(texts) => {
                let message = format!("`prompt` has {} texts; send one request for each", texts.len());
                return Err(ApiError::invalid("prompt", message));
            }
        },
        CompletionPrompt::Tokens(tokens) => {
            let vocab = front.vocab();
            if tokens.is_empty() || tokens.iter().any(|id| *id as usize >= vocab) {
                let message = format!("a prompt of tokens needs at least one, each below {vocab}");
                return Err(ApiError::refused(ErrorCode::InvalidParameter, "prompt", message));
            }
            Prompt { tokens, opens_thought: false }
        }
    };
    Ok((plan, front, prompt))
}

fn logprobs(front: &Front, tokens: &[TokenLogprob], mut offset: usize) -> CompletionLogprobs {
    let mut all = CompletionLogprobs::default();
    let mut tops = Vec::new();
    for one in text_tokens(front, tokens) {
        all.text_offset.push(offset);
        offset += one.token.chars().count();
        all.tokens.push(one.token.clone());
        all.token_logprobs.push(one.logprob);
        let top = one.top.iter().flatten().map(|top| (top.token.clone(), Value::from(f64::from(top.logprob))));
        tops.push(top.collect::<Map<String, Value>>());
    }
    all.top_logprobs = tops.iter().any(|top| !top.is_empty()).then_some(tops);
    all
}

fn completion(head: &Head, choices: Vec<CompletionChoice>, usage: Option<CompletionUsage>) -> Completion {
    Completion {
        id: head.id.clone(),
        object: "text_completion".to_owned(),
        created: head.created,
        model: head.model.clone(),
        system_fingerprint: head.fingerprint(),
        choices,
        usage,
    }
}

/// The answer.
pub fn answer(head: &Head, front: &Front, samples: &[Sample], used: &Usage) -> Completion {
    let choice = |(sample, index): (&Sample, u32)| CompletionChoice {
        index,
        text: sample.content.clone(),
        logprobs: sample.logprobs.as_deref().map(|tokens| logprobs(front, tokens, 0)),
        finish_reason: Some(finish_reason(sample.stop_reason, false).to_owned()),
    };
    completion(head, samples.iter().zip(0..).map(choice).collect(), Some(usage(used)))
}

/// Chunks of the answer.
pub struct CompletionFrames {
    head: Head,
    front: Arc<Front>,
    include_usage: bool,
    /// Characters sent of each answer.
    offsets: Vec<usize>,
}

impl CompletionFrames {
    /// For one request.
    pub fn new(head: Head, front: Arc<Front>, include_usage: bool) -> CompletionFrames {
        CompletionFrames { head, front, include_usage, offsets: Vec::new() }
    }

    fn piece(&mut self, index: u32, text: String, tokens: Option<&[TokenLogprob]>, out: &mut String) {
        let at = index as usize;
        if self.offsets.len() <= at {
            self.offsets.resize(at + 1, 0);
        }
        let logprobs = tokens.map(|tokens| logprobs(&self.front, tokens, self.offsets[at]));
        self.offsets[at] += text.chars().count();
        event(out, &completion(&self.head, vec![CompletionChoice { index, text, logprobs, finish_reason: None }], None));
    }

    fn stop(&self, stop: &GenerateStop, out: &mut String) {
        let ends: Vec<(u32, StopReason)> = match &stop.responses {
            Some(all) => all.iter().map(|one| (one.index, one.stop_reason)).collect(),
            None => vec![(0, stop.stop_reason)],
        };
        for (index, reason) in ends {
            let finish_reason = Some(finish_reason(reason, false).to_owned());
            let last = CompletionChoice { index, text: String::new(), logprobs: None, finish_reason };
            event(out, &completion(&self.head, vec![last], None));
        }
        if self.include_usage {
            event(out, &completion(&self.head, Vec::new(), Some(usage(&stop.usage))));
        }
        out.push_str(DONE);
    }
}

impl Frames for CompletionFrames {
    fn media_type(&self) -> &'static str {
        EVENT_STREAM
    }

    fn frame(&mut self, chunk: &Chunk) -> Bytes {
        let mut out = String::new();
        match chunk {
            Chunk::Info(info) => comment(&mut out, &info.message),
            Chunk::Delta(delta) => {
                let text = delta.delta.clone().unwrap_or_default();
                self.piece(delta.index.unwrap_or(0), text, delta.logprobs.as_deref(), &mut out);
            }
            Chunk::Stop(stop) => {
                if let StopChunk::Generate(stop) = stop.as_ref() {
                    self.stop(stop, &mut out);
                }
            }
            Chunk::Error(failed) => event(&mut out, &error(&failed.error)),
            Chunk::Progress(_) => {}
        }
        Bytes::from(out)
    }
}
