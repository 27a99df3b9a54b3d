//! Many streams at once, and callers who leave.

use std::time::Duration;

use futures::StreamExt;
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

/// Bytes that the process has in memory.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

/// Requests before the memory is looked at, so that every buffer and cache has its size; and after.
const WARM: usize = 4_000;
const SOAK: usize = 40_000;
/// What the allocator may keep: far less than one kilobyte a request.
const GROWTH_BYTES: u64 = 16 << 20;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a minute or two: cargo test -p tiger-server --test it -- --ignored memory"]
async fn memory_does_not_grow_with_the_number_of_requests() {
    let server = Server::start().await;
    let ask = |number: usize| {
        let server = &server;
        async move {
            let body = json!({"model": "Tiny", "messages": user(&format!("hello {number}")), "max_tokens": 1, "temperature": 1.0});
            assert_eq!(server.post("/v1/generate_response", &body).await.status, 200);
        }
    };
    let many = |range: std::ops::Range<usize>| futures::stream::iter(range).map(ask).buffer_unordered(64).count();
    many(0..WARM).await;
    let before = resident_bytes();
    many(WARM..WARM + SOAK).await;
    let after = resident_bytes();
    assert!(after < before + GROWTH_BYTES, "{before} bytes were resident after {WARM} requests, {after} after {SOAK} more");
}
