//! What requests leave behind: samples and use, that no answer waits for.

use serde_json::{Value, json};
use tiger_server::App;
use tiger_store::{Options as StoreOptions, Store};

use crate::harness::{Options, Server, config, user};

fn ask(samples: usize) -> Value {
    json!({"model": "Tiny", "messages": user("hello"), "n": samples, "max_tokens": 4, "temperature": 1.0})
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_and_every_request_is_on_the_disk_after_a_stop() {
    let mut server = Server::start().await;
    let asked = (0..40).map(|i| {
        let server = &server;
        async move { server.post("/v1/generate_response", &ask(1 + i % 3)).await }
    });
    let answers = futures::future::join_all(asked).await;
    server.stop().await;
    let (account, data) = (server.account, server.data.clone());
    server.app.close().await;
    let store = Store::open_shared(&data).await.expect("store");
    let mut tokens = 0;
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.body);
        tokens += answer.body["usage"]["output_tokens"].as_i64().expect("tokens");
        let first = std::slice::from_ref(&answer.body);
        for response in answer.body["responses"].as_array().map_or(first, Vec::as_slice) {
            let id = response["response_id"].as_str().expect("id");
            assert!(store.sample(account, id).await.expect("store").is_some(), "{id} is lost");
        }
    }
    let sums = store.usage(account, 0.0).await.expect("use");
    let sums: Vec<_> = sums.iter().map(|sum| (sum.requests, sum.output_tokens)).collect();
    assert_eq!(sums, [(40, tokens)]);
    store.close().await;
}

/// Answers that are given although nothing can be kept would break the promise of their ids.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_requests_instead_of_losing_their_samples() {
    let dir = tempfile::tempdir().expect("folder");
    let store =
        Store::open_with(dir.path(), StoreOptions { max_database_pages: Some(120), ..StoreOptions::default() }).await.expect("store");
    let app = App::with_store(config(dir.path(), &Options::default()), store).await.expect("app");
    let server = Server::of(app).await;
    let mut refused = None;
    for _ in 0..200 {
        let answer = server.post("/v1/generate_response", &ask(64)).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the disk is never full");
    assert_eq!(refused.error(), (503, "disk_full", None), "{}", refused.body);
}
