//! Chat templates: Jinja programs from the checkpoint that turn messages into the text the model was trained on.
//! They are untrusted code: fuel, output size and source size are limited and nothing outside is reachable.
//! Does not know tokens.

mod env;
mod isolate;
mod json;
mod scan;
mod strftime;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use minijinja::{Environment, ErrorKind, Value};
use serde_json::{Map, Value as Json};

use crate::error::{FormatError, quoted};
use crate::fields::{Fields, parse_object, read_optional};
use isolate::{Running, Threads, begin, isolated};

/// Longest template source, bytes; the longest published ones have about 20 kB.
pub const MAX_TEMPLATE_BYTES: u64 = 128 << 10;
/// Longest `tokenizer_config.json`, bytes: it may list some thousand added tokens.
pub const MAX_TOKENIZER_CONFIG_BYTES: u64 = 8 << 20;
/// Longest rendered text, bytes, beyond what the messages themselves have.
pub const MAX_RENDER_EXTRA_BYTES: usize = 1 << 20;
/// How often the messages' bytes may be written to the output. Real templates write each once.
const MAX_RENDER_COPIES: usize = 4;
/// Steps that any render may take. Published templates need some hundreds.
const BASE_STEPS: u64 = 50_000;
/// Steps more for each message; published templates need under 200.
const STEPS_PER_MESSAGE: u64 = 500;
/// The engine charges a step for every 64 bytes of text made or read; this pays for each input byte 16 times.
const INPUT_BYTES_PER_STEP: u64 = 4;
/// Recursions of the compiler that one byte of source can cause, in the unit of a render's steps: expressions nest by
/// two bytes a level, and a level takes several calls.
const STEPS_PER_SOURCE_BYTE: u64 = 4;
/// Most steps of any render, whatever its size: bounds the stack too. Enough for 4 MB of messages.
const MAX_STEPS: u64 = 1_000_000;

const TEMPLATE_FILE: &str = "chat_template.jinja";
const CONFIG_FILE: &str = "tokenizer_config.json";
const LEGACY_MAP_FILE: &str = "special_tokens_map.json";
/// Variables that templates may use for special tokens.
const SPECIAL_TOKENS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"];
/// Mark put after the last message to find where its text ends. Its trailing space shows whether the template trims.
const CONTINUE_MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// One message as templates see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// `system`, `user`, `assistant` or `tool`; the template decides which orders it takes.
    pub role: String,
    /// Text.
    pub content: String,
    /// What else templates may look at: `tool_calls`, `tool_call_id`, `name`.
    pub fields: Map<String, Json>,
}

impl Message {
    /// A message from borrowed parts.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), fields: Map::new() }
    }

    fn as_value(&self) -> Value {
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), json::from_json(value)));
        let own = [("role", Value::from(self.role.as_str())), ("content", Value::from(self.content.as_str()))];
        Value::from_pairs(own.into_iter().chain(fields))
    }

    /// Bytes of text, for the limits of a render.
    fn bytes(&self) -> usize {
        let fields = if self.fields.is_empty() { 0 } else { Json::Object(self.fields.clone()).to_string().len() };
        self.role.len() + self.content.len() + fields
    }
}

/// How a model writes a call of a tool, told by its template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolStyle {
    /// `<tool_call>` JSON `</tool_call>`: Hermes, Qwen.
    Tagged,
    /// `[TOOL_CALLS]` and a JSON array: Mistral.
    Listed,
    /// The whole answer is one JSON object with `parameters`: Llama 3.1.
    Bare,
}

impl ToolStyle {
    fn of(source: &str) -> Option<ToolStyle> {
        if !source.contains("tools") {
            None
        } else if source.contains("<tool_call>") {
            Some(ToolStyle::Tagged)
        } else if source.contains("[TOOL_CALLS]") {
            Some(ToolStyle::Listed)
        } else {
            Some(ToolStyle::Bare)
        }
    }
}

/// How the rendered text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// After the last message's end of turn.
    Closed,
    /// With the header of the assistant's turn, ready to generate.
    GenerationPrompt,
    /// In the middle of the last message, right after its text, ready to continue it.
    ContinueFinal,
}

/// What a render depends on beside the messages.
#[derive(Debug, Clone, Copy)]
pub struct Render<'a> {
    /// How the text ends.
    pub ending: Ending,
    /// Tools as the template is to show them: an array of `{"type": "function", "function": {…}}`.
    pub tools: Option<&'a Json>,
    /// The time that templates see as now, seconds since 1970-01-01 UTC. Given, so that renders are reproducible.
    pub now_unix_s: i64,
}

