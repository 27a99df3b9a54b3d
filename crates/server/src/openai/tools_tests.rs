//! Calls in text, however the text is cut into pieces.

use serde_json::{Value, json};

use super::*;

fn tools(choice: &Value) -> Tools {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
    let tools: Vec<Tool> = serde_json::from_value(json!([tool("weather"), tool("time")])).expect("tools");
    Tools::check(&tools, Some(choice)).expect("fine").expect("some")
}

/// Text and calls, the same for pieces of every size.
fn check(choice: &Value, answer: &str, text: &str, calls: &[(&str, &str)]) {
    for size in 1..=answer.len() {
        let mut reader = CallReader::new(&tools(choice));
        let pieces: Vec<char> = answer.chars().collect();
        let mut out: String = pieces.chunks(size).map(|piece| reader.push(&piece.iter().collect::<String>())).collect();
        let (rest, found) = reader.finish();
        out.push_str(&rest);
        let found: Vec<(&str, &str)> = found.iter().map(|call| (call.function.name.as_str(), call.function.arguments.as_str())).collect();
        assert_eq!((out.as_str(), found.as_slice()), (text, calls), "{answer:?} in pieces of {size}");
    }
}

#[test]
fn calls_are_found_in_every_style() {
    let auto = json!("auto");
    check(&auto, "Just text {\"name\": 1}.", "Just text {\"name\": 1}.", &[]);
    check(&auto, "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"a\": 1}}\n</tool_call>", "", &[("weather", "{\"a\":1}")]);
    check(
        &auto,
        "I look.\n<tool_call>{\"name\":\"weather\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"time\",\"arguments\":{}}</tool_call>",
        "I look.\n",
        &[("weather", "{}"), ("time", "{}")],
    );
    check(&auto, "[TOOL_CALLS] [{\"name\": \"time\", \"arguments\": {\"z\": 0, \"a\": 1}}]", "", &[("time", "{\"z\":0,\"a\":1}")]);
    check(&auto, " {\"name\": \"time\", \"parameters\": {}}", "", &[("time", "{}")]);
    check(&auto, "{\"name\": \"time\", \"arguments\": \"{}\"}", "", &[("time", "{}")]);
    // What is no call of a given function stays text, whole.
    for text in ["{\"name\": \"other\", \"arguments\": {}}", "{\"a\": 1}", "<tool_call>half", "a <tool", "[1, 2]"] {
        check(&auto, text, text, &[]);
    }
}

#[test]
fn forced_answers_begin_within_the_call() {
    let named = json!({"type": "function", "function": {"name": "time"}});
    check(&named, "{\"name\":\"time\",\"arguments\":{}}", "", &[("time", "{}")]);
    check(&named, "{\"name\":\"ti", "{\"name\":\"ti", &[]);
}
