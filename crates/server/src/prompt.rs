//! Messages → token ids, for generating and for training: the checks of the contract, the template, the tokenizer, off the async threads.
//! Does not know sampling or rewards.

use std::sync::Arc;

use serde_json::Value;
use tiger_formats::template::{Ending, Message as TemplateMessage, Render, Rendering};
use tiger_formats::{CallGrammar, ChatTemplate, FormatError};
use tiger_wire::{ErrorCode, Message, Role};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::bases::{Front, THINK_CLOSE, THINK_OPEN};
use crate::error::ApiError;
use crate::limits::SHORT_PROMPT_BYTES;

/// Ends a thought at once, where an answer without thinking is asked for.
const NO_THOUGHT: &str = "\n</think>\n\n";

/// A prompt in tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// At least one.
    pub tokens: Vec<u32>,
    /// The prompt ends inside a thought, which the response goes on with.
    pub opens_thought: bool,
}

/// What a template renders: the contract's messages, or those of another dialect with tools.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// As the template sees them.
    pub messages: Vec<TemplateMessage>,
    /// As the template shows them.
    pub tools: Option<Value>,
    /// Goes on with the last message.
    pub continues: bool,
    /// Text that the answer begins with, whatever the model would say.
    pub opening: String,
    /// What calls must look like where the model may call or not.
    pub calls: Option<CallGrammar>,
}

impl Conversation {
    /// The contract's messages.
    pub fn of(messages: &[Message]) -> Conversation {
        let continues = ending(messages) == Ending::ContinueFinal;
        Conversation { messages: convert(messages), tools: None, continues, opening: String::new(), calls: None }
    }

    fn ending(&self) -> Ending {
        if self.continues { Ending::ContinueFinal } else { Ending::GenerationPrompt }
    }
}

/// A response in tokens, end of turn included.
pub type ResponseTokens = Vec<u32>;

/// What the contract says of messages, whatever the template; `param` is the field's path.
pub fn check_messages(messages: &[Message], param: &str, limit: usize) -> Result<(), ApiError> {
    if messages.is_empty() {
        return Err(ApiError::invalid(param, format!("`{param}` is empty; it needs at least one message from the user")));
    }
    if messages.len() > limit {
        return Err(ApiError::invalid(param, format!("`{param}` has {} messages; at most {limit} are allowed", messages.len())));
    }
    let late_system = messages.iter().skip(1).position(|message| message.role == Role::System);
    if let Some(at) = late_system {
        let message = "a system message must be the first message";
        return Err(ApiError::refused(ErrorCode::InvalidMessages, format!("{param}[{}].role", at + 1), message));
    }
    if messages.last().is_some_and(|message| message.role == Role::System) {
        let message = "the last message must be from the user, or an assistant message to continue";
        return Err(ApiError::refused(ErrorCode::InvalidMessages, param, message));
    }
    Ok(())
}

/// The last message of a training prompt must be from the user.
pub fn check_ends_with_user(messages: &[Message], param: &str) -> Result<(), ApiError> {
    match messages.last() {
        Some(last) if last.role == Role::User => Ok(()),
        _ => Err(ApiError::refused(ErrorCode::InvalidMessages, param, "the last message must be from the user; the responses follow it")),
    }
}

/// Renders and encodes, and blocks meanwhile.
pub fn encode_prompt(front: &Front, messages: &[Message], now_unix_s: i64) -> Result<Prompt, ApiError> {
    let ending = ending(messages);
    let text = template(front)?.render(&convert(messages), &Render { ending, tools: None, now_unix_s }).map_err(refused)?;
    tokens(front, text, ending, false)
}

/// How far the template's own thread brought a prompt.
enum Stage {
    Rendered(String),
    Encoded(Prompt),
}

/// A render that somebody waits for. A caller that leaves must not leave one behind that nobody counts if it hangs.
struct Watched(Option<Rendering>);

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(rendering), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(Rendering::DEADLINE).await;
                rendering.give_up();
            });
        }
    }
}

/// Renders and encodes off the async threads; a short prompt by one hand-over to the template's own thread and one back. With
/// `answer_only` a thought that the prompt opens is closed at once.
pub async fn prompt(front: Arc<Front>, conversation: &Conversation, now_unix_s: i64, answer_only: bool) -> Result<Prompt, ApiError> {
    let ending = conversation.ending();
    let opening = conversation.opening.clone();
    let (sender, receiver) = oneshot::channel();
    let their_front = Arc::clone(&front);
    let done = move |text: Result<String, FormatError>| {
        let stage = text.map_err(refused).and_then(|text| {
            let text = text + &opening;
            // The template's time is limited, the tokenizer's must not count.
            let short = text.len() <= SHORT_PROMPT_BYTES;
            if short { tokens(&their_front, text, ending, answer_only).map(Stage::Encoded) } else { Ok(Stage::Rendered(text)) }
        });
        // A caller that is gone needs no prompt.
        let _ = sender.send(stage);
    };
    let rendering = template(&front)?
        .render_then(&conversation.messages, &Render { ending, tools: conversation.tools.as_ref(), now_unix_s }, done)
        .map_err(refused)?;
    let mut watched = Watched(Some(rendering));
    let stage = tokio::time::timeout(Rendering::DEADLINE, receiver).await;
    let rendering = watched.0.take();
    let stage = match (stage, rendering) {
        (Err(_), Some(rendering)) => return Err(refused(rendering.give_up())),
        (Ok(Ok(stage)), _) => stage?,
        _ => return Err(ApiError::internal("a render or the tokenizer panicked")),
    };
    match stage {
        Stage::Encoded(prompt) => Ok(prompt),
        Stage::Rendered(text) => blocking(front, move |front| tokens(front, text, ending, answer_only)).await,
    }
}

