//! `/v1/models/{id}/adapter/{file}`: the files that PEFT reads.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Page, Server, user};

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
