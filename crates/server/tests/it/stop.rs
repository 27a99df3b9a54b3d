//! Starting and stopping.

use reqwest::Method;
use serde_json::json;
use tiger_server::{App, Limits, StartError, serve};
use tokio::net::TcpListener;

use crate::harness::{Answer, Options, Server, config, joined, user};

#[tokio::test(flavor = "multi_thread")]
async fn streams_finish_while_new_requests_are_refused() {
    let mut server = Server::start().await;
    let body = json!({"model": "Tiny", "messages": user("hello"), "stream": true, "seed": 1, "temperature": 1.0, "n": 16});
    let mut open = server.request(Method::POST, "/v1/generate_response").json(&body).send().await.expect("answer");
    // The first chunk says that the tokenizer is loaded: the engine does not know of this request yet, it must finish all the same.
    let mut bytes = open.chunk().await.expect("chunk").expect("chunk").to_vec();
    server.begin_stop();
    while !server.app.is_draining() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let refused = Answer::read(server.request(Method::POST, "/v1/generate_response").json(&body)).await;
    assert_eq!(refused.error(), (503, "draining", None));
    assert_eq!(server.get("/readyz").await.error(), (503, "draining", None));
    while let Some(chunk) = open.chunk().await.expect("chunk") {
        bytes.extend(chunk);
    }
    // Only the whole is text: the network cuts where it likes, also within a character.
    let text = String::from_utf8(bytes).expect("UTF-8");
    let chunks: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(chunks.last().expect("chunks")["type"], "stop");
    assert!(!joined(&chunks, 0, "delta").is_empty());
    server.stop().await;
    assert!(server.request(Method::GET, "/healthz").send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_take_too_long_end_in_an_error() {
    let limits = Limits { drain_time: std::time::Duration::ZERO, ..Limits::default() };
    let mut server = Server::with(Options { limits, ..Options::default() }).await;
    let body = json!({"model": "Tiny", "messages": user("hello"), "stream": true, "temperature": 2.0, "n": 64});
    let open = server.request(Method::POST, "/v1/generate_response").json(&body).send().await.expect("answer");
    server.begin_stop();
    let text = open.text().await.expect("a whole stream");
    let last: serde_json::Value = serde_json::from_str(text.lines().last().expect("lines")).expect("JSON");
    assert_eq!((last["type"].as_str(), last["error"]["code"].as_str()), (Some("error"), Some("draining")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_address_needs_an_owner() {
    let dir = tempfile::tempdir().expect("folder");
    let app = App::open(config(dir.path(), &Options::default())).await.expect("app");
    let public = || async { TcpListener::bind("0.0.0.0:0").await.expect("port") };
    let refused = serve(public().await, app.clone(), async {}).await;
    assert!(matches!(&refused, Err(StartError::Address(message)) if message.contains("no owner")), "{refused:?}");
    app.store().create_owner("ada", Some("correct horse battery")).await.expect("owner");
    serve(public().await, app, async {}).await.expect("an owner exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn use_is_on_record_after_a_stop() {
    let mut server = Server::start().await;
    let answer = server.post("/v1/generate_response", &json!({"model": "Tiny", "messages": user("hello"), "max_tokens": 3})).await;
    assert_eq!(answer.status, 200);
    for _ in 0..500 {
        let sums = server.app.store().usage(server.account, 0.0).await.expect("usage");
        if let [sum] = sums.as_slice() {
            assert_eq!((sum.kind.as_str(), sum.model.as_str(), sum.requests, sum.input_tokens), ("generate", "tiny", 1, 5));
            server.stop().await;
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("no use was recorded");
}
