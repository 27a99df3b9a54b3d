//! `/v1/models` and below.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Server, user};

#[tokio::test(flavor = "multi_thread")]
async fn bases_come_first_then_the_newest() {
    let server = Server::start().await;
    server.make("First").await;
    server.make("Second").await;
    let list = server.get("/v1/models").await.body;
    let names: Vec<&str> = list.as_array().expect("array").iter().filter_map(|model| model["name"].as_str()).collect();
    assert_eq!(names, ["Llama-3.1-8b", "DeepSeek-R1-8b", "Tiny", "Second", "First"]);
    let llama = &list[0];
    assert_eq!((llama["read_only"].as_bool(), llama["status"].as_str()), (Some(true), Some("not_downloaded")));
    assert_eq!((llama["temperature"].as_f64(), llama["top_p"].as_f64()), (Some(0.6), Some(0.9)));
    let tiny = &list[2];
    assert_eq!((tiny["status"].as_str(), tiny["default_model"].as_bool()), (Some("ready"), Some(true)));
    assert_eq!((tiny["temperature"].as_f64(), tiny["top_p"].as_f64(), tiny["context_length"].as_u64()), (Some(0.7), Some(0.9), Some(512)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_made_read_changed_and_deleted() {
    let server = Server::start().await;
    let body =
        json!({"name": "My Custom/Model".replace('/', " "), "description": "d", "parent_model": "tiny", "temperature": 0.2, "seed": 3});
    let made = server.post("/v1/models", &body).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let info = &made.body;
    assert_eq!(info["id"], "my-custom-model");
    assert_eq!(info["parent_model"], "Tiny");
    assert_eq!(info["base_model"], "Tiny");
    assert_eq!((info["rank"].as_u64(), info["alpha"].as_f64(), info["dropout"].as_f64()), (Some(16), Some(32.0), Some(0.0)));
    assert_eq!((info["revision"].as_u64(), info["read_only"].as_bool()), (Some(0), Some(false)));
    assert_eq!((info["temperature"].as_f64(), info["top_p"].as_f64()), (Some(0.2), Some(0.9)));
    assert!(info["learning_rate"].as_f64().is_some_and(|rate| rate > 0.0));

    assert_eq!(&server.get("/v1/models/my-custom-model").await.body, info);
    assert_eq!(&server.get("/v1/models/My%20Custom%20Model").await.body, info);

    let patch = json!({"description": "new", "top_k": 5, "max_tokens": 7, "learning_rate": 0.001, "default_model": true});
    let patched = server.patch("/v1/models/my-custom-model", &patch).await;
    assert_eq!(patched.status, 200, "{}", patched.body);
    assert_eq!((patched.body["description"].as_str(), patched.body["top_k"].as_u64()), (Some("new"), Some(5)));
    assert_eq!((patched.body["max_tokens"].as_u64(), patched.body["default_model"].as_bool()), (Some(7), Some(true)));
    let list = server.get("/v1/models").await.body;
    let defaults: Vec<&Value> = list.as_array().expect("array").iter().filter(|model| model["default_model"] == true).collect();
    assert_eq!(defaults.len(), 1);
    let generated = server.post("/v1/generate_response", &json!({"model": "My Custom Model", "messages": user("hello")})).await;
    assert!(generated.body["usage"]["output_tokens"].as_u64().is_some_and(|n| n <= 7), "{}", generated.body);

    let deleted = server.delete("/v1/models/My%20Custom%20Model").await;
    assert_eq!(deleted.body, json!({"id": "my-custom-model", "message": "model has been deleted"}));
    assert_eq!(server.get("/v1/models/my-custom-model").await.error(), (404, "model_not_found", Some("model")));
    assert_eq!(server.delete("/v1/models/my-custom-model").await.error().0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn null_takes_a_default_back() {
    let server = Server::start().await;
    let before = server.make("mine").await;
    let set = json!({"temperature": 0.1, "top_p": 0.5, "top_k": 5, "max_tokens": 7, "learning_rate": 0.5});
    let patched = server.patch("/v1/models/mine", &set).await.body;
    for (field, value) in set.as_object().expect("an object") {
        assert_eq!(&patched[field], value, "{field}");
    }
    let unset = json!({"temperature": null, "top_p": null, "top_k": null, "max_tokens": null, "learning_rate": null});
    assert_eq!(server.patch("/v1/models/mine", &unset).await.status, 200);
    let after = server.get("/v1/models/mine").await.body;
    for field in set.as_object().expect("an object").keys() {
        assert_eq!(after.get(field), before.get(field), "{field}");
    }
}

/// The smallest number that JSON can say is 0 in f32.
#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_top_p_is_still_above_0() {
    let server = Server::start().await;
    let ask = json!({"model": "Tiny", "messages": user("hello"), "top_p": 5e-324, "max_tokens": 3});
    assert_eq!(server.post("/v1/generate_response", &ask).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_is_no_object() {
    let server = Server::start().await;
    server.make("mine").await;
    assert_eq!(server.patch("/v1/models/mine", &json!(["new", null, null, null, null, null, null])).await.error().0, 422);
    for (field, value) in [("stream_options", json!([])), ("messages", json!([["user", "hello"]]))] {
        let mut ask = json!({"model": "Tiny", "messages": user("hello"), "max_tokens": 3});
        ask[field] = value;
        let answer = server.post("/openai/v1/chat/completions", &ask).await;
        assert_eq!(answer.status, 400, "{field}: {}", answer.body);
    }
    let text = json!({"model": "Tiny", "input": "hello", "text": "json"});
    assert_eq!(server.post("/openai/v1/responses", &text).await.body["error"]["param"], "text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_model_answers_as_its_base() {
    let server = Server::start().await;
    server.make("mine").await;
    let ask = |model: &str| json!({"model": model, "messages": user("hello"), "seed": 9, "max_tokens": 20});
    let base = server.post("/v1/generate_response", &ask("Tiny")).await.body;
    let mine = server.post("/v1/generate_response", &ask("mine")).await.body;
    assert_eq!(base["message"], mine["message"]);
    assert_eq!(mine["model"], "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_keeps_its_parents_rank() {
    let server = Server::start().await;
    server.make("parent").await;
    let copy = |extra: Value| {
        let mut body = json!({"name": "copy", "description": "", "parent_model": "parent"});
        for (key, value) in extra.as_object().expect("object") {
            body[key] = value.clone();
        }
        body
    };
    let refused = server.post("/v1/models", &copy(json!({"rank": 8}))).await;
    assert_eq!(refused.error(), (422, "invalid_parameter", Some("rank")));
    let same = server.post("/v1/models", &copy(json!({"rank": 4}))).await;
    assert_eq!((same.status, same.body["rank"].as_u64(), same.body["alpha"].as_f64()), (201, Some(4), Some(8.0)), "{}", same.body);
    assert_eq!((same.body["parent_model"].as_str(), same.body["base_model"].as_str()), (Some("parent"), Some("Tiny")));
    let louder = server.post("/v1/models", &copy(json!({"name": "louder", "alpha": 64.0}))).await;
    assert_eq!((louder.status, louder.body["alpha"].as_f64()), (201, Some(64.0)), "{}", louder.body);
    assert_eq!(server.delete("/v1/models/parent").await.status, 200);
    let orphan = server.post("/v1/generate_response", &json!({"model": "louder", "messages": user("hello"), "max_tokens": 3})).await;
    assert_eq!(orphan.status, 200, "{}", orphan.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_can_be_streamed() {
    let server = Server::start().await;
    let body = json!({"name": "streamed", "description": "", "parent_model": "Tiny", "stream": true});
    let chunks = server.stream("/v1/models", &body).await;
    let last = chunks.last().expect("chunks");
    assert_eq!((last["type"].as_str(), last["id"].as_str(), last["revision"].as_u64()), (Some("stop"), Some("streamed"), Some(0)));
    assert!(last["usage"]["duration"].is_number());
    let again = server.stream("/v1/models", &body).await;
    let last = again.last().expect("chunks");
    assert_eq!((last["type"].as_str(), last["error"]["code"].as_str()), (Some("error"), Some("name_taken")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let server = Server::start().await;
    server.make("taken").await;
    let long = "x".repeat(65);
    let base = |extra: Value| {
        let mut body = json!({"name": "new", "description": "", "parent_model": "Tiny"});
        for (key, value) in extra.as_object().expect("object") {
            body[key] = value.clone();
        }
        body
    };
    let cases = [
        (json!({"name": "taken"}), (409, "name_taken", Some("name"))),
        (json!({"name": "Tiny"}), (409, "name_taken", Some("name"))),
        (json!({"name": ""}), (422, "invalid_parameter", Some("name"))),
        (json!({"name": long}), (422, "invalid_parameter", Some("name"))),
        (json!({"name": "a/b"}), (422, "invalid_parameter", Some("name"))),
        (json!({"name": "a\u{7}b"}), (422, "invalid_parameter", Some("name"))),
        (json!({"parent_model": "nobody"}), (404, "model_not_found", Some("parent_model"))),
        (json!({"parent_model": "Llama-3.1-8b"}), (503, "not_downloaded", Some("model"))),
        (json!({"rank": 0}), (422, "invalid_parameter", Some("rank"))),
        (json!({"rank": 257}), (422, "invalid_parameter", Some("rank"))),
        (json!({"alpha": 0.0}), (422, "invalid_parameter", Some("alpha"))),
        (json!({"dropout": 1.0}), (422, "invalid_parameter", Some("dropout"))),
        (json!({"temperature": 3.0}), (422, "invalid_parameter", Some("temperature"))),
        (json!({"size": 3}), (422, "invalid_parameter", Some("size"))),
    ];
    for (extra, expected) in cases {
        let answer = server.post("/v1/models", &base(extra.clone())).await;
        assert_eq!(answer.error(), expected, "{extra}: {}", answer.body);
    }
    let missing = server.post("/v1/models", &json!({"name": "new", "parent_model": "Tiny"})).await;
    assert_eq!(missing.error(), (422, "invalid_parameter", Some("description")));
    assert_eq!(server.delete("/v1/models/Tiny").await.error(), (403, "read_only", Some("model")));
    assert_eq!(server.patch("/v1/models/tiny", &json!({"description": ""})).await.error().0, 403);
}

/// Another account's model and one that does not exist are answered with the same words.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_anothers_models() {
    let server = Server::start().await;
    server.make("secret").await;
    let key = server.stranger().await;
    let calls = |name: &str| {
        vec![
            (Method::GET, format!("/v1/models/{name}"), None),
            (Method::DELETE, format!("/v1/models/{name}"), None),
            (Method::PATCH, format!("/v1/models/{name}"), Some(json!({"description": ""}))),
            (Method::GET, format!("/v1/models/{name}/revisions"), None),
            (Method::POST, format!("/v1/models/{name}/rollback"), Some(json!({"revision": 0}))),
            (Method::POST, "/v1/generate_response".to_owned(), Some(json!({"model": name, "messages": user("hello")}))),
            (
                Method::POST,
                "/v1/train".to_owned(),
                Some(json!({"model": name, "messages": user("a"), "responses": [{"content": "b", "reward": 1}]})),
            ),
            (Method::POST, "/v1/models".to_owned(), Some(json!({"name": "copy", "description": "", "parent_model": name}))),
        ]
    };
    for ((method, path, body), (_, other_path, other_body)) in calls("secret").into_iter().zip(calls("absent")) {
        let send = |path: &str, body: &Option<Value>| {
            let request = server.client.request(method.clone(), server.url(path)).bearer_auth(&key).header("x-request-id", "same");
            match body {
                Some(body) => request.json(body),
                None => request,
            }
        };
        let theirs = Answer::read(send(&path, &body)).await;
        let nobodys = Answer::read(send(&other_path, &other_body)).await;
        assert_eq!(theirs.status, 404, "{method} {path}: {}", theirs.body);
        assert_eq!(theirs.body.to_string().replace("secret", "absent"), nobodys.body.to_string(), "{method} {path}");
    }
    let list = Answer::read(server.client.get(server.url("/v1/models")).bearer_auth(&key)).await.body;
    assert!(!list.to_string().contains("secret"));
    assert_eq!(server.get("/v1/models/secret").await.status, 200);
}