/// A render that goes on in another thread.
pub struct Rendering(Running);

impl Rendering {
    /// How long to wait for it.
    pub const DEADLINE: Duration = isolate::DEADLINE;

    /// Ends the waiting, after [`Rendering::DEADLINE`]: until the render comes to its end its template refuses others. Returns what to
    /// tell the caller.
    pub fn give_up(self) -> FormatError {
        self.0.give_up();
        run_error(isolate::TOO_LONG)
    }
}

/// A prompt and the response that follows it, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptParts {
    /// The messages up to and including the generation prompt.
    pub prompt: String,
    /// The response and everything that the template puts behind it: the end of turn, for some families a line break.
    pub response: String,
}

/// A compiled chat template with its checkpoint's special tokens.
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    tool_style: Option<ToolStyle>,
    special_tokens: BTreeMap<&'static str, String>,
    threads: Threads,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("special_tokens", &self.special_tokens).finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// Reads a checkpoint folder: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json`.
    /// `None` when the checkpoint has no template (a base model).
    pub fn open(dir: &Path) -> Result<Option<Self>, FormatError> {
        let source = read_optional(&dir.join(TEMPLATE_FILE), MAX_TEMPLATE_BYTES)?;
        let config = read_optional(&dir.join(CONFIG_FILE), MAX_TOKENIZER_CONFIG_BYTES)?;
        let legacy = read_optional(&dir.join(LEGACY_MAP_FILE), MAX_TOKENIZER_CONFIG_BYTES)?;
        Self::from_bytes(source.as_deref(), config.as_deref(), legacy.as_deref())
    }

    /// The same from the files' contents: `chat_template.jinja`, `tokenizer_config.json`, `special_tokens_map.json`.
    pub fn from_bytes(source: Option<&[u8]>, config: Option<&[u8]>, legacy_map: Option<&[u8]>) -> Result<Option<Self>, FormatError> {
        let config = config.map(|b| parse_object(CONFIG_FILE, b)).transpose()?.unwrap_or_default();
        let config = Fields::new(CONFIG_FILE, &config);
        let legacy_map = legacy_map.map(|b| parse_object(LEGACY_MAP_FILE, b)).transpose()?.unwrap_or_default();
        let legacy_map = Fields::new(LEGACY_MAP_FILE, &legacy_map);
        let mut special_tokens = BTreeMap::new();
        for name in SPECIAL_TOKENS {
            let token = match special_token(&config, name)? {
                Some(token) => Some(token),
                None => special_token(&legacy_map, name)?,
            };
            if let Some(token) = token {
                special_tokens.insert(name, token);
            }
        }
        let found = match source {
            Some(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| FormatError::invalid(TEMPLATE_FILE, "file", "is not UTF-8"))?;
                Some((TEMPLATE_FILE, text.to_owned()))
            }
            None => configured_template(&config)?.map(|text| (CONFIG_FILE, text)),
        };
        found.map(|(file, text)| Self::compile(file, &text, special_tokens)).transpose()
    }

    /// Compiles `source`; `special_tokens` are strings by name, such as `bos_token`.
    pub fn compile(file: &str, source: &str, special_tokens: BTreeMap<&'static str, String>) -> Result<Self, FormatError> {
        if source.len() as u64 > MAX_TEMPLATE_BYTES {
            let problem = format!("is {} bytes long, at most {MAX_TEMPLATE_BYTES} are allowed", source.len());
            return Err(FormatError::invalid(file, "chat_template", problem));
        }
        scan::check(source).map_err(|problem| FormatError::invalid(file, "chat_template", problem))?;
        let threads = Threads::default();
        let text = source.to_owned();
        let steps = BASE_STEPS + source.len() as u64 * STEPS_PER_SOURCE_BYTE;
        let env = isolated(&threads, steps, move || env::environment(&text).map_err(|e| format!("does not compile: {e}")))
            .unwrap_or_else(|problem| Err(problem.to_owned()))
            .map_err(|problem| FormatError::invalid(file, "chat_template", problem))?;
        Ok(Self { env, source: source.to_owned(), tool_style: ToolStyle::of(source), special_tokens, threads })
    }

    /// The template as written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How the model writes a call of a tool; `None` when the template does not show tools.
    pub fn tool_style(&self) -> Option<ToolStyle> {
        self.tool_style
    }

    /// A special token's string by its name, such as `eos_token`.
    pub fn special_token(&self, name: &str) -> Option<&str> {
        self.special_tokens.get(name).map(String::as_str)
    }

    /// The text of a conversation. [`FormatError::TemplateRaised`] when the template refuses the messages.
    pub fn render(&self, messages: &[Message], how: &Render<'_>) -> Result<String, FormatError> {
        let (steps, render) = self.prepare(messages, how)?;
        isolated(&self.threads, steps, render).unwrap_or_else(|problem| Err(run_error(problem)))
    }

    /// [`ChatTemplate::render`] for callers that must not block: `done` gets the text, in another thread, with a stack as large as the
    /// render's. Where `done` is dropped uncalled, the template engine failed.
    pub fn render_then(
        &self,
        messages: &[Message],
        how: &Render<'_>,
        done: impl FnOnce(Result<String, FormatError>) + Send + 'static,
    ) -> Result<Rendering, FormatError> {
        let (steps, render) = self.prepare(messages, how)?;
        begin(&self.threads, steps, move || done(render())).map(Rendering).map_err(run_error)
    }

    /// The steps of a render, and the render itself.
    fn prepare(
        &self,
        messages: &[Message],
        how: &Render<'_>,
    ) -> Result<(u64, impl FnOnce() -> Result<String, FormatError> + Send + 'static + use<>), FormatError> {
        let mut marked = None;
        if how.ending == Ending::ContinueFinal {
            let mut messages = messages.to_vec();
            let last = match messages.last_mut() {
                Some(last) if self.source.contains("content") => last,
                _ => return Err(cannot_continue("there is no message that it shows")),
            };
            let text = env::py_trim(&last.content).to_owned();
            last.content.push_str(CONTINUE_MARK);
            marked = Some((messages, text));
        }
        let (steps, run) = self.run(marked.as_ref().map_or(messages, |(messages, _)| messages), how);
        let finish = move || {
            let rendered = run()?;
            match marked {
                Some((_, text)) => until_mark(rendered, &text),
                None => Ok(rendered),
            }
        };
        Ok((steps, finish))
    }

    /// Prompt and response of a finished turn, split exactly where generation would have begun.
    /// [`FormatError::NotAPrefix`] when the template shows the prompt differently once a response follows (reasoning
    /// templates that open a thinking block or drop one from the history): then tokenise the prompt, the response
    /// and [`Self::end_of_turn`] one by one. `how.ending` is not looked at.
    pub fn prompt_parts(&self, messages: &[Message], response: &str, how: &Render<'_>) -> Result<PromptParts, FormatError> {
        let prompt = self.render(messages, &Render { ending: Ending::GenerationPrompt, ..*how })?;
        let full = self.render(&with_response(messages, response), &Render { ending: Ending::Closed, ..*how })?;
        match full.strip_prefix(&prompt) {
            // The text must be there whole: a template that drops part of it is not how the model would have written it.
            Some(rest) if rest.starts_with(env::py_trim(response)) || rest.starts_with(response) => {
                Ok(PromptParts { response: rest.to_owned(), prompt })
            }
            _ => {
                let common = prompt.bytes().zip(full.bytes()).take_while(|(a, b)| a == b).count();
                Err(FormatError::NotAPrefix { common_bytes: common })
            }
        }
    }

    /// What the template puts behind an assistant's text: the end-of-turn token, for some families a line break.
    pub fn end_of_turn(&self, messages: &[Message], how: &Render<'_>) -> Result<String, FormatError> {
        let finished = with_response(messages, "x");
        let open = self.render(&finished, &Render { ending: Ending::ContinueFinal, ..*how })?;
        let closed = self.render(&finished, &Render { ending: Ending::Closed, ..*how })?;
        let end = closed.strip_prefix(&open).map(str::to_owned);
        end.ok_or_else(|| cannot_continue("it changes the text of the last message"))
    }

    fn run(&self, messages: &[Message], how: &Render<'_>) -> (u64, impl FnOnce() -> Result<String, FormatError> + Send + 'static + use<>) {
        let tools_bytes = how.tools.map_or(0, |tools| tools.to_string().len());
        let input_bytes = messages.iter().map(Message::bytes).sum::<usize>() + tools_bytes;
        let steps = BASE_STEPS + messages.len() as u64 * STEPS_PER_MESSAGE + input_bytes as u64 / INPUT_BYTES_PER_STEP;
        let steps = steps.min(MAX_STEPS);
        let mut context: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, token)| (*name, Value::from(token.as_str()))).collect();
        context.insert("messages", messages.iter().map(Message::as_value).collect());
        context.insert("tools", how.tools.map_or(Value::from(()), json::from_json));
        context.insert("documents", Value::from(()));
        context.insert("add_generation_prompt", Value::from(how.ending == Ending::GenerationPrompt));
        // A clone shares the compiled template; its steps and its clock are this render's own.
        let mut env = self.env.clone();
        env.set_fuel(Some(steps));
        let now_unix_s = how.now_unix_s;
        env.add_function("strftime_now", move |format: &str| strftime::strftime(format, now_unix_s));
        let limit_bytes = input_bytes.saturating_mul(MAX_RENDER_COPIES).saturating_add(MAX_RENDER_EXTRA_BYTES);
        let context = Value::from(context);
        (steps, move || write_out(&env, context, limit_bytes))
    }
}

