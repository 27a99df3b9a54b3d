//! Finished answers in OpenAI's shapes. Does not know streams.

use std::sync::Arc;

use tiger_wire::openai::{
    AnswerMessage, ChatChoice, ChatCompletion, ChatLogprobs, ChatTokenLogprob, CompletionUsage, PromptTokensDetails, ToolCall, TopLogprob,
};
use tiger_wire::{Sample, StopReason, TokenLogprob, Usage};

use super::tools::{CallReader, Tools};
use crate::bases::Front;

/// What every answer and every chunk of it begins with.
#[derive(Debug, Clone)]
pub struct Head {
    /// `chatcmpl_…`, `cmpl_…`, `resp_…`.
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    /// Id of the model.
    pub model: String,
    /// Its revision.
    pub revision: u64,
}

impl Head {
    /// The revision as OpenAI's clients can see it.
    pub fn fingerprint(&self) -> String {
        format!("rev_{}", self.revision)
    }
}

/// Tokens.
pub fn usage(usage: &Usage) -> CompletionUsage {
    CompletionUsage {
        prompt_tokens: usage.input_tokens,
        completion_tokens: usage.output_tokens,
        total_tokens: usage.input_tokens + usage.output_tokens,
        prompt_tokens_details: PromptTokensDetails { cached_tokens: usage.cached_tokens },
    }
}

/// `stop`, `length` or `tool_calls`.
pub fn finish_reason(reason: StopReason, calls: bool) -> &'static str {
    match reason {
        _ if calls => "tool_calls",
        StopReason::MaxTokens => "length",
        StopReason::EndTurn | StopReason::StopSequence => "stop",
    }
}

/// The tokens of the text: what ends a turn is none of it, so that the tokens joined are the text.
pub fn text_tokens<'a>(front: &'a Front, tokens: &'a [TokenLogprob]) -> impl Iterator<Item = &'a TokenLogprob> {
    tokens.iter().filter(|one| !front.end_tokens.contains(&one.token_id))
}

/// Log-probabilities with the bytes that a client needs to join parts of characters.
pub fn logprobs(front: &Front, tokens: &[TokenLogprob]) -> ChatLogprobs {
    let bytes = |id: u32| Some(front.tokenizer.token_bytes(id).to_vec());
    let content = text_tokens(front, tokens).map(|one| ChatTokenLogprob {
        token: one.token.clone(),
        logprob: one.logprob,
        bytes: bytes(one.token_id),
        top_logprobs: one
            .top
            .iter()
            .flatten()
            .map(|top| TopLogprob { token: top.token.clone(), logprob: top.logprob, bytes: bytes(top.token_id) })
            .collect(),
    });
    ChatLogprobs { content: Some(content.collect()), refusal: None }
}

/// Text and calls of an answer.
fn read(tools: Option<&Tools>, content: String) -> (String, Vec<ToolCall>) {
    let Some(tools) = tools else { return (content, Vec::new()) };
    let mut reader = CallReader::new(tools);
    let mut text = reader.push(&content);
    let (rest, calls) = reader.finish();
    text.push_str(&rest);
    (text, calls)
}

/// A chat answer.
pub fn chat(head: Head, front: &Arc<Front>, tools: Option<&Tools>, samples: Vec<Sample>, used: &Usage) -> ChatCompletion {
    let choice = |(index, sample): (usize, Sample)| {
        let (text, calls) = read(tools, sample.content);
        let called = !calls.is_empty();
        ChatChoice {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            message: AnswerMessage {
                role: "assistant".to_owned(),
                content: (!called || !text.trim().is_empty()).then_some(text),
                refusal: None,
                reasoning_content: sample.reasoning,
                tool_calls: called.then_some(calls),
            },
            logprobs: sample.logprobs.as_deref().map(|tokens| logprobs(front, tokens)),
            finish_reason: finish_reason(sample.stop_reason, called).to_owned(),
            response_id: sample.response_id,
        }
    };
    ChatCompletion {
        system_fingerprint: head.fingerprint(),
        id: head.id,
        object: "chat.completion".to_owned(),
        created: head.created,
        model: head.model,
        choices: samples.into_iter().enumerate().map(choice).collect(),
        usage: usage(used),
    }
}
