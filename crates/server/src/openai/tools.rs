//! Tools: shown to the model by its template (or by a system message where the template knows none), forced by a grammar where the request
//! forces one, and found again in what the model wrote. Does not know HTTP.

use serde_json::{Value, json};
use tiger_formats::{CallGrammar, ToolStyle};
use tiger_wire::openai::{CalledFunction, Tool, ToolCall};
use tiger_wire::{ResponseFormat, ResponseFormatType};

use crate::error::{ApiError, quoted};
use crate::router::random_id;

/// Most tools of a request: each costs its schema in prompt tokens.
const MAX_TOOLS: usize = 128;
/// Longest name of a function, characters.
const MAX_NAME_CHARS: usize = 64;
const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";

/// Which calls are allowed.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// None; the model is not told of the tools.
    Never,
    /// The model decides.
    Auto,
    /// One of these must be called.
    Forced(Vec<String>),
}

/// The tools of a request, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    /// As the template shows them.
    pub shown: Value,
    names: Vec<String>,
    /// What is allowed.
    pub choice: Choice,
    schemas: Vec<Value>,
    /// One of them is to be called by its schema only.
    strict: bool,
}

impl Tools {
    /// Checks `tools` and `tool_choice`; `None` where the model is not to know of any.
    pub fn check(tools: &[Tool], choice: Option<&Value>) -> Result<Option<Tools>, ApiError> {
        if tools.len() > MAX_TOOLS {
            return Err(ApiError::invalid("tools", format!("`tools` has {} entries; at most {MAX_TOOLS} are allowed", tools.len())));
        }
        for (at, tool) in tools.iter().enumerate() {
            if tool.kind != "function" {
                return Err(ApiError::invalid(format!("tools[{at}].type"), "only tools of type `function` are supported"));
            }
            let name = &tool.function.name;
            let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if name.is_empty() || name.len() > MAX_NAME_CHARS || !plain {
                let message = format!("a function's name must have 1 to {MAX_NAME_CHARS} of a-z, A-Z, 0-9, `_` and `-`");
                return Err(ApiError::invalid(format!("tools[{at}].function.name"), message));
            }
        }
        let names: Vec<String> = tools.iter().map(|tool| tool.function.name.clone()).collect();
        let choice = check_choice(choice, &names)?;
        if names.is_empty() || choice == Choice::Never {
            return Ok(None);
        }
        let empty = || json!({"type": "object", "properties": {}});
        let schemas = tools.iter().map(|tool| tool.function.parameters.clone().unwrap_or_else(empty)).collect();
        let shown = tools.iter().map(shown).collect();
        let strict = tools.iter().any(|tool| tool.function.strict == Some(true));
        Ok(Some(Tools { shown: Value::Array(shown), names, choice, schemas, strict }))
    }

    /// The system message that tells a model of the tools whose template does not.
    pub fn instructions(&self) -> String {
        format!(
            "You can call these functions:\n{}\nTo call one, answer with nothing but {{\"name\": \"its name\", \"arguments\": {{…}}}} as JSON.",
            self.shown
        )
    }

    /// Text that a forced answer begins with, and the grammar of what follows.
    pub fn forced(&self, style: Option<ToolStyle>) -> Option<(String, ResponseFormat)> {
        let Choice::Forced(allowed) = &self.choice else { return None };
        let opening = if style == Some(ToolStyle::Tagged) { format!("{OPEN}\n") } else { String::new() };
        Some((opening, ResponseFormat { kind: ResponseFormatType::JsonSchema, schema: Some(self.schema(style, allowed)) }))
    }

    /// The grammar of an answer that need not call; `None` where no tool asks for strictness: a grammar costs time at every token.
    pub fn held(&self, style: Option<ToolStyle>) -> Option<CallGrammar> {
        if self.choice != Choice::Auto || !self.strict {
            return None;
        }
        let marks = (style == Some(ToolStyle::Tagged)).then_some((OPEN, CLOSE));
        Some(CallGrammar { schema: self.schema(style, &self.names), marks, listed: style != Some(ToolStyle::Bare) })
    }

    /// JSON schema of one call of one of these functions.
    fn schema(&self, style: Option<ToolStyle>, allowed: &[String]) -> Value {
        let key = if style == Some(ToolStyle::Bare) { "parameters" } else { "arguments" };
        let call = |(name, schema): (&String, &Value)| json!({"type": "object", "properties": {"name": {"const": name}, key: schema}, "required": ["name", key], "additionalProperties": false});
        let calls: Vec<Value> = self.names.iter().zip(&self.schemas).filter(|(name, _)| allowed.contains(name)).map(call).collect();
        if let [one] = calls.as_slice() { one.clone() } else { json!({"anyOf": calls}) }
    }

    fn known(&self, name: &str) -> bool {
        match &self.choice {
            Choice::Forced(allowed) => allowed.iter().any(|one| one == name),
            _ => self.names.iter().any(|one| one == name),
        }
    }
}

