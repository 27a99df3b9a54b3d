//! `POST /v1/generate_response`.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Options, Server, joined, user};
use tiger_testkit::Tiny;

fn request(extra: &Value) -> Value {
    let mut body = json!({"model": "Tiny", "messages": user("hello"), "max_tokens": 24, "seed": 5, "temperature": 1.0, "top_p": 1.0});
    for (key, value) in extra.as_object().expect("object") {
        body[key] = value.clone();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_every_field() {
    let server = Server::start().await;
    let answer = server.post("/v1/generate_response", &request(&json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = &answer.body;
    assert_eq!((body["model"].as_str(), body["revision"].as_u64()), (Some("tiny"), Some(0)));
    assert_eq!(body["message"]["role"], "assistant");
    assert!(body["message"]["content"].is_string());
    assert!(["end_turn", "max_tokens"].contains(&body["stop_reason"].as_str().expect("stop_reason")));
    assert!(body["response_id"].as_str().is_some_and(|id| id.starts_with("resp_")));
    let usage = &body["usage"];
    assert!(usage["duration"].as_f64().is_some_and(|s| s > 0.0));
    // <|begin|> <|user|> hello <|end|> <|assistant|>
    assert_eq!(usage["input_tokens"], 5);
    assert!(usage["output_tokens"].as_u64().is_some_and(|n| (1..=24).contains(&n)));
    assert!(usage["cached_tokens"].is_u64());
    assert!(body.get("responses").is_none() && body.get("logprobs").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn streamed_and_whole_answers_are_the_same() {
    let server = Server::start().await;
    for seed in 0..12 {
        let body = request(&json!({"seed": seed, "n": 3, "logprobs": true, "max_tokens": 40}));
        let whole = server.post("/v1/generate_response", &body).await.body;
        let mut streamed = body.clone();
        streamed["stream"] = json!(true);
        let chunks = server.stream("/v1/generate_response", &streamed).await;
        let (last, before) = chunks.split_last().expect("chunks");
        assert_eq!(last["type"], "stop", "{last}");
        assert!(before.iter().all(|chunk| ["info", "delta"].contains(&chunk["type"].as_str().unwrap_or_default())));
        assert_eq!(last["stop_reason"], whole["stop_reason"]);
        let responses = whole["responses"].as_array().expect("responses");
        assert_eq!(responses[0]["content"], whole["message"]["content"]);
        for (index, response) in (0u64..).zip(responses) {
            assert_eq!(joined(&chunks, index, "delta"), response["content"].as_str().expect("content"));
            let logprobs: Vec<Value> = chunks
                .iter()
                .filter(|chunk| chunk["type"] == "delta" && chunk["index"] == index)
                .flat_map(|chunk| chunk["logprobs"].as_array().cloned().unwrap_or_default())
                .collect();
            assert_eq!(&logprobs, response["logprobs"].as_array().expect("logprobs"));
            let at = usize::try_from(index).expect("index");
            assert_eq!(last["responses"][at]["stop_reason"], response["stop_reason"]);
        }
        assert_eq!(last["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_stream_says_what_it_loads() {
    let server = Server::start().await;
    let chunks = server.stream("/v1/generate_response", &request(&json!({"stream": true}))).await;
    let infos: Vec<&str> = chunks.iter().filter(|chunk| chunk["type"] == "info").filter_map(|chunk| chunk["message"].as_str()).collect();
    assert!(infos.contains(&"Loading tokenizer"), "{infos:?}");
    assert!(infos.contains(&"Loading model tiny"), "{infos:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_strings_end_the_text_before_them() {
    let server = Server::start().await;
    let mut stopped = 0;
    for seed in 0..8 {
        let free = server.post("/v1/generate_response", &request(&json!({"seed": seed, "max_tokens": 60}))).await.body;
        let text = free["message"]["content"].as_str().expect("content").to_owned();
        let chars: Vec<char> = text.chars().collect();
        for at in (2..chars.len().saturating_sub(2)).step_by(5) {
            let stop: String = chars[at..at + 2].iter().collect();
            let expected = &text[..text.find(&stop).expect("it is in the text")];
            let body = request(&json!({"seed": seed, "max_tokens": 60, "stop": [stop, "never to be seen"], "logprobs": true}));
            let answer = server.post("/v1/generate_response", &body).await.body;
            assert_eq!(answer["message"]["content"], expected, "{stop:?} in {text:?}");
            assert_eq!(answer["stop_reason"], "stop_sequence");
            let mut streamed = body.clone();
            streamed["stream"] = json!(true);
            let chunks = server.stream("/v1/generate_response", &streamed).await;
            assert_eq!(joined(&chunks, 0, "delta"), expected);
            let logprobs: Vec<Value> = chunks.iter().flat_map(|chunk| chunk["logprobs"].as_array().cloned().unwrap_or_default()).collect();
            assert_eq!(json!(logprobs), answer["logprobs"]);
            stopped += 1;
        }
    }
    assert!(stopped > 20, "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assistant_message_is_continued() {
    let server = Server::start().await;
    let messages = json!([{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello wo"}]);
    let answer = server.post("/v1/generate_response", &request(&json!({"messages": messages}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.body["usage"]["input_tokens"].as_u64().is_some_and(|n| n > 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_json() {
    let server = Server::start().await;
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a"], "additionalProperties": false});
    let body = request(&json!({"response_format": {"type": "json_schema", "schema": schema}, "max_tokens": 400}));
    let answer = server.post("/v1/generate_response", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    if answer.body["stop_reason"] == "end_turn" {
        let value: Value = serde_json::from_str(answer.body["message"]["content"].as_str().expect("content")).expect("JSON");
        assert!(value["a"].as_u64().is_some_and(|a| a <= 9));
    }
    let refused = request(&json!({"response_format": {"type": "json_schema", "schema": {"type": "object", "uniqueItems": true}}}));
    let answer = server.post("/v1/generate_response", &refused).await;
    assert_eq!(answer.error(), (422, "unsupported_schema", Some("response_format.schema")));
    assert!(answer.body["error"]["message"].as_str().is_some_and(|m| m.contains("uniqueItems")), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thought_is_reasoning_and_not_content() {
    let server = Server::with(Options { tiny: Tiny { reasoning: true, ..Tiny::default() }, ..Options::default() }).await;
    let body = request(&json!({"max_tokens": 30}));
    let whole = server.post("/v1/generate_response", &body).await.body;
    assert_eq!(whole["message"]["content"], "", "{whole}");
    assert!(whole["reasoning"].as_str().is_some_and(|text| !text.is_empty()), "{whole}");
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let chunks = server.stream("/v1/generate_response", &streamed).await;
    assert_eq!(joined(&chunks, 0, "reasoning"), whole["reasoning"].as_str().expect("reasoning"));
    assert_eq!(joined(&chunks, 0, "delta"), "");
    // JSON is asked of the answer, so the thought is closed first.
    let body = request(&json!({"response_format": {"type": "json_object"}, "max_tokens": 60}));
    let constrained = server.post("/v1/generate_response", &body).await.body;
    assert!(constrained["message"]["content"].as_str().is_some_and(|text| text.starts_with('{')), "{constrained}");
    assert!(constrained.get("reasoning").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_carry_the_same_chunks() {
    let server = Server::start().await;
    let request = server
        .request(Method::POST, "/v1/generate_response")
        .header("accept", "text/event-stream")
        .json(&request(&json!({"stream": true})));
    let response = request.send().await.expect("answer");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.expect("body");
    let events: Vec<Value> = text
        .split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").expect("data line")).expect("JSON"))
        .collect();
    assert_eq!(events.last().expect("events")["type"], "stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let server = Server::start().await;
    let long = "x".repeat(600);
    let cases = [
        (json!({"model": "nobody"}), (404, "model_not_found", Some("model"))),
        (json!({"model": "Llama-3.1-8b"}), (503, "not_downloaded", Some("model"))),
        (json!({"messages": []}), (422, "invalid_parameter", Some("messages"))),
        (json!({"messages": [{"role": "robot", "content": ""}]}), (422, "invalid_parameter", Some("messages[0].role"))),
        (json!({"messages": [{"role": "user"}]}), (422, "invalid_parameter", Some("messages[0].content"))),
        (json!({"messages": [{"role": "system", "content": "x"}]}), (422, "invalid_messages", Some("messages"))),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}),
            (422, "invalid_messages", Some("messages[1].role")),
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}),
            (422, "invalid_messages", Some("messages")),
        ),
        (json!({"messages": user(&long)}), (422, "context_length_exceeded", Some("messages"))),
        (json!({"temperature": 2.1}), (422, "invalid_parameter", Some("temperature"))),
        (json!({"temperature": -0.1}), (422, "invalid_parameter", Some("temperature"))),
        (json!({"temperature": "hot"}), (422, "invalid_parameter", Some("temperature"))),
        (json!({"top_p": 0.0}), (422, "invalid_parameter", Some("top_p"))),
        (json!({"min_p": 1.5}), (422, "invalid_parameter", Some("min_p"))),
        (json!({"n": 0}), (422, "invalid_parameter", Some("n"))),
        (json!({"n": 65}), (422, "invalid_parameter", Some("n"))),
        (json!({"max_tokens": 0}), (422, "invalid_parameter", Some("max_tokens"))),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), (422, "invalid_parameter", Some("stop"))),
        (json!({"stop": [""]}), (422, "invalid_parameter", Some("stop[0]"))),
        (json!({"max_token": 3}), (422, "invalid_parameter", Some("max_token"))),
        (json!({"response_format": {"type": "json_schema"}}), (422, "invalid_parameter", Some("response_format.schema"))),
    ];
    for (extra, expected) in cases {
        let answer = server.post("/v1/generate_response", &request(&extra)).await;
        assert_eq!(answer.error(), expected, "{extra}: {}", answer.body);
    }
    let command = server.post("/v1/generate_response", &request(&json!({"model": "DeepSeek-R1-8b"}))).await;
    assert!(command.body["error"]["message"].as_str().is_some_and(|m| m.contains("tiger pull DeepSeek-R1-8b")), "{}", command.body);
    let turns = server
        .post("/v1/generate_response", &request(&json!({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]})))
        .await;
    assert!(turns.body["error"]["message"].as_str().is_some_and(|m| m.contains("take turns")), "{}", turns.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seed_gives_the_same_text() {
    let server = Server::start().await;
    let text = |answer: Value| answer["message"]["content"].as_str().expect("content").to_owned();
    let first = text(server.post("/v1/generate_response", &request(&json!({}))).await.body);
    let again = text(server.post("/v1/generate_response", &request(&json!({}))).await.body);
    let other = text(server.post("/v1/generate_response", &request(&json!({"seed": 6}))).await.body);
    assert_eq!(first, again);
    assert_ne!(first, other);
}
