//! What holds for every path: error shapes, request ids, limits, health.

use reqwest::Method;
use serde_json::json;
use tiger_server::Limits;

use crate::harness::{Answer, Options, Server, user};

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_one_shape() {
    let server = Server::start().await;
    assert_eq!(server.get("/nowhere").await.error(), (404, "not_found", None));
    assert_eq!(server.get("/v1/nowhere").await.error(), (404, "not_found", None));
    let wrong_method = Answer::read(server.request(Method::PUT, "/v1/models")).await;
    assert_eq!(wrong_method.error(), (405, "method_not_allowed", None));
    assert!(wrong_method.headers["allow"].to_str().expect("allow").contains("GET"));
    for body in ["", "{", "[1,2", "nonsense", "{\"model\": \"a\"} extra", "\u{0}"] {
        let answer = Answer::read(server.request(Method::POST, "/v1/generate_response").body(body)).await;
        assert_eq!(answer.error(), (400, "malformed_json", None), "{body:?}");
    }
    let answer = Answer::read(server.request(Method::POST, "/v1/generate_response").body(vec![0xff, 0xfe])).await;
    assert_eq!(answer.error().0, 400);
    let answer = Answer::read(server.request(Method::POST, "/v1/generate_response").body("[]")).await;
    assert_eq!(answer.error().0, 422);
    let big = json!({"name": "x".repeat(70_000), "description": "", "parent_model": "Tiny"});
    assert_eq!(server.post("/v1/models", &big).await.error(), (413, "body_too_large", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_given_back_where_it_is_sane() {
    let server = Server::start().await;
    let long = "x".repeat(65);
    for (given, kept) in [("my-id_1.2", true), ("with space", false), ("<script>", false), (long.as_str(), false)] {
        let answer = Answer::read(server.request(Method::GET, "/healthz").header("x-request-id", given)).await;
        assert_eq!(answer.headers["x-request-id"] == *given, kept, "{given}");
    }
    let first = server.get("/healthz").await.headers["x-request-id"].clone();
    assert_ne!(first, server.get("/healthz").await.headers["x-request-id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_answer_429_and_say_when() {
    let limits = Limits { requests_per_minute: 5, ..Limits::default() };
    let server = Server::with(Options { limits, ..Options::default() }).await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        let answer = server.get("/v1/models").await;
        if answer.status == 429 {
            assert_eq!(answer.error(), (429, "rate_limited", None));
            assert!(answer.headers["retry-after"].to_str().expect("seconds").parse::<u32>().expect("seconds") >= 1);
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses[..5], [200; 5]);
    assert!(statuses[5..].contains(&429), "{statuses:?}");
    // Another key is not affected.
    let key = server.stranger().await;
    assert_eq!(Answer::read(server.client.get(server.url("/v1/models")).bearer_auth(key)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_refused_until_some_end() {
    let limits = Limits { in_flight_per_key: 2, ..Limits::default() };
    let server = Server::with(Options { limits, ..Options::default() }).await;
    let body = json!({"model": "Tiny", "messages": user("hello"), "stream": true, "temperature": 2.0, "n": 8});
    let open = || server.request(Method::POST, "/v1/generate_response").json(&body).send();
    let held = (open().await.expect("answer"), open().await.expect("answer"));
    assert_eq!((held.0.status().as_u16(), held.1.status().as_u16()), (200, 200));
    let third = Answer::read(server.request(Method::POST, "/v1/generate_response").json(&body)).await;
    if third.status == 429 {
        assert_eq!(third.error(), (429, "too_many_in_flight", None));
    } else {
        panic!("the streams ended before the third request; the test proves nothing");
    }
    drop(held);
    for _ in 0..500 {
        if server.get("/v1/models").await.status == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a place was not given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_open_and_metrics_name_nobody() {
    let server = Server::start().await;
    server.make("private-name").await;
    server.post("/v1/generate_response", &json!({"model": "private-name", "messages": user("hello"), "max_tokens": 3})).await;
    let open = |path: &str| Answer::read(server.client.get(server.url(path)));
    assert_eq!(open("/healthz").await.body, json!({"status": "ok"}));
    assert_eq!(open("/readyz").await.status, 200);
    let metrics = open("/metrics").await.body;
    let text = metrics.as_str().expect("text");
    for name in [
        "tiger_http_request_duration_seconds",
        "tiger_time_to_first_token_seconds",
        "tiger_time_per_output_token_seconds",
        "tiger_queue_requests",
        "tiger_kv_pages_used",
        "tiger_tokens_total",
        "kind=\"drafted\"",
        "kind=\"accepted\"",
        #[cfg(target_os = "linux")]
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    assert!(!text.contains("private-name") && !text.contains("tiger_test"), "{text}");
}
