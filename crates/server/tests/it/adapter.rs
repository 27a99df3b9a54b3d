//! `/v1/models/{id}/adapter/{file}`: the files that PEFT reads.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, Options, Page, Server, user};

const WEIGHTS: &str = "/v1/models/mine/adapter/adapter_model.safetensors";

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_is_downloaded_as_peft_reads_it() {
    let server = &Server::start().await;
    server.make("mine").await;
    let config = server.get("/v1/models/mine/adapter/adapter_config.json").await;
    assert_eq!((config.status, config.body["r"].as_u64(), config.body["peft_type"].as_str()), (200, Some(4), Some("LORA")));
    assert_eq!(config.body["base_model_name_or_path"], "Tiny");
    assert_eq!(config.headers["content-disposition"], "attachment; filename=\"adapter_config.json\"");
    let bytes = |path: String| async move {
        let response = server.request(Method::GET, &path).send().await.expect("answer");
        assert_eq!(
            (response.status().as_u16(), response.headers()["content-type"].to_str().expect("type")),
            (200, "application/octet-stream")
        );
        response.bytes().await.expect("bytes")
    };
    let first = bytes(WEIGHTS.to_owned()).await;
    let header: serde_json::Value =
        serde_json::from_slice(&first[8..8 + u64::from_le_bytes(first[..8].try_into().expect("8")) as usize]).expect("header");
    assert!(header.as_object().expect("object").keys().any(|name| name.ends_with("lora_A.weight")), "{header}");
    let train =
        json!({"model": "mine", "messages": user("a"), "responses": [{"content": "b", "reward": 1}, {"content": "c", "reward": 0}]});
    assert_eq!(server.post("/v1/train", &train).await.body["revision"], 1);
    assert_eq!(bytes(format!("{WEIGHTS}?revision=0")).await, first);
    assert_ne!(bytes(WEIGHTS.to_owned()).await, first, "the newest by default");
    for (path, status, code) in [
        ("/v1/models/Tiny/adapter/adapter_config.json", 403, "read_only"),
        ("/v1/models/absent/adapter/adapter_config.json", 404, "model_not_found"),
        ("/v1/models/mine/adapter/optimizer.bin", 404, "not_found"),
        ("/v1/models/mine/adapter/adapter_config.json?revision=9", 404, "not_found"),
        ("/v1/models/mine/adapter/adapter_config.json?revision=x", 422, "invalid_parameter"),
    ] {
        let refused = server.get(path).await;
        assert_eq!((refused.error().0, refused.error().1), (status, code), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_downloads_too_and_nobody_elses() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let body = json!({"name": "mine", "description": "", "parent_model": "Tiny", "rank": 4});
    assert_eq!(page.send(Method::POST, "/v1/models", Some(body)).await.status, 201);
    assert_eq!(page.send(Method::GET, WEIGHTS, None).await.status, 200);
    let guest = page.guest("grace").await;
    assert_eq!(guest.send(Method::GET, WEIGHTS, None).await.error().1, "model_not_found");
}

/// A form for `POST /v1/adapters`; a part whose content is `None` is left out.
fn form(parts: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, content) in parts {
        let Some(content) = content else { continue };
        body.extend_from_slice(format!("--edge\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--edge--\r\n");
    body
}

async fn import(server: &Server, parts: &[(&str, Option<&[u8]>)]) -> Answer {
    let request = server.request(Method::POST, "/v1/adapters").header("content-type", "multipart/form-data; boundary=edge");
    Answer::read(request.body(form(parts))).await
}

async fn files_of(server: &Server, model: &str) -> [Vec<u8>; 2] {
    let file = |name: &str| {
        let request = server.request(Method::GET, &format!("/v1/models/{model}/adapter/{name}"));
        async move { request.send().await.expect("answer").bytes().await.expect("bytes").to_vec() }
    };
    [file("adapter_config.json").await, file("adapter_model.safetensors").await]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_of_peft_becomes_a_model() {
    let server = &Server::start().await;
    server.make("mine").await;
    let train =
        json!({"model": "mine", "messages": user("a"), "responses": [{"content": "b", "reward": 1}, {"content": "c", "reward": 0}]});
    assert_eq!(server.post("/v1/train", &train).await.body["revision"], 1);
    let [config, weights] = files_of(server, "mine").await;
    let good: [(&str, Option<&[u8]>); 5] = [
        ("name", Some(b"Came Back")),
        ("description", Some(b"from elsewhere")),
        ("parent_model", Some(b"tiny")),
        ("adapter_config", Some(&config)),
        ("adapter_model", Some(&weights)),
    ];
    let made = import(server, &good).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let shown = ["id", "description", "parent_model", "revision", "rank"].map(|field| made.body[field].clone());
    assert_eq!(shown, [json!("came-back"), json!("from elsewhere"), json!("Tiny"), json!(0), json!(4)]);
    assert_eq!(files_of(server, "came-back").await, [config.clone(), weights.clone()]);
    let ask = |model: &str| json!({"model": model, "messages": user("hello"), "max_tokens": 12, "temperature": 0, "logprobs": true});
    let (ours, theirs) =
        (server.post("/v1/generate_response", &ask("mine")).await.body, server.post("/v1/generate_response", &ask("came-back")).await.body);
    assert_eq!(ours["message"], theirs["message"]);
    assert_eq!(ours["logprobs"], theirs["logprobs"]);
    let train = json!({"model": "came-back", "messages": user("a"), "responses": [{"content": "b", "reward": 1}]});
    assert_eq!(server.post("/v1/train", &train).await.body["revision"], 1);

    let dora = String::from_utf8(config.clone()).expect("text").replace("\"use_dora\": false", "\"use_dora\": true");
    let high = String::from_utf8(config.clone()).expect("text").replace("\"rank_pattern\": {}", "\"rank_pattern\": {\"q_proj\": 257}");
    for (part, content, status, param) in [
        ("name", Some(&b"Came Back"[..]), 409, Some("name")),
        ("name", Some(b"a/b"), 422, Some("name")),
        ("name", Some(b"\xff"), 422, Some("name")),
        ("name", None, 422, Some("name")),
        ("parent_model", Some(b"absent"), 404, Some("parent_model")),
        ("parent_model", Some(b"mine"), 422, Some("parent_model")),
        ("adapter_config", Some(dora.as_bytes()), 422, Some("adapter_config")),
        ("adapter_config", Some(high.as_bytes()), 422, Some("adapter_config")),
        ("adapter_config", None, 422, Some("adapter_config")),
        ("adapter_model", Some(&weights[..weights.len() - 1]), 422, Some("adapter_model")),
        ("adapter_model", None, 422, Some("adapter_model")),
    ] {
        let parts: Vec<_> = good.iter().map(|(name, given)| (*name, if *name == part { content } else { *given })).collect();
        let refused = import(server, &parts).await;
        let (found, _, named) = refused.error();
        assert_eq!((found, named), (status, param), "{part} {content:?}: {}", refused.body);
    }
    let refused = import(server, &[&good[..], &[("rank", Some(b"4"))]].concat()).await;
    assert_eq!((refused.error().0, refused.error().2), (422, Some("rank")));
    let refused = import(server, &[&good[..1], &good[..]].concat()).await;
    assert_eq!((refused.error().0, refused.error().2), (422, Some("name")));
    assert_eq!(server.post("/v1/adapters", &json!({"name": "x"})).await.error().0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_beyond_the_limit_are_refused() {
    let limits = tiger_server::Limits { adapter_body_bytes: 4096, ..tiger_server::Limits::default() };
    let server = Server::with(Options { limits, ..Options::default() }).await;
    let refused = import(&server, &[("adapter_model", Some(&[0; 5000]))]).await;
    assert_eq!((refused.error().0, refused.error().1), (413, "body_too_large"));
}
