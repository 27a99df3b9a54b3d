//! The document tells the truth: every path of it answers, with a documented status and the documented fields.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Server, user};

fn schema<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is not in the document")),
        None => schema,
    }
}

/// The value has the shape of the schema: required fields are there, no field is undocumented, types fit.
fn check(document: &Value, shape: &Value, value: &Value, at: &str) {
    let shape = schema(document, shape);
    if let Some(parts) = shape["allOf"].as_array() {
        let mut known = BTreeSet::new();
        for part in parts {
            known.extend(fields(document, part));
            required(document, part, value, at);
        }
        undocumented(&known, value, at);
        return;
    }
    if let Some(ways) = shape["oneOf"].as_array().or(shape["anyOf"].as_array()) {
        if value.is_null() && ways.iter().any(|way| way["type"] == "null") {
            return;
        }
        let way = ways.iter().find(|way| way["type"] != "null").unwrap_or_else(|| panic!("{at}: no way"));
        return check(document, way, value, at);
    }
    let types: Vec<&str> = match &shape["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => return,
    };
    let fits = types.iter().any(|kind| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{at}: type {other}"),
    });
    assert!(fits, "{at}: {value} is not {types:?}");
    if let Some(list) = value.as_array() {
        list.iter().for_each(|item| check(document, &shape["items"], item, &format!("{at}[]")));
    }
    if let (Some(properties), Some(object)) = (shape["properties"].as_object(), value.as_object()) {
        required(document, shape, value, at);
        undocumented(&properties.keys().cloned().collect(), value, at);
        for (name, item) in object {
            check(document, &properties[name], item, &format!("{at}.{name}"));
        }
    }
}

fn fields(document: &Value, shape: &Value) -> BTreeSet<String> {
    let shape = schema(document, shape);
    shape["properties"].as_object().map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

fn required(document: &Value, shape: &Value, value: &Value, at: &str) {
    for name in schema(document, shape)["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        assert!(value.get(name).is_some(), "{at}: {name} is documented as required, the answer is {value}");
    }
}

fn undocumented(known: &BTreeSet<String>, value: &Value, at: &str) {
    for name in value.as_object().into_iter().flat_map(|object| object.keys()) {
        assert!(known.contains(name), "{at}: {name} is not documented");
    }
}

struct Call {
    method: Method,
    path: &'static str,
    url: &'static str,
    body: Option<Value>,
    page: bool,
}

fn call(method: Method, path: &'static str, url: &'static str, body: Option<Value>) -> Call {
    Call { method, path, url, body, page: path.starts_with("/api") }
}

/// At least one good and one bad call of every operation.
fn calls(token: &str) -> Vec<Call> {
    [api_calls(), openai_calls(), page_calls(token)].into_iter().flatten().collect()
}

fn api_calls() -> Vec<Call> {
    let (get, post, patch, delete) = (Method::GET, Method::POST, Method::PATCH, Method::DELETE);
    let train = |model: &str| json!({"model": model, "messages": user("a"), "responses": [{"content": "b", "reward": 1}, {"content": "c", "reward": 0}]});
    vec![
        call(get.clone(), "/v1/models", "/v1/models", None),
        call(post.clone(), "/v1/models", "/v1/models", Some(json!({"name": "mine", "description": "", "parent_model": "Tiny", "rank": 2}))),
        call(post.clone(), "/v1/models", "/v1/models", Some(json!({"name": "mine", "description": "", "parent_model": "Tiny"}))),
        call(get.clone(), "/v1/models/{id}", "/v1/models/mine", None),
        call(get.clone(), "/v1/models/{id}", "/v1/models/absent", None),
        call(patch.clone(), "/v1/models/{id}", "/v1/models/mine", Some(json!({"description": "x"}))),
        call(patch, "/v1/models/{id}", "/v1/models/Tiny", Some(json!({"description": "x"}))),
        call(
            post.clone(),
            "/v1/generate_response",
            "/v1/generate_response",
            Some(json!({"model": "mine", "messages": user("a"), "max_tokens": 4, "n": 2, "logprobs": true})),
        ),
        call(post.clone(), "/v1/generate_response", "/v1/generate_response", Some(json!({"model": "Llama-3.1-8b", "messages": user("a")}))),
        call(post.clone(), "/v1/train", "/v1/train", Some(train("mine"))),
        call(post.clone(), "/v1/train", "/v1/train", Some(train("Tiny"))),
        call(get.clone(), "/v1/models/{id}/revisions", "/v1/models/mine/revisions", None),
        call(get.clone(), "/v1/models/{id}/revisions", "/v1/models/Tiny/revisions", None),
        call(get.clone(), "/v1/models/{id}/revisions", "/v1/models/mine/revisions?limit=0", None),
        call(
            post.clone(),
            "/v1/models/{id}/evaluate",
            "/v1/models/mine/evaluate",
            Some(json!({"prompts": [{"messages": user("a"), "responses": ["b"]}], "max_tokens": 4})),
        ),
        call(post.clone(), "/v1/models/{id}/evaluate", "/v1/models/Tiny/evaluate", Some(json!({"prompts": [{"messages": user("a")}]}))),
        call(post.clone(), "/v1/models/{id}/rollback", "/v1/models/mine/rollback", Some(json!({"revision": 0}))),
        call(post, "/v1/models/{id}/rollback", "/v1/models/mine/rollback", Some(json!({"revision": 77}))),
        call(get.clone(), "/v1/models/{id}/adapter/{file}", "/v1/models/mine/adapter/adapter_config.json", None),
        call(get.clone(), "/v1/models/{id}/adapter/{file}", "/v1/models/mine/adapter/other", None),
        call(Method::POST, "/v1/adapters", "/v1/adapters", Some(json!({"name": "mine"}))),
        call(delete.clone(), "/v1/models/{id}", "/v1/models/mine", None),
        call(delete, "/v1/models/{id}", "/v1/models/Tiny", None),
        call(get.clone(), "/healthz", "/healthz", None),
        call(get.clone(), "/readyz", "/readyz", None),
        call(get, "/metrics", "/metrics", None),
    ]
}

fn openai_calls() -> Vec<Call> {
    const CHAT: &str = "/openai/v1/chat/completions";
    const TEXT: &str = "/openai/v1/completions";
    const RESPONSES: &str = "/openai/v1/responses";
    const MODEL: &str = "/openai/v1/models/{id}";
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"enum": [1]}}});
    vec![
        call(
            post.clone(),
            "/v1/models",
            "/v1/models",
            Some(json!({"name": "theirs", "description": "", "parent_model": "Tiny", "rank": 2})),
        ),
        call(get.clone(), "/openai/v1/models", "/openai/v1/models", None),
        call(get.clone(), MODEL, "/openai/v1/models/theirs", None),
        call(get, MODEL, "/openai/v1/models/absent", None),
        call(
            post.clone(),
            CHAT,
            CHAT,
            Some(json!({"model": "theirs", "messages": user("a"), "max_tokens": 4, "n": 2, "logprobs": true, "top_logprobs": 2})),
        ),
        call(
            post.clone(),
            CHAT,
            CHAT,
            Some(json!({"model": "theirs", "messages": user("a"), "max_tokens": 60, "tools": [tool], "tool_choice": "required"})),
        ),
        call(post.clone(), CHAT, CHAT, Some(json!({"model": "Tiny", "messages": user("a"), "echo": true}))),
        call(post.clone(), TEXT, TEXT, Some(json!({"model": "theirs", "prompt": "a", "max_tokens": 4, "logprobs": 2}))),
        call(post.clone(), TEXT, TEXT, Some(json!({"model": "absent", "prompt": "a"}))),
        call(post.clone(), RESPONSES, RESPONSES, Some(json!({"model": "theirs", "input": "a", "max_output_tokens": 4}))),
        call(post, RESPONSES, RESPONSES, Some(json!({"model": "theirs", "input": "a", "tools": [{}]}))),
        call(delete.clone(), MODEL, "/openai/v1/models/theirs", None),
        call(delete, MODEL, "/openai/v1/models/Tiny", None),
    ]
}

