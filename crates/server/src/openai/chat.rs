//! `chat/completions`: a request of OpenAI's becomes a plan of this server. Does not know answers.

use std::time::Instant;

use serde_json::{Map, Value, json};
use tiger_formats::template::Message as TemplateMessage;
use tiger_wire::openai::{ChatCompletionRequest, ChatMessage, Content};
use tiger_wire::{ErrorCode, GenerateRequest};

use super::tools::Tools;
use super::{format, history, others};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{ApiError, quoted};
use crate::generation::{Plan, Run};
use crate::prompt::Conversation;
use crate::target::Target;

/// A chat request that passed every check.
pub struct Chat {
    /// What will be computed.
    pub plan: Plan,
    /// What may be called.
    pub tools: Option<Tools>,
    /// What a grammar that is refused came from.
    grammar: &'static str,
}

impl Chat {
    /// Encodes the prompt and asks the engine.
    pub async fn start(self, app: &App) -> Result<Run, ApiError> {
        self.plan.start(app, None).await.map_err(|error| name_grammar(error, self.grammar))
    }
}

/// Errors of a grammar name the field that it came from.
fn name_grammar(error: ApiError, grammar: &str) -> ApiError {
    if error.named_param().is_some_and(|param| param.starts_with("response_format")) { error.param(grammar) } else { error }
}

/// Checks a request and finds its model.
pub async fn check(app: &App, caller: Caller, started: Instant, request: ChatCompletionRequest) -> Result<Chat, ApiError> {
    others::check(&request.rest, &[])?;
    let tools = Tools::check(request.tools.as_deref().unwrap_or_default(), request.tool_choice.as_ref())?;
    let target = Target::find(app, caller.account, &request.model).await?;
    let mut messages = messages(&request.messages, app.limits().messages)?;
    let mut generate = generate(&request)?;
    let mut conversation = Conversation { messages: Vec::new(), tools: None, continues: false, opening: String::new(), calls: None };
    let mut grammar = "response_format.json_schema.schema";
    if tools.is_some() || messages.iter().any(is_of_tools) {
        let style = target.base().front().await?.template.as_ref().and_then(|template| template.tool_style());
        if style.is_none() {
            messages = history::plain(messages);
        }
        if let Some(tools) = &tools {
            match style {
                Some(_) => conversation.tools = Some(tools.shown.clone()),
                None => tell(&mut messages, &tools.instructions()),
            }
            // A format leaves no room for calls.
            if generate.response_format.is_none() {
                conversation.calls = tools.held(style);
            }
            if conversation.calls.is_some() {
                grammar = "tools";
            }
            if let Some((opening, forced)) = tools.forced(style) {
                conversation.opening = opening;
                generate.response_format = Some(forced);
                grammar = "tools";
            }
        }
    }
    conversation.continues = messages.last().is_some_and(|last| last.role == "assistant");
    conversation.messages = messages;
    let plan = Plan::with(target, (caller, started), (generate, conversation)).map_err(|error| name_grammar(error, grammar))?;
    Ok(Chat { plan, tools, grammar })
}

fn is_of_tools(message: &TemplateMessage) -> bool {
    message.role == "tool" || message.fields.contains_key("tool_calls")
}

/// Puts instructions into the system message.
fn tell(messages: &mut Vec<TemplateMessage>, instructions: &str) {
    match messages.first_mut().filter(|first| first.role == "system") {
        Some(system) => system.content = format!("{}\n\n{instructions}", system.content),
        None => messages.insert(0, TemplateMessage::new("system", instructions)),
    }
}

fn generate(request: &ChatCompletionRequest) -> Result<GenerateRequest, ApiError> {
    if request.max_tokens.is_some() && request.max_completion_tokens.is_some() && request.max_tokens != request.max_completion_tokens {
        let message = "`max_tokens` and `max_completion_tokens` differ; give one of them";
        return Err(ApiError::invalid("max_completion_tokens", message));
    }
    if request.max_completion_tokens == Some(0) {
        return Err(ApiError::invalid("max_completion_tokens", "`max_completion_tokens` is 0; it must be at least 1"));
    }
    Ok(GenerateRequest {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        max_tokens: request.max_completion_tokens.or(request.max_tokens),
        stop: request.stop.clone(),
        // Any integer names a stream of draws.
        seed: request.seed.map(i64::cast_unsigned),
        n: request.n,
        logprobs: request.logprobs.unwrap_or(false),
        top_logprobs: request.top_logprobs,
        response_format: format(request.response_format.as_ref(), "response_format")?,
        ..GenerateRequest::default()
    })
}

