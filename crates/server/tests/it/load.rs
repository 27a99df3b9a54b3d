//! Many streams at once, and callers who leave.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Server, user};

const STREAMS: usize = 256;

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_are_open_at_once_and_all_end() {
    let server = Server::start().await;
    let ask = |seed: usize| json!({"model": "Tiny", "messages": user("hello"), "stream": true, "max_tokens": 12, "seed": seed, "temperature": 1.0});
    let open = (0..STREAMS).map(|seed| server.request(Method::POST, "/v1/generate_response").json(&ask(seed)).send());
    // Every answer's head is here before any body is read: all are open at once.
    let responses = futures::future::join_all(open).await;
    let read = responses.into_iter().map(|response| async {
        let text = response.expect("answer").text().await.expect("body");
        let last = text.lines().last().unwrap_or_default().to_owned();
        serde_json::from_str::<Value>(&last).expect("JSON")
    });
    let ends = futures::future::join_all(read).await;
    for end in &ends {
        assert_eq!(end["type"], "stop", "{end}");
    }
    // The same request alone gives the same answer.
    let mut alone = ask(17);
    alone["stream"] = json!(false);
    let whole = server.post("/v1/generate_response", &alone).await.body;
    assert_eq!(whole["usage"]["output_tokens"], ends[17]["usage"]["output_tokens"]);
    server.app.engine().check().await.expect("engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_leave_free_their_places() {
    let server = Server::start().await;
    let body = json!({"model": "Tiny", "messages": user("hello"), "stream": true, "n": 16, "temperature": 2.0});
    for _ in 0..8 {
        let mut response = server.request(Method::POST, "/v1/generate_response").json(&body).send().await.expect("answer");
        while let Some(chunk) = response.chunk().await.expect("chunk") {
            if chunk.windows(5).any(|window| window == b"delta") {
                break;
            }
        }
        drop(response);
    }
    let mut whole = body.clone();
    whole["stream"] = json!(false);
    let left = server.request(Method::POST, "/v1/generate_response").json(&whole).timeout(Duration::from_millis(60)).send().await;
    assert!(left.is_err(), "the answer came before the caller left");
    for _ in 0..500 {
        let status = server.app.engine().status();
        if status.running == 0 && status.waiting == 0 {
            server.app.engine().check().await.expect("engine");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("requests of callers who left still run: {:?}", server.app.engine().status());
}
