//! `/openai/v1`: answers, streams and refusals in OpenAI's shapes.

use reqwest::Method;
use serde_json::{Value, json};
use tiger_server::Limits;
use tiger_testkit::Tiny;

use crate::harness::{Answer, Options, Page, Server, user};

const CHAT: &str = "/openai/v1/chat/completions";

pub fn with(mut body: Value, extra: &Value) -> Value {
    for (key, value) in extra.as_object().expect("object") {
        body[key] = value.clone();
    }
    body
}

fn request(extra: &Value) -> Value {
    with(json!({"model": "Tiny", "messages": user("hello"), "max_tokens": 24, "seed": 5, "temperature": 1.0, "top_p": 1.0}), extra)
}

pub async fn good(server: &Server, path: &str, body: &Value) -> Value {
    let answer = server.post(path, body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    answer.body
}

/// The data of each event; the last is `[DONE]` where there is one.
pub async fn events(server: &Server, path: &str, body: &Value) -> Vec<String> {
    let body = with(body.clone(), &json!({"stream": true}));
    let response = server.request(Method::POST, path).json(&body).send().await.expect("answer");
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.expect("a whole stream");
    assert!(text.ends_with("\n\n"), "{text:?}");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(": ") && !line.starts_with("event: "));
    lines.map(|line| line.strip_prefix("data: ").expect("data").to_owned()).collect()
}

