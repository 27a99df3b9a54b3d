//! `/api/pulls`, with a source that does what the test says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tiger_server::{OnProgress, Pull, PullProgress, Puller, Pulling};
use tokio::sync::Notify;

use crate::harness::{Options, Page, Server};

#[derive(Default)]
struct Source {
    asked: Mutex<Vec<(String, String)>>,
    go: Notify,
    fails: Mutex<Option<String>>,
}

struct Stub(Arc<Source>);

impl Pull for Stub {
    fn pull(&self, repository: String, id: String, on_progress: OnProgress) -> Pulling {
        let source = Arc::clone(&self.0);
        Box::pin(async move {
            source.asked.lock().expect("asked").push((repository, id));
            on_progress(PullProgress::Bytes { bytes: 40, total: 100, received: 10 });
            source.go.notified().await;
            on_progress(PullProgress::Checking);
            match source.fails.lock().expect("fails").take() {
                Some(error) => Err(error),
                None => Ok(()),
            }
        })
    }
}

async fn server() -> (Server, Arc<Source>) {
    let source = Arc::new(Source::default());
    let server = Server::with(Options { pull: Some(Puller(Arc::new(Stub(Arc::clone(&source))))), ..Options::default() }).await;
    (server, source)
}

async fn until(page: &Page<'_>, at: usize, state: &str) -> Value {
    for _ in 0..500 {
        let list = page.send(Method::GET, "/api/pulls", None).await.body;
        if list[at]["state"] == state && (state != "running" || list[at]["total_bytes"] == 100) {
            return list[at].clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no pull became {state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_begun_once_shown_and_done() {
    let (server, source) = server().await;
    let owner = Page::owner(&server).await;
    let guest = owner.guest("grace").await;
    let pull = || owner.send(Method::POST, "/api/pulls", Some(json!({"model": "Llama-3.1-8b"})));
    let begun = pull().await;
    assert_eq!((begun.status, begun.body["id"].as_str(), begun.body["state"].as_str()), (202, Some("llama-3.1-8b"), Some("running")));
    let shown = until(&guest, 0, "running").await;
    assert_eq!(
        (shown["bytes"].as_u64(), shown["total_bytes"].as_u64(), shown["model"].as_str()),
        (Some(40), Some(100), Some("Llama-3.1-8b"))
    );
    assert_eq!(pull().await.status, 200, "it goes on already");
    assert_eq!(*source.asked.lock().expect("asked"), [("meta-llama/Llama-3.1-8B-Instruct".to_owned(), "llama-3.1-8b".to_owned())]);
    source.go.notify_one();
    let done = until(&owner, 0, "done").await;
    assert_eq!((done["bytes"].as_u64(), done.get("error"), done.get("eta_s")), (Some(100), None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_stopped_fails_and_is_begun_again() {
    let (server, source) = server().await;
    let page = Page::owner(&server).await;
    let pull = |model: &str| page.send(Method::POST, "/api/pulls", Some(json!({"model": model})));
    assert_eq!(pull("some/Model.x").await.body["id"], "model.x");
    until(&page, 0, "running").await;
    let stopped = page.send(Method::DELETE, "/api/pulls/model.x", None).await;
    assert_eq!((stopped.status, stopped.body["state"].as_str(), stopped.body["bytes"].as_u64()), (200, Some("stopped"), Some(40)));
    assert_eq!(page.send(Method::DELETE, "/api/pulls/model.x", None).await.body["state"], "stopped", "again changes nothing");
    assert_eq!(page.send(Method::DELETE, "/api/pulls/absent", None).await.error(), (404, "not_found", None));
    *source.fails.lock().expect("fails") = Some("the hub says no; set HF_TOKEN".to_owned());
    assert_eq!(pull("some/Model.x").await.status, 202);
    until(&page, 0, "running").await;
    source.go.notify_waiters();
    assert_eq!(until(&page, 0, "failed").await["error"], "the hub says no; set HF_TOKEN");
    assert_eq!(page.send(Method::GET, "/api/pulls", None).await.body.as_array().map(Vec::len), Some(1), "one a base");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pull_is_refused() {
    let (server, source) = server().await;
    let owner = Page::owner(&server).await;
    let guest = owner.guest("grace").await;
    let pull = |model: &str| owner.send(Method::POST, "/api/pulls", Some(json!({"model": model})));
    for model in ["/etc", "..", "./x", "../x", "a/../b", "a/b/c", "nonsense", "", "a/", "a b/c", "~/x"] {
        assert_eq!(pull(model).await.error(), (422, "invalid_parameter", Some("model")), "{model}");
    }
    assert_eq!(pull("owner/Tiny").await.error(), (409, "conflict", Some("model")), "it is there");
    let by_guest = guest.send(Method::POST, "/api/pulls", Some(json!({"model": "Llama-3.1-8b"}))).await;
    assert_eq!(by_guest.error(), (403, "forbidden", None));
    assert_eq!(guest.send(Method::DELETE, "/api/pulls/x", None).await.error().0, 403);
    for number in 0..4 {
        assert_eq!(pull(&format!("a/b{number}")).await.status, 202);
    }
    assert_eq!(pull("a/b5").await.error(), (429, "too_many_in_flight", None));
    drop(source);
    let server = Server::start().await;
    let owner = Page::owner(&server).await;
    let none = owner.send(Method::POST, "/api/pulls", Some(json!({"model": "Llama-3.1-8b"}))).await;
    assert_eq!(none.error(), (503, "not_downloaded", None));
}