fn shown(tool: &Tool) -> Value {
    let function = &tool.function;
    let mut shown = json!({"name": function.name});
    if let Some(description) = &function.description {
        shown["description"] = Value::from(description.as_str());
    }
    shown["parameters"] = function.parameters.clone().unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    json!({"type": "function", "function": shown})
}

fn check_choice(choice: Option<&Value>, names: &[String]) -> Result<Choice, ApiError> {
    let Some(choice) = choice.filter(|choice| !choice.is_null()) else { return Ok(Choice::Auto) };
    let name = choice["function"]["name"].as_str().or(choice["name"].as_str());
    let needs_tools = |forced: Choice| {
        if names.is_empty() {
            Err(ApiError::invalid("tool_choice", "`tool_choice` asks for a call, but `tools` is empty"))
        } else {
            Ok(forced)
        }
    };
    match (choice.as_str(), name) {
        (Some("none"), _) => Ok(Choice::Never),
        (Some("auto"), _) => Ok(Choice::Auto),
        (Some("required"), _) => needs_tools(Choice::Forced(names.to_vec())),
        (None, Some(name)) if names.iter().any(|one| one == name) => Ok(Choice::Forced(vec![name.to_owned()])),
        (None, Some(name)) => {
            Err(ApiError::invalid("tool_choice", format!("`tool_choice` names {}, which is not in `tools`", quoted(name))))
        }
        _ => Err(ApiError::invalid("tool_choice", "`tool_choice` must be `none`, `auto`, `required` or name a function")),
    }
}

/// Separates calls from text while an answer grows. What may be the beginning of a call is held back to the end, for a call is known only
/// when it is whole.
#[derive(Debug, Clone)]
pub struct CallReader {
    tools: Tools,
    /// The answer was opened by the request, so that its mark is not in the text.
    forced: bool,
    held: String,
    /// Some text was given out already.
    spoke: bool,
}

impl CallReader {
    /// For one answer.
    pub fn new(tools: &Tools) -> CallReader {
        CallReader { forced: matches!(tools.choice, Choice::Forced(_)), tools: tools.clone(), held: String::new(), spoke: false }
    }

    /// Takes text, gives what is certainly no call.
    pub fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let from = if self.forced { 0 } else { self.call_begins() };
        let rest = self.held.split_off(from);
        let out = std::mem::replace(&mut self.held, rest);
        self.spoke |= !out.trim().is_empty();
        out
    }

    /// Where what may be a call begins in the held text.
    fn call_begins(&self) -> usize {
        if let Some(at) = self.held.find(OPEN) {
            return at;
        }
        let white = self.held.len() - self.held.trim_start().len();
        if !self.spoke && (white == self.held.len() || self.held[white..].starts_with(['{', '['])) {
            return 0;
        }
        let partial = (1..OPEN.len()).rev().find(|&n| self.held.ends_with(&OPEN[..n])).unwrap_or(0);
        self.held.len() - partial
    }

    /// The text that is left and the calls, when the answer is whole.
    pub fn finish(&mut self) -> (String, Vec<ToolCall>) {
        let held = std::mem::take(&mut self.held);
        let calls = self.calls(&held);
        if calls.is_empty() { (held, calls) } else { (String::new(), calls) }
    }

    fn calls(&self, text: &str) -> Vec<ToolCall> {
        let bodies: Vec<&str> = if text.contains(OPEN) {
            text.split(OPEN).skip(1).map(|part| part.split(CLOSE).next().unwrap_or_default()).collect()
        } else {
            vec![text.strip_suffix(CLOSE).unwrap_or(text)]
        };
        let values = bodies.iter().map(|body| serde_json::from_str::<Value>(body.trim().trim_start_matches("[TOOL_CALLS]")));
        // One that does not read makes all of it text: half of the calls would be worse than none.
        let Ok(values) = values.collect::<Result<Vec<Value>, _>>() else { return Vec::new() };
        let flat = values.into_iter().flat_map(|value| if let Value::Array(items) = value { items } else { vec![value] });
        flat.map(|value| self.call(&value)).collect::<Option<Vec<ToolCall>>>().unwrap_or_default()
    }

    fn call(&self, value: &Value) -> Option<ToolCall> {
        let name = value["name"].as_str().filter(|name| self.tools.known(name))?;
        let arguments = [&value["arguments"], &value["parameters"]].into_iter().find(|one| !one.is_null())?;
        let arguments = arguments.as_str().map_or_else(|| arguments.to_string(), str::to_owned);
        let function = CalledFunction { name: name.to_owned(), arguments };
        Some(ToolCall { id: random_id("call"), kind: "function".to_owned(), function })
    }
}

#[cfg(test)]
#[path = "tools_tests.rs"]
mod tests;