/// OpenAI's messages as templates see them.
fn messages(messages: &[ChatMessage], limit: usize) -> Result<Vec<TemplateMessage>, ApiError> {
    let refused = |at: usize, field: &str, message: String| {
        Err(ApiError::refused(ErrorCode::InvalidMessages, format!("messages[{at}].{field}"), message))
    };
    if messages.is_empty() || messages.len() > limit {
        return Err(ApiError::invalid("messages", format!("`messages` has {} entries; it must have 1 to {limit}", messages.len())));
    }
    let mut converted = Vec::with_capacity(messages.len());
    for (at, message) in messages.iter().enumerate() {
        let role = match message.role.as_str() {
            "developer" => "system",
            role @ ("system" | "user" | "assistant" | "tool") => role,
            role => {
                return refused(
                    at,
                    "role",
                    format!("the role {} is unknown; roles are system, developer, user, assistant and tool", quoted(role)),
                );
            }
        };
        if role == "system" && at > 0 {
            return refused(at, "role", "a system message must be the first message".to_owned());
        }
        let content = text(message.content.as_ref(), &format!("messages[{at}].content"))?;
        if content.is_none() && message.tool_calls.is_none() {
            return refused(at, "content", "the message has no content".to_owned());
        }
        let mut converted_one = TemplateMessage::new(role, &content.unwrap_or_default());
        converted_one.fields = fields(message, at)?;
        converted.push(converted_one);
    }
    if converted.last().is_some_and(|last| last.fields.contains_key("tool_calls")) {
        return refused(
            messages.len() - 1,
            "tool_calls",
            "the last message calls tools; a `tool` message must answer each call".to_owned(),
        );
    }
    match converted.last().map(|last| last.role.as_str()) {
        Some("system") => refused(
            messages.len() - 1,
            "role",
            "the last message must be from the user, a tool, or an assistant message to continue".to_owned(),
        ),
        _ => Ok(converted),
    }
}

/// What a template may look at beside role and content.
fn fields(message: &ChatMessage, at: usize) -> Result<Map<String, Value>, ApiError> {
    let mut fields = Map::new();
    if let Some(name) = &message.name {
        fields.insert("name".to_owned(), Value::from(name.as_str()));
    }
    if let Some(id) = &message.tool_call_id {
        fields.insert("tool_call_id".to_owned(), Value::from(id.as_str()));
    }
    if let Some(calls) = &message.tool_calls {
        let mut shown = Vec::with_capacity(calls.len());
        for (number, call) in calls.iter().enumerate() {
            // Templates print arguments as JSON, so they get the value, not its text.
            let arguments: Value = serde_json::from_str(&call.function.arguments).map_err(|error| {
                let param = format!("messages[{at}].tool_calls[{number}].function.arguments");
                ApiError::invalid(param, format!("the arguments are not JSON: {error}"))
            })?;
            shown.push(json!({"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}));
        }
        fields.insert("tool_calls".to_owned(), Value::Array(shown));
    }
    Ok(fields)
}

/// The text of a content; parts are joined.
pub fn text(content: Option<&Content>, param: &str) -> Result<Option<String>, ApiError> {
    let parts = match content {
        None => return Ok(None),
        Some(Content::Text(text)) => return Ok(Some(text.clone())),
        Some(Content::Parts(parts)) => parts,
    };
    let mut joined = String::new();
    for (at, part) in parts.iter().enumerate() {
        match (part.kind.as_str(), &part.text) {
            ("text" | "input_text" | "output_text", Some(text)) => joined.push_str(text),
            (kind, _) => {
                let message = format!("parts of type {} are not supported; models here read text only", quoted(kind));
                return Err(ApiError::invalid(format!("{param}[{at}].type"), message));
            }
        }
    }
    Ok(Some(joined))
}