fn ending(messages: &[Message]) -> Ending {
    let continues = messages.last().is_some_and(|message| message.role == Role::Assistant);
    if continues { Ending::ContinueFinal } else { Ending::GenerationPrompt }
}

/// A rendered prompt in tokens.
fn tokens(front: &Front, mut text: String, ending: Ending, answer_only: bool) -> Result<Prompt, ApiError> {
    let mut opens_thought = front.reasoning && in_thought(&text, ending == Ending::ContinueFinal);
    if opens_thought && answer_only {
        text.truncate(text.trim_end().len());
        text.push_str(NO_THOUGHT);
        opens_thought = false;
    }
    let tokens = front.tokenizer.encode(&text, false).map_err(ApiError::internal)?;
    if tokens.is_empty() {
        return Err(ApiError::refused(ErrorCode::InvalidMessages, "messages", "the messages have no text at all"));
    }
    Ok(Prompt { tokens, opens_thought })
}

/// A text as it is in tokens, as a base model without a chat template is asked; off the async threads.
pub async fn plain(front: Arc<Front>, text: String) -> Result<Prompt, ApiError> {
    let tokens = blocking(front, move |front| front.tokenizer.encode(&text, true).map_err(ApiError::internal)).await?;
    if tokens.is_empty() {
        return Err(ApiError::refused(ErrorCode::InvalidMessages, "prompt", "the prompt has no text at all"));
    }
    Ok(Prompt { tokens, opens_thought: false })
}

/// Whether what follows is thought: the last mark of the text opens one.
fn in_thought(text: &str, continues: bool) -> bool {
    if continues {
        return text.rfind(THINK_OPEN) > text.rfind(THINK_CLOSE);
    }
    text.trim_end().ends_with(THINK_OPEN)
}

/// The tokens of a response given as text, as the model would have sampled them after `prompt`: template suffix, text, end of turn.
pub fn encode_response(front: &Front, messages: &[Message], content: &str, now_unix_s: i64) -> Result<ResponseTokens, ApiError> {
    let template = template(front)?;
    let how = Render { ending: Ending::Closed, tools: None, now_unix_s };
    let messages = convert(messages);
    let text = match template.prompt_parts(&messages, content, &how) {
        Ok(parts) => parts.response,
        Err(FormatError::NotAPrefix { .. }) => {
            let prompt =
                template.render(&messages, &Render { ending: Ending::GenerationPrompt, tools: None, now_unix_s }).map_err(refused)?;
            let opened = front.reasoning && in_thought(&prompt, false);
            let end = template.end_of_turn(&messages, &how).map_err(refused)?;
            format!("{}{end}", continue_thought(content, opened))
        }
        Err(error) => return Err(refused(error)),
    };
    let mut tokens = front.tokenizer.encode(&text, false).map_err(ApiError::internal)?;
    // Some templates put a line break behind the end of turn; the model never samples it.
    if let Some(end) = tokens.iter().rposition(|token| front.end_tokens.contains(token)) {
        tokens.truncate(end + 1);
    }
    Ok(tokens)
}

/// A text answer after a prompt that opened a thought: its own thought without the mark, or none.
fn continue_thought(content: &str, opened: bool) -> String {
    if !opened {
        return content.to_owned();
    }
    match content.trim_start().strip_prefix(THINK_OPEN) {
        Some(rest) => rest.trim_start_matches('\n').to_owned(),
        None if content.contains(THINK_CLOSE) => content.to_owned(),
        None => format!("{}{content}", NO_THOUGHT.trim_start_matches('\n')),
    }
}

/// Runs `work` with the front on a thread that may block: templates and tokenizers take milliseconds per 100 kB.
pub async fn blocking<T, W>(front: Arc<Front>, work: W) -> Result<T, ApiError>
where
    T: Send + 'static,
    W: FnOnce(&Front) -> Result<T, ApiError> + Send + 'static,
{
    tokio::task::spawn_blocking(move || work(&front)).await.map_err(ApiError::internal)?
}

fn template(front: &Front) -> Result<&ChatTemplate, ApiError> {
    front.template.as_ref().ok_or_else(|| {
        let message = "this base model has no chat template, so it cannot take messages; add chat_template.jinja to its folder";
        ApiError::refused(ErrorCode::InvalidMessages, "model", message)
    })
}

fn convert(messages: &[Message]) -> Vec<TemplateMessage> {
    let role = |role: Role| match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    messages.iter().map(|message| TemplateMessage::new(role(message.role), &message.content)).collect()
}

/// A template's refusal is the caller's: its words say what it wants.
fn refused(error: FormatError) -> ApiError {
    let message = match &error {
        FormatError::TemplateRaised { message } => message.clone(),
        other => other.to_string(),
    };
    ApiError::refused(ErrorCode::InvalidMessages, "messages", message)
}