/// What was rendered before the mark behind the last message, which says `text`.
fn until_mark(mut rendered: String, text: &str) -> Result<String, FormatError> {
    let at = match rendered.rfind(CONTINUE_MARK.trim_end()) {
        Some(at) if rendered.contains(text) => at,
        _ => return Err(cannot_continue("it changes the text of the last message")),
    };
    let keeps_spaces = rendered[at..].starts_with(CONTINUE_MARK);
    rendered.truncate(at);
    if !keeps_spaces {
        rendered.truncate(env::py_trim_end(&rendered).len());
    }
    Ok(rendered)
}

/// Renders into at most `limit_bytes`.
fn write_out(env: &Environment<'_>, context: Value, limit_bytes: usize) -> Result<String, FormatError> {
    let mut out = Bounded { bytes: Vec::new(), limit_bytes };
    let result = env.get_template(env::NAME).and_then(|t| t.render_captured_to(context, &mut out).map(|_| ()));
    match result {
        Ok(()) => String::from_utf8(out.bytes).map_err(|_| run_error("wrote bytes that are not UTF-8")),
        Err(e) => Err(explain(e)),
    }
}

fn with_response(messages: &[Message], response: &str) -> Vec<Message> {
    let mut all = messages.to_vec();
    all.push(Message::new("assistant", response));
    all
}