fn page_calls(token: &str) -> Vec<Call> {
    const PASSWORD: &str = "correct horse battery";
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    vec![
        call(post.clone(), "/api/owner", "/api/owner", Some(json!({"token": "x", "name": "ada", "password": PASSWORD}))),
        call(post.clone(), "/api/owner", "/api/owner", Some(json!({"token": token, "name": "ada", "password": PASSWORD}))),
        call(get.clone(), "/api/session", "/api/session", None),
        call(post.clone(), "/api/session", "/api/session", Some(json!({"name": "ada", "password": "wrong wrong"}))),
        call(post.clone(), "/api/session", "/api/session", Some(json!({"name": "ada", "password": PASSWORD}))),
        call(post.clone(), "/api/invitations", "/api/invitations", None),
        call(get.clone(), "/api/invitations", "/api/invitations", None),
        call(delete.clone(), "/api/invitations/{id}", "/api/invitations/inv_1", None),
        call(delete.clone(), "/api/invitations/{id}", "/api/invitations/inv_1", None),
        call(get.clone(), "/api/accounts", "/api/accounts", None),
        call(delete.clone(), "/api/accounts/{id}", "/api/accounts/acct_1", None),
        call(put.clone(), "/api/password", "/api/password", Some(json!({"current": "wrong wrong", "password": PASSWORD}))),
        call(put.clone(), "/api/password", "/api/password", Some(json!({"current": PASSWORD, "password": PASSWORD}))),
        call(get.clone(), "/api/usage", "/api/usage", None),
        call(get.clone(), "/api/usage", "/api/usage?days=0", None),
        call(get.clone(), "/api/status", "/api/status", None),
        call(post.clone(), "/api/chats", "/api/chats", Some(json!({"title": "t", "model": "tiny", "nodes": []}))),
        call(post.clone(), "/api/chats", "/api/chats", Some(json!({"title": "t", "model": "tiny", "leaf": "x"}))),
        call(get.clone(), "/api/chats", "/api/chats", None),
        call(get.clone(), "/api/chats", "/api/chats?limit=0", None),
        call(get.clone(), "/api/chats/{id}", "/api/chats/{chat}", None),
        call(put.clone(), "/api/chats/{id}", "/api/chats/{chat}", Some(json!({"version": 1, "title": "u", "model": "tiny"}))),
        call(put, "/api/chats/{id}", "/api/chats/{chat}", Some(json!({"version": 1, "title": "u", "model": "tiny"}))),
        call(delete.clone(), "/api/chats/{id}", "/api/chats/{chat}", None),
        call(delete.clone(), "/api/chats/{id}", "/api/chats/{chat}", None),
        call(delete.clone(), "/api/chats", "/api/chats", None),
        call(post.clone(), "/api/accounts", "/api/accounts", Some(json!({"invitation": "x", "name": "eve", "password": PASSWORD}))),
        call(post.clone(), "/api/pulls", "/api/pulls", Some(json!({"model": "Llama-3.1-8b"}))),
        call(post.clone(), "/api/pulls", "/api/pulls", Some(json!({"model": "/tmp"}))),
        call(get.clone(), "/api/pulls", "/api/pulls", None),
        call(delete.clone(), "/api/pulls/{id}", "/api/pulls/absent", None),
        call(post.clone(), "/api/keys", "/api/keys", Some(json!({"name": "laptop"}))),
        call(post, "/api/keys", "/api/keys", Some(json!({"name": ""}))),
        call(get, "/api/keys", "/api/keys", None),
        call(delete.clone(), "/api/keys/{id}", "/api/keys/key_1", None),
        call(delete.clone(), "/api/keys/{id}", "/api/keys/key_999", None),
        call(delete, "/api/session", "/api/session", None),
    ]
}

