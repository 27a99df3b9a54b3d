//! `/openai/v1/completions` and `/openai/v1/responses`.

use serde_json::{Value, json};

use crate::harness::{Server, user};
use crate::openai::{events, good, refusal, with};

const TEXT: &str = "/openai/v1/completions";
const RESPONSES: &str = "/openai/v1/responses";

fn text_request(extra: &Value) -> Value {
    with(json!({"model": "Tiny", "prompt": "hello world", "seed": 3, "temperature": 1.0, "top_p": 1.0}), extra)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_goes_on() {
    let server = Server::start().await;
    let body = good(&server, TEXT, &text_request(&json!({}))).await;
    assert!(body["id"].as_str().is_some_and(|id| id.starts_with("cmpl_")) && body["object"] == "text_completion", "{body}");
    assert!(body["usage"]["completion_tokens"].as_u64().is_some_and(|tokens| tokens <= 16), "16 where left out: {body}");
    // The tokens of `hello`, ` w`, `o`, `r`, `l` and `d` give the same text.
    let by_tokens = good(&server, TEXT, &text_request(&json!({"prompt": [259, 260, 111, 114, 108, 100]}))).await;
    assert_eq!((&by_tokens["choices"], &by_tokens["usage"]["prompt_tokens"]), (&body["choices"], &json!(6)));
    assert_eq!(good(&server, TEXT, &text_request(&json!({"prompt": ["hello world"]}))).await["choices"], body["choices"]);
    // What a template renders is a text like any other.
    let rendered = text_request(&json!({"prompt": "<|begin|><|user|>hello<|end|><|assistant|>", "max_tokens": 20}));
    let chat = json!({"model": "Tiny", "messages": user("hello"), "seed": 3, "temperature": 1.0, "top_p": 1.0, "max_tokens": 20});
    let chat = good(&server, "/openai/v1/chat/completions", &chat).await;
    assert_eq!(good(&server, TEXT, &rendered).await["choices"][0]["text"], chat["choices"][0]["message"]["content"]);
    let bad = |param: &'static str| (400, "invalid_request_error", "invalid_parameter", Some(param));
    for (extra, expected) in [
        (json!({"echo": true}), bad("echo")),
        (json!({"suffix": "x"}), bad("suffix")),
        (json!({"best_of": 2}), bad("best_of")),
        (json!({"logprobs": 6}), bad("logprobs")),
        (json!({"prompt": ["a", "b"]}), bad("prompt")),
        (json!({"prompt": [99999]}), bad("prompt")),
        (json!({"prompt": {"a": 1}}), bad("prompt")),
        (json!({"prompt": ""}), (400, "invalid_request_error", "invalid_messages", Some("prompt"))),
        (json!({"prompt": "word ".repeat(600)}), (400, "invalid_request_error", "context_length_exceeded", Some("prompt"))),
    ] {
        let answer = server.post(TEXT, &text_request(&extra)).await;
        assert_eq!(refusal(&answer), expected, "{extra}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_texts_chunks_and_log_probabilities_add_up() {
    let server = Server::start().await;
    let body = text_request(&json!({"logprobs": 3, "n": 2, "max_tokens": 30}));
    let whole = good(&server, TEXT, &body).await;
    let mut events = events(&server, TEXT, &with(body, &json!({"stream_options": {"include_usage": true}}))).await;
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    assert_eq!(chunks.last().expect("usage")["usage"]["total_tokens"], whole["usage"]["total_tokens"]);
    for (index, choice) in whole["choices"].as_array().expect("choices").iter().enumerate() {
        let mine: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).filter(|one| one["index"] == index).collect();
        let text: String = mine.iter().filter_map(|one| one["text"].as_str()).collect();
        assert_eq!(text, choice["text"].as_str().expect("text"));
        assert_eq!(mine.last().expect("end")["finish_reason"], choice["finish_reason"]);
        let told = &choice["logprobs"];
        let tokens = told["tokens"].as_array().expect("tokens");
        let streamed: Vec<Value> = mine.iter().filter_map(|one| one["logprobs"]["tokens"].as_array()).flatten().cloned().collect();
        assert_eq!(&streamed, tokens);
        for (at, top) in told["top_logprobs"].as_array().expect("top").iter().enumerate() {
            // Different tokens may have one text: halves of characters are shown by the same mark.
            assert!((1..=3).contains(&top.as_object().expect("by text").len()), "{top}");
            assert!(told["token_logprobs"][at].as_f64().is_some_and(|number| number <= 0.0));
        }
        assert_eq!((told["text_offset"].as_array().map(Vec::len), &told["text_offset"][0]), (Some(tokens.len()), &json!(0)));
    }
}

fn response_request(extra: &Value) -> Value {
    with(json!({"model": "Tiny", "input": "hello", "temperature": 0.0, "max_output_tokens": 20}), extra)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_has_its_shape() {
    let server = Server::start().await;
    let body = good(&server, RESPONSES, &response_request(&json!({"store": true, "tools": [], "metadata": {}}))).await;
    assert!(body["id"].as_str().is_some_and(|id| id.starts_with("resp_")) && body["object"] == "response", "{body}");
    let chat = json!({"model": "Tiny", "messages": user("hello"), "temperature": 0, "max_tokens": 20});
    let chat = good(&server, "/openai/v1/chat/completions", &chat).await;
    let item = &body["output"][0];
    assert_eq!(
        (&item["type"], &item["role"], &item["content"][0]["type"]),
        (&json!("message"), &json!("assistant"), &json!("output_text"))
    );
    assert_eq!(item["content"][0]["text"], chat["choices"][0]["message"]["content"]);
    let cut = chat["choices"][0]["finish_reason"] == "length";
    assert_eq!(body["status"], if cut { "incomplete" } else { "completed" });
    assert_eq!(body["incomplete_details"].is_null(), !cut);
    assert_eq!((&body["max_output_tokens"], &body["text"]["format"]["type"], &body["store"]), (&json!(20), &json!("text"), &json!(false)));
    assert_eq!(body["usage"]["input_tokens"], 5);
    // The same conversation as items, an earlier answer's items included.
    let items = json!([{"role": "developer", "content": "be"}, {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}, item, {"type": "reasoning", "id": "rs_1", "summary": []}, {"role": "user", "content": "more"}]);
    let by_items = good(&server, RESPONSES, &response_request(&json!({"input": items}))).await;
    let mut without = items.as_array().expect("items").clone();
    without.remove(0);
    let by_instructions = good(&server, RESPONSES, &response_request(&json!({"input": without, "instructions": "be"}))).await;
    assert_eq!(by_items["output"][0]["content"], by_instructions["output"][0]["content"]);
    assert_eq!(by_items["usage"]["input_tokens"], by_instructions["usage"]["input_tokens"]);
    let schema =
        json!({"type": "object", "properties": {"a": {"enum": ["Oslo", "Rome"]}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"text": {"format": {"type": "json_schema", "name": "city", "schema": schema}}, "max_output_tokens": 200});
    let formatted = good(&server, RESPONSES, &response_request(&format)).await;
    let city: Value = serde_json::from_str(formatted["output"][0]["content"][0]["text"].as_str().expect("text")).expect("JSON");
    assert!(city["a"].is_string() && formatted["text"] == format["text"], "{formatted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_responses_events_add_up() {
    let server = Server::start().await;
    let whole = good(&server, RESPONSES, &response_request(&json!({}))).await;
    let events: Vec<Value> = events(&server, RESPONSES, &response_request(&json!({})))
        .await
        .iter()
        .map(|event| serde_json::from_str(event).expect("JSON"))
        .collect();
    assert!(events.iter().enumerate().all(|(at, event)| event["sequence_number"] == at), "{events:?}");
    let mut kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().expect("type")).collect();
    kinds.dedup();
    let ended = format!("response.{}", whole["status"].as_str().expect("status"));
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        &ended,
    ];
    assert_eq!(kinds, expected);
    let text: String =
        events.iter().filter(|event| event["type"] == "response.output_text.delta").filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(json!(text), whole["output"][0]["content"][0]["text"]);
    let last = &events.last().expect("end")["response"];
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!((&last["status"], &last["usage"]["output_tokens"]), (&whole["status"], &whole["usage"]["output_tokens"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_response_cannot_have_is_refused() {
    let server = Server::start().await;
    let bad = |param: &'static str| (400, "invalid_request_error", "invalid_parameter", Some(param));
    for (extra, expected) in [
        (json!({"tools": [{"type": "web_search"}]}), bad("tools")),
        (json!({"previous_response_id": "resp_1"}), bad("previous_response_id")),
        (json!({"background": true}), bad("background")),
        (json!({"top_logprobs": 3}), bad("top_logprobs")),
        (json!({"max_output_tokens": 0}), bad("max_output_tokens")),
        (json!({"text": {"format": {"type": "xml"}}}), bad("text.format.type")),
        (json!({"input": [{"type": "function_call_output", "output": "x"}]}), bad("input[0].type")),
        (json!({"input": [{"content": "x"}]}), bad("input[0]")),
        (json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}), bad("input[0].content[0].type")),
        (
            json!({"input": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}], "instructions": "y"}),
            bad("input[0].role"),
        ),
        (json!({"input": "word ".repeat(600)}), (400, "invalid_request_error", "context_length_exceeded", Some("input"))),
        (
            json!({"text": {"format": {"type": "json_schema", "schema": {"type": "object", "uniqueItems": true}}}}),
            (400, "invalid_request_error", "unsupported_schema", Some("text.format.schema")),
        ),
    ] {
        let answer = server.post(RESPONSES, &response_request(&extra)).await;
        assert_eq!(refusal(&answer), expected, "{extra}: {}", answer.body);
    }
}