/// Chunks of a stream that ended as it should.
async fn chunks(server: &Server, path: &str, body: &Value) -> Vec<Value> {
    let mut events = events(server, path, body).await;
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

/// An error in OpenAI's shape: (status, type, code, param).
pub fn refusal(answer: &Answer) -> (u16, &str, &str, Option<&str>) {
    let error = &answer.body["error"];
    let fields: Vec<&str> = error.as_object().map(|all| all.keys().map(String::as_str).collect()).unwrap_or_default();
    assert_eq!(fields, ["message", "type", "param", "code"], "{}", answer.body);
    assert!(error["message"].as_str().is_some_and(|message| message.len() > 10) && answer.headers.contains_key("x-request-id"));
    (answer.status, error["type"].as_str().expect("type"), error["code"].as_str().expect("code"), error["param"].as_str())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_openais_shape() {
    let server = Server::start().await;
    let body = good(&server, CHAT, &request(&json!({"user": "ada", "metadata": {}, "frequency_penalty": 0, "logit_bias": null}))).await;
    assert!(body["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl_")), "{body}");
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("tiny")));
    assert_eq!((body["created"].as_i64(), body["system_fingerprint"].as_str()), (Some(1_764_000_000), Some("rev_0")));
    let choice = &body["choices"][0];
    assert_eq!((&choice["index"], &choice["message"]["role"], &choice["logprobs"]), (&json!(0), &json!("assistant"), &Value::Null));
    assert!(choice["message"]["content"].is_string() && choice["message"]["refusal"].is_null());
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().expect("reason")));
    assert!(choice["response_id"].as_str().is_some_and(|id| id.starts_with("resp_")));
    let usage = &body["usage"];
    assert_eq!(usage["prompt_tokens"], 5);
    assert_eq!(usage["total_tokens"].as_u64(), usage["completion_tokens"].as_u64().map(|tokens| tokens + 5));
    // The same text as this server's own endpoint gives, and the newer name of the limit means the same.
    let own = good(&server, "/v1/generate_response", &request(&json!({}))).await;
    assert_eq!(own["message"]["content"], choice["message"]["content"]);
    let newer = json!({"max_tokens": null, "max_completion_tokens": 3, "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]});
    let newer = good(&server, CHAT, &request(&newer)).await;
    assert_eq!((&newer["choices"][0]["finish_reason"], &newer["usage"]["completion_tokens"]), (&json!("length"), &json!(3)));
    assert!(
        choice["message"]["content"].as_str().expect("text").starts_with(newer["choices"][0]["message"]["content"].as_str().expect("text"))
    );
    let train = json!({"model": "mine", "messages": user("hello"), "responses": [{"response_id": choice["response_id"], "reward": 1.0}]});
    server.make("mine").await;
    let train = server.post("/v1/train", &train).await;
    assert_eq!(train.status, 200, "an answer's tokens can be trained on: {}", train.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_chunks_add_up_to_the_whole_answer() {
    let server = Server::start().await;
    for seed in 0..4 {
        let body = request(&json!({"seed": seed, "n": 3, "logprobs": true, "top_logprobs": 2, "max_tokens": 40}));
        let whole = good(&server, CHAT, &body).await;
        let chunks = chunks(&server, CHAT, &with(body, &json!({"stream_options": {"include_usage": true}}))).await;
        let (last, before) = chunks.split_last().expect("chunks");
        assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &whole["usage"]["completion_tokens"]));
        assert!(
            before
                .iter()
                .all(|chunk| chunk.get("usage").is_none() && chunk["id"] == last["id"] && chunk["object"] == "chat.completion.chunk")
        );
        for (index, choice) in whole["choices"].as_array().expect("choices").iter().enumerate() {
            let mine: Vec<&Value> = before.iter().map(|chunk| &chunk["choices"][0]).filter(|one| one["index"] == index).collect();
            assert_eq!(mine[0]["delta"]["role"], "assistant");
            let text: String = mine.iter().filter_map(|one| one["delta"]["content"].as_str()).collect();
            assert_eq!(text, choice["message"]["content"].as_str().expect("content"));
            let told: Vec<Value> = mine.iter().filter_map(|one| one["logprobs"]["content"].as_array()).flatten().cloned().collect();
            assert_eq!(json!(told), choice["logprobs"]["content"]);
            let ends: Vec<&Value> = mine.iter().map(|one| &one["finish_reason"]).filter(|reason| !reason.is_null()).collect();
            assert_eq!(ends, [&choice["finish_reason"]]);
        }
    }
    let plain = chunks(&server, CHAT, &request(&json!({}))).await;
    assert!(plain.iter().all(|chunk| chunk.get("usage").is_none() && chunk["choices"].as_array().map(Vec::len) == Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_are_those_of_the_text() {
    let server = Server::start().await;
    let mut found = 0;
    for seed in 0..6 {
        let body = request(&json!({"seed": seed, "logprobs": true, "top_logprobs": 20, "max_tokens": 40}));
        let choice = good(&server, CHAT, &body).await["choices"][0].clone();
        let bytes = |token: &Value| -> Vec<u8> {
            token["bytes"].as_array().expect("bytes").iter().map(|byte| u8::try_from(byte.as_u64().expect("byte")).expect("byte")).collect()
        };
        let tokens = choice["logprobs"]["content"].as_array().expect("tokens");
        // Special tokens within a text have a name and show nothing.
        let shown = tokens.iter().filter(|token| !token["token"].as_str().expect("token").starts_with("<|"));
        let joined = String::from_utf8_lossy(&shown.flat_map(bytes).collect::<Vec<u8>>()).into_owned();
        let cut = |text: &str| text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned();
        assert_eq!(
            cut(&joined),
            cut(choice["message"]["content"].as_str().expect("content")),
            "the tokens are the text, without the end of the turn"
        );
        for token in tokens {
            let top = token["top_logprobs"].as_array().expect("top");
            assert_eq!(top.len(), 20);
            let number = |one: &Value| one["logprob"].as_f64().expect("logprob");
            assert!(top.is_sorted_by(|a, b| number(a) >= number(b)), "{top:?}");
            let sum: f64 = top.iter().map(|one| number(one).exp()).sum();
            assert!(sum > 0.0 && sum <= 1.0 + 1e-5, "{sum}");
            // Only tokens without bytes (padding of the vocabulary) share them.
            if bytes(token).is_empty() {
                continue;
            }
            match top.iter().find(|one| one["bytes"] == token["bytes"]) {
                Some(one) => {
                    assert_eq!(one["logprob"], token["logprob"]);
                    found += 1;
                }
                None => assert!(number(token) <= number(&top[19])),
            }
        }
    }
    assert!(found > 20, "{found} drawn tokens were among the most probable");
    let greedy = good(&server, CHAT, &request(&json!({"temperature": 0, "logprobs": true, "top_logprobs": 1}))).await;
    for token in greedy["choices"][0]["logprobs"]["content"].as_array().expect("tokens") {
        assert_eq!((&token["top_logprobs"][0]["token"], &token["top_logprobs"][0]["logprob"]), (&token["token"], &token["logprob"]));
    }
    let none = good(&server, CHAT, &request(&json!({"logprobs": true}))).await;
    assert_eq!(none["choices"][0]["logprobs"]["content"][0]["top_logprobs"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn seeds_stops_and_formats_hold() {
    let server = Server::start().await;
    let text = async |extra: Value| {
        good(&server, CHAT, &request(&extra)).await["choices"][0]["message"]["content"].as_str().expect("text").to_owned()
    };
    let first = text(json!({})).await;
    assert_eq!(first, text(json!({})).await);
    assert_ne!(first, text(json!({"seed": 6})).await);
    assert_ne!(text(json!({"seed": -1})).await, text(json!({"seed": -2})).await);
    let stop: String = first.chars().skip(2).take(2).collect();
    for stop in [json!(stop), json!([stop, "never to be seen"])] {
        let stopped = good(&server, CHAT, &request(&json!({"stop": stop}))).await["choices"][0].clone();
        assert_eq!(stopped["finish_reason"], "stop");
        assert!(first.starts_with(stopped["message"]["content"].as_str().expect("text")) && stopped["message"]["content"] != first);
    }
    let object = text(json!({"response_format": {"type": "json_object"}, "max_tokens": 40})).await;
    assert!(object.starts_with('{'), "{object}");
    let schema =
        json!({"type": "object", "properties": {"a": {"enum": ["Oslo", "Rome"]}}, "required": ["a"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "city", "strict": true, "schema": schema}});
    let answer = text(json!({"response_format": format, "max_tokens": 400})).await;
    let city: Value = serde_json::from_str(&answer).expect("JSON");
    assert!(["Oslo", "Rome"].contains(&city["a"].as_str().expect("a")), "{answer}");
    assert!(!text(json!({"response_format": {"type": "text"}})).await.starts_with('{'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thought_is_apart() {
    let server = Server::with(Options { tiny: Tiny { reasoning: true, ..Tiny::default() }, ..Options::default() }).await;
    let whole = good(&server, CHAT, &request(&json!({"max_tokens": 30}))).await["choices"][0]["message"].clone();
    let thought = whole["reasoning_content"].as_str().expect("thought").to_owned();
    assert!(!thought.is_empty() && whole["content"] == "", "{whole}");
    let chunks = chunks(&server, CHAT, &request(&json!({"max_tokens": 30}))).await;
    let joined: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["reasoning_content"].as_str()).collect();
    assert_eq!(joined, thought);
    let body = json!({"model": "Tiny", "input": "hello", "max_output_tokens": 30, "temperature": 0});
    let response = good(&server, "/openai/v1/responses", &body).await;
    assert_eq!((&response["output"][0]["type"], &response["output"][1]["type"]), (&json!("reasoning"), &json!("message")));
    assert!(response["output"][0]["content"][0]["text"].as_str().is_some_and(|text| !text.is_empty()));
    let kinds = events(&server, "/openai/v1/responses", &body)
        .await
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).expect("JSON")["type"].clone())
        .collect::<Vec<_>>();
    assert!(kinds.contains(&json!("response.reasoning_text.delta")) && kinds.last() == Some(&json!("response.incomplete")), "{kinds:?}");
    // The text of this endpoint is everything that the model writes, marks of thoughts included.
    let plain = json!({"model": "Tiny", "prompt": "<think>hello", "max_tokens": 8, "seed": 1});
    assert!(good(&server, "/openai/v1/completions", &plain).await["choices"][0]["text"].as_str().is_some_and(|text| !text.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_told_and_deleted() {
    let server = Server::start().await;
    server.make("Mine").await;
    let list = server.get("/openai/v1/models").await.body;
    assert_eq!(list["object"], "list");
    let ids: Vec<&str> = list["data"].as_array().expect("data").iter().map(|model| model["id"].as_str().expect("id")).collect();
    assert_eq!(ids, ["tiny", "mine"], "bases whose weights are not here are left out");
    let mine = server.get("/openai/v1/models/Mine").await.body;
    assert_eq!((&mine["id"], &mine["object"], &mine["owned_by"]), (&json!("mine"), &json!("model"), &json!("you")));
    assert_eq!(good(&server, CHAT, &request(&json!({"model": "mine"}))).await["model"], "mine");
    assert_eq!(server.delete("/openai/v1/models/mine").await.body, json!({"id": "mine", "object": "model", "deleted": true}));
    assert_eq!(refusal(&server.get("/openai/v1/models/mine").await), (404, "invalid_request_error", "model_not_found", Some("model")));
    assert_eq!(refusal(&server.delete("/openai/v1/models/tiny").await).0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_refused_by_name() {
    let server = Server::start().await;
    let bad = |param: &'static str| (400, "invalid_request_error", "invalid_parameter", Some(param));
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    let unsupported = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "uniqueItems": true}}});
    let cases = [
        (json!({"frequency_penalty": 0.5}), bad("frequency_penalty")),
        (json!({"logit_bias": {"5": 1}}), bad("logit_bias")),
        (json!({"modalities": ["text", "audio"]}), bad("modalities")),
        (json!({"store": true}), bad("store")),
        (json!({"functions": []}), bad("functions")),
        (json!({"max_token": 3}), bad("max_token")),
        (json!({"temperature": 3}), bad("temperature")),
        (json!({"n": 0}), bad("n")),
        (json!({"max_tokens": 0}), bad("max_tokens")),
        (json!({"max_tokens": null, "max_completion_tokens": 0}), bad("max_completion_tokens")),
        (json!({"max_completion_tokens": 3}), bad("max_completion_tokens")),
        (json!({"top_logprobs": 2}), bad("top_logprobs")),
        (json!({"logprobs": true, "top_logprobs": 21}), bad("top_logprobs")),
        (json!({"messages": []}), bad("messages")),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), bad("messages[0].content[0].type")),
        (
            json!({"messages": [{"role": "pope", "content": "x"}]}),
            (400, "invalid_request_error", "invalid_messages", Some("messages[0].role")),
        ),
        (json!({"response_format": {"type": "xml"}}), bad("response_format.type")),
        (json!({"response_format": {"type": "json_schema"}}), bad("response_format.json_schema.schema")),
        (
            json!({"response_format": unsupported}),
            (400, "invalid_request_error", "unsupported_schema", Some("response_format.json_schema.schema")),
        ),
        (json!({"tools": [{"type": "web_search"}]}), bad("tools[0].function")),
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), bad("tools[0].function.name")),
        (json!({"tool_choice": "required"}), bad("tool_choice")),
        (json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": "g"}}}), bad("tool_choice")),
        (json!({"tools": tools, "tool_choice": "perhaps"}), bad("tool_choice")),
        (json!({"model": "absent"}), (404, "invalid_request_error", "model_not_found", Some("model"))),
        (json!({"messages": user(&"word ".repeat(600))}), (400, "invalid_request_error", "context_length_exceeded", Some("messages"))),
    ];
    for (extra, expected) in cases {
        let answer = server.post(CHAT, &request(&extra)).await;
        assert_eq!(refusal(&answer), expected, "{extra}: {}", answer.body);
        let streamed = server.post(CHAT, &with(request(&extra), &json!({"stream": true}))).await;
        assert_eq!(refusal(&streamed), expected, "{extra}, streamed: {}", streamed.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_openais_shape() {
    let limits = Limits { generate_body_bytes: 1000, ..Limits::default() };
    let mut server = Server::with(Options { limits, tiny: Tiny { talkative: true, ..Tiny::default() }, ..Options::default() }).await;
    let send = async |key: Option<&str>, body: String| {
        let request = server.client.post(server.url(CHAT)).body(body);
        Answer::read(if let Some(key) = key { request.bearer_auth(key) } else { request }).await
    };
    let key = server.key.clone();
    let invalid = "invalid_request_error";
    assert_eq!(refusal(&send(None, "{}".to_owned()).await), (401, "authentication_error", "invalid_api_key", None));
    assert_eq!(refusal(&send(Some("tiger_wrong"), "{}".to_owned()).await), (401, "authentication_error", "invalid_api_key", None));
    assert_eq!(refusal(&send(Some(&key), "{".to_owned()).await), (400, invalid, "malformed_json", None));
    assert_eq!(refusal(&send(Some(&key), "{}".to_owned()).await), (400, invalid, "invalid_parameter", Some("model")));
    assert_eq!(refusal(&send(Some(&key), " ".repeat(1001)).await), (413, invalid, "body_too_large", None));
    assert_eq!(refusal(&server.get("/openai/v1/nothing").await), (404, invalid, "not_found", None));
    assert_eq!(refusal(&server.get(CHAT).await), (405, invalid, "method_not_allowed", None));
    let page = Page::owner(&server).await;
    let forged = server.client.get(server.url("/openai/v1/models")).header("cookie", &page.cookie);
    assert_eq!(refusal(&Answer::read(forged).await), (403, "permission_error", "missing_csrf_header", None));
    assert_eq!(page.send(Method::GET, "/openai/v1/models", None).await.status, 200);
    let body = json!({"model": "Tiny", "messages": user("hello"), "stream": true, "n": 16});
    let open = server.request(Method::POST, CHAT).json(&body).send().await.expect("answer");
    server.begin_stop();
    while !server.app.is_draining() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let refused = server.get("/openai/v1/models").await;
    assert_eq!(refusal(&refused), (503, "server_error", "draining", None));
    assert!(refused.headers.contains_key("retry-after"));
    assert!(open.text().await.expect("a whole stream").ends_with("data: [DONE]\n\n"));
    let limits = Limits { requests_per_minute: 1, ..Limits::default() };
    let server = Server::with(Options { limits, ..Options::default() }).await;
    server.get("/openai/v1/models").await;
    let limited = server.get("/openai/v1/models").await;
    assert_eq!(refusal(&limited), (429, "rate_limit_error", "rate_limit_exceeded", None));
    assert!(limited.headers.contains_key("retry-after"));
}