/// Where the document lies for those who read it without a server.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_the_kept_one() {
    let server = Server::start().await;
    let document = Answer::read(server.client.get(server.url("/openapi.json"))).await.body;
    let text = format!("{}\n", serde_json::to_string_pretty(&document).expect("JSON"));
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(KEPT, &text).expect("docs/openapi.json");
    }
    let kept = std::fs::read_to_string(KEPT).expect("docs/openapi.json");
    let line = kept.lines().zip(text.lines()).position(|(kept, now)| kept != now);
    assert!(
        kept == text,
        "docs/openapi.json is not what the server says (line {line:?}): look whether the change is meant, then UPDATE_OPENAPI=1 cargo test -p tiger-server kept_one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_in_order() {
    let server = Server::start().await;
    let document = Answer::read(server.client.get(server.url("/openapi.json"))).await.body;
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        for (method, operation) in operations.as_object().expect("operations") {
            let at = format!("{method} {path}");
            let id = operation["operationId"].as_str().expect("an id");
            assert!(ids.insert(id.to_owned()), "{at}: the id {id} is another operation's");
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{at} has no summary");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                assert!(response["content"].is_object(), "{at}: nothing is said about the body of {status}");
            }
        }
    }
    let text = document.to_string();
    for (what, why) in [("::", "a path of Rust"), ("[`", "a link of Rust"), ("u-int", "no format"), ("\"schema\":{}", "anything")] {
        assert!(!text.contains(what), "{what} is {why}: {}", &text[text.find(what).unwrap_or(0).saturating_sub(200)..][..300]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_true() {
    let server = Server::start().await;
    let document = Answer::read(server.client.get(server.url("/openapi.json"))).await.body;
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.")));
    assert_eq!(document["info"]["title"], "TigerCity");
    let mut todo: BTreeSet<(String, String)> = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        todo.extend(operations.as_object().expect("operations").keys().map(|method| (path.clone(), method.clone())));
    }
    let (mut cookie, mut chat) = (String::new(), String::new());
    let mut bodies: BTreeMap<String, usize> = BTreeMap::new();
    for Call { method, path, url, body, page } in calls(&server.app.setup_token().expect("token")) {
        let url = url.replace("{chat}", &chat);
        let mut request = server.client.request(method.clone(), server.url(&url));
        request = if page { request.header("x-tiger-csrf", "1").header("cookie", &cookie) } else { request.bearer_auth(&server.key) };
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = Answer::read(request).await;
        if let Some(set) = answer.headers.get("set-cookie").filter(|_| method == Method::POST || method == Method::PUT) {
            cookie = set.to_str().expect("cookie").split(';').next().expect("cookie").to_owned();
        }
        if path == "/api/chats" && answer.status == 201 {
            chat = answer.body["id"].as_str().expect("id").to_owned();
        }
        let name = method.as_str().to_lowercase();
        let operation = &document["paths"][path][&name];
        let at = format!("{method} {url} → {}", answer.status);
        let response = &operation["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{at} is not documented: {}", answer.body);
        if let Some(shape) = response["content"]["application/json"]["schema"].as_object() {
            check(&document, &Value::Object(shape.clone()), &answer.body, &at);
            *bodies.entry(path.to_owned()).or_default() += 1;
        } else {
            assert!(response["content"]["text/plain"].is_object(), "{at}: no schema");
        }
        todo.remove(&(path.to_owned(), name));
    }
    assert!(todo.is_empty(), "documented, but not walked: {todo:?}");
    assert!(bodies.len() >= 12);
}