fn run_error(problem: &str) -> FormatError {
    FormatError::invalid("chat_template", "render", problem)
}

fn cannot_continue(why: &str) -> FormatError {
    run_error(&format!("the last message cannot be continued with this template: {why}"))
}

fn explain(error: minijinja::Error) -> FormatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(e) = cause {
        if let Some(raised) = e.downcast_ref::<env::Raised>() {
            return FormatError::TemplateRaised { message: raised.0.clone() };
        }
        cause = e.source();
    }
    match error.kind() {
        ErrorKind::OutOfFuel => run_error("uses more steps than any conversation of this size should need"),
        ErrorKind::WriteFailure => run_error("writes far more text than the messages have"),
        _ => run_error(&format!("failed: {error}")),
    }
}

/// A writer that refuses to grow beyond its limit.
struct Bounded {
    bytes: Vec<u8>,
    limit_bytes: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + piece.len() > self.limit_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A special token is a string or an object with `content`.
fn special_token(fields: &Fields<'_>, name: &str) -> Result<Option<String>, FormatError> {
    match fields.get(name) {
        Some(serde_json::Value::Object(_)) => {
            let object = fields.object(name)?;
            Ok(object.map(|o| o.text("content")).transpose()?.flatten().map(str::to_owned))
        }
        _ => Ok(fields.text(name)?.map(str::to_owned)),
    }
}

/// `chat_template` is a string or a list of named ones, of which `default` is the one for chat.
fn configured_template(config: &Fields<'_>) -> Result<Option<String>, FormatError> {
    const FIELD: &str = "chat_template";
    let Some(serde_json::Value::Array(list)) = config.get(FIELD) else {
        return Ok(config.text(FIELD)?.map(str::to_owned));
    };
    let named = |wanted: &str| list.iter().find(|t| t.get("name").and_then(|n| n.as_str()) == Some(wanted));
    let template = named("default").and_then(|t| t.get("template")).and_then(|t| t.as_str());
    let names: Vec<&str> = list.iter().filter_map(|t| t.get("name").and_then(|n| n.as_str())).take(8).collect();
    match template {
        Some(text) => Ok(Some(text.to_owned())),
        None => Err(config.unsupported(FIELD, quoted(&names.join(", ")), "a string, or a list with one named default")),
    }
}
