//! Calls of tools and their answers in a conversation, for templates that know neither: calls become the assistant's text, answers the user's.
//! Does not know requests.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tiger_formats::template::Message;

/// The same conversation in system, user and assistant messages. What came from tools is one message with what the user says next, for
/// most templates want turns.
pub fn plain(messages: Vec<Message>) -> Vec<Message> {
    let mut names = BTreeMap::new();
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    let mut after_tool = false;
    for mut message in messages {
        if let Some(Value::Array(calls)) = message.fields.remove("tool_calls") {
            for call in &calls {
                names.insert(call["id"].as_str().unwrap_or_default().to_owned(), call["function"]["name"].clone());
                let text = json!({"name": call["function"]["name"], "arguments": call["function"]["arguments"]}).to_string();
                append(&mut message.content, "\n", &text);
            }
        }
        let from_tool = message.role == "tool";
        if from_tool {
            let id = message.fields.get("tool_call_id").and_then(Value::as_str).unwrap_or_default();
            let name = names.get(id).and_then(Value::as_str).unwrap_or("the function");
            message = Message::new("user", &format!("Result of {name}:\n{}", message.content));
        }
        match out.last_mut().filter(|last| after_tool && last.role == message.role) {
            Some(last) => append(&mut last.content, "\n\n", &message.content),
            None => out.push(message),
        }
        after_tool = from_tool;
    }
    out
}

fn append(text: &mut String, between: &str, more: &str) {
    if !text.is_empty() {
        text.push_str(between);
    }
    text.push_str(more);
}
