//! `/api/chats`: kept, found, paged, and nobody else's.

use reqwest::Method;
use serde_json::{Value, json};
use tiger_server::Limits;

use crate::harness::{Answer, Options, Page, Server};

fn document(title: &str, text: &str) -> Value {
    json!({
        "title": title, "model": "tiny", "system": "", "settings": {"temperature": 0.5},
        "nodes": [
            {"id": "a", "role": "user", "content": text, "created": 1.0},
            {"id": "b", "parent": "a", "role": "assistant", "content": "Ja.", "created": 2.0, "revision": 0, "stop_reason": "end_turn"},
        ],
        "leaf": "b",
    })
}

async fn make(page: &Page<'_>, title: &str, text: &str) -> Value {
    let made = page.send(Method::POST, "/api/chats", Some(document(title, text))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    made.body
}

fn path(chat: &Value) -> String {
    format!("/api/chats/{}", chat["id"].as_str().expect("id"))
}

async fn titles(page: &Page<'_>, query: &str) -> Vec<String> {
    let list = page.send(Method::GET, &format!("/api/chats{query}"), None).await;
    assert_eq!(list.status, 200, "{}", list.body);
    list.body["chats"].as_array().expect("chats").iter().map(|chat| chat["title"].as_str().expect("title").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_comes_back_as_it_was_written() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let made = make(&page, "One", "Hallo?").await;
    assert_eq!(made["version"], 1);
    let read = page.send(Method::GET, &path(&made), None).await.body;
    assert_eq!(read, made);
    let mut written = document("Two", "Hallo!");
    for (field, value) in written.as_object().expect("object").clone() {
        assert!(field == "title" || field == "nodes" || read[&field] == value, "{field}");
    }
    written["version"] = json!(1);
    let update = page.send(Method::PUT, &path(&made), Some(written.clone())).await;
    assert_eq!((update.status, update.body["version"].as_u64(), update.body["title"].as_str()), (200, Some(2), Some("Two")));
    let stale = page.send(Method::PUT, &path(&made), Some(written)).await;
    assert_eq!(stale.error(), (409, "conflict", Some("version")));
    assert!(stale.body["error"]["message"].as_str().expect("message").contains("reload"));
    assert_eq!(page.send(Method::DELETE, &path(&made), None).await.body["message"], "chat has been deleted");
    assert_eq!(page.send(Method::GET, &path(&made), None).await.error(), (404, "not_found", None));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_accounts_chat_does_not_exist() {
    let server = Server::start().await;
    let owner = Page::owner(&server).await;
    let guest = owner.guest("grace").await;
    let made = make(&owner, "Secret", "whisper").await;
    let mut update = document("Stolen", "x");
    update["version"] = json!(1);
    for (method, body) in [(Method::GET, None), (Method::PUT, Some(update)), (Method::DELETE, None)] {
        let theirs = guest.send(method.clone(), &path(&made), body.clone()).await;
        assert_eq!(theirs.error(), (404, "not_found", None), "{method}");
        let nobodys = guest.send(method.clone(), "/api/chats/chat_absent", body).await;
        assert_eq!(theirs.body["error"]["message"], nobodys.body["error"]["message"], "{method}");
    }
    assert!(titles(&guest, "").await.is_empty() && titles(&guest, "?search=whisper").await.is_empty());
    assert_eq!(guest.send(Method::DELETE, "/api/chats", None).await.body, json!({"deleted": 0}));
    assert_eq!(titles(&owner, "").await, ["Secret"]);
    assert_eq!(Answer::read(server.client.get(server.url("/api/chats")).bearer_auth(&server.key)).await.error().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_are_found_by_any_case_and_come_in_pages() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    for number in 0..5 {
        make(&page, &format!("Chat {number}"), &format!("{} Ünïcode nr. {number}", "before ".repeat(20))).await;
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
    }
    assert_eq!(titles(&page, "").await, ["Chat 4", "Chat 3", "Chat 2", "Chat 1", "Chat 0"]);
    let (mut seen, mut query) = (Vec::new(), "?limit=2".to_owned());
    loop {
        let list = page.send(Method::GET, &format!("/api/chats{query}"), None).await.body;
        seen.extend(list["chats"].as_array().expect("chats").iter().map(|chat| chat["title"].as_str().expect("title").to_owned()));
        let Some(next) = list["next"].as_str() else { break };
        query = format!("?limit=2&before={next}");
    }
    assert_eq!(seen, titles(&page, "").await);
    let found = page.send(Method::GET, "/api/chats?search=%C3%9CN%C3%8FCODE%20NR.%203", None).await.body;
    assert_eq!(found["chats"].as_array().map(Vec::len), Some(1), "{found}");
    let excerpt = found["chats"][0]["excerpt"].as_str().expect("excerpt");
    assert!(excerpt.contains("Ünïcode nr. 3") && excerpt.starts_with('…') && excerpt.chars().count() <= 82, "{excerpt}");
    let by_title = page.send(Method::GET, "/api/chats?search=chat%202", None).await.body;
    assert_eq!((by_title["chats"][0]["title"].as_str(), by_title["chats"][0].get("excerpt")), (Some("Chat 2"), None));
    for (query, param) in [("?limit=0", "limit"), ("?limit=101", "limit"), ("?before=x", "before"), ("?what=1", "query")] {
        assert_eq!(page.send(Method::GET, &format!("/api/chats{query}"), None).await.error().2, Some(param), "{query}");
    }
    assert_eq!(page.send(Method::DELETE, "/api/chats", None).await.body, json!({"deleted": 5}));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tree_is_refused_by_the_field() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let node = |id: &str, parent: Option<&str>| json!({"id": id, "parent": parent, "role": "user", "content": "x", "created": 1.0});
    let many: Vec<Value> = (0..4097).map(|number| node(&number.to_string(), None)).collect();
    for (field, value, param) in [
        ("title", json!("x".repeat(201)), "title"),
        ("model", json!("x".repeat(257)), "model"),
        ("nodes", json!([node("a", Some("b")), node("b", None)]), "nodes[0].parent"),
        ("nodes", json!([node("a", Some("a"))]), "nodes[0].parent"),
        ("nodes", json!([node("a", None), node("b", None), node("a", None)]), "nodes[2].id"),
        ("nodes", json!([node("", None)]), "nodes[0].id"),
        ("nodes", json!([node(&"x".repeat(65), None)]), "nodes[0].id"),
        ("nodes", json!(many), "nodes"),
        ("leaf", json!("c"), "leaf"),
        ("settings", json!({"heat": 1}), "settings.heat"),
    ] {
        let mut body = document("x", "y");
        body[field] = value;
        let refused = page.send(Method::POST, "/api/chats", Some(body)).await;
        assert_eq!(refused.error(), (422, "invalid_parameter", Some(param)), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_has_its_own_limit_of_bytes() {
    let limits = Limits { chat_body_bytes: 100_000, ..Limits::default() };
    let server = Server::with(Options { limits, ..Options::default() }).await;
    let page = Page::owner(&server).await;
    make(&page, "fits", &"x".repeat(90_000)).await;
    let refused = page.send(Method::POST, "/api/chats", Some(document("large", &"x".repeat(110_000)))).await;
    assert_eq!(refused.error(), (413, "body_too_large", None));
}
