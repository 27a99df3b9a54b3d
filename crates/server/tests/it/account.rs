//! `/api`: sessions and keys; and which credential opens what.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::harness::{Answer, Server};

struct Page<'a> {
    server: &'a Server,
    cookie: String,
}

impl<'a> Page<'a> {
    fn anonymous(server: &'a Server) -> Page<'a> {
        Page { server, cookie: String::new() }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.server.client.request(method, self.server.url(path)).header("x-tiger-csrf", "1");
        if self.cookie.is_empty() { request } else { request.header("cookie", &self.cookie) }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path);
        Answer::read(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    async fn enter(server: &'a Server, path: &str, body: Value) -> (Page<'a>, Answer) {
        let answer = Page::anonymous(server).send(Method::POST, path, Some(body)).await;
        let cookie = answer.headers.get("set-cookie").and_then(|value| value.to_str().ok()).unwrap_or_default();
        (Page { server, cookie: cookie.split(';').next().unwrap_or_default().to_owned() }, answer)
    }
}

const PASSWORD: &str = "correct horse battery";

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_made_once_with_the_printed_token() {
    let server = Server::start().await;
    let token = server.app.setup_token().expect("a token while there is no owner");
    let state = Page::anonymous(&server).send(Method::GET, "/api/session", None).await.body;
    assert_eq!(state, json!({"signed_in": false, "owner": false, "needs_owner": true, "version": env!("CARGO_PKG_VERSION")}));
    let body = |token: &str| json!({"token": token, "name": "ada", "password": PASSWORD});
    let (_, wrong) = Page::enter(&server, "/api/owner", body("guess")).await;
    assert_eq!(wrong.error(), (403, "invalid_credentials", Some("token")));
    let (page, made) = Page::enter(&server, "/api/owner", body(&token)).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(
        made.body,
        json!({"signed_in": true, "name": "ada", "owner": true, "needs_owner": false, "version": env!("CARGO_PKG_VERSION")})
    );
    let cookie = made.headers["set-cookie"].to_str().expect("cookie");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    assert_eq!(page.send(Method::GET, "/api/session", None).await.body["name"], "ada");
    let (_, again) = Page::enter(&server, "/api/owner", body(&token)).await;
    assert_eq!(again.error().0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_shown_once_and_revoked_at_once() {
    let server = Server::start().await;
    let token = server.app.setup_token().expect("token");
    let (page, _) = Page::enter(&server, "/api/owner", json!({"token": token, "name": "ada", "password": PASSWORD})).await;
    let made = page.send(Method::POST, "/api/keys", Some(json!({"name": "laptop"}))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let key = made.body["key"].as_str().expect("key").to_owned();
    assert!(key.starts_with("tiger_") && key.len() == 49);
    let list = page.send(Method::GET, "/api/keys", None).await.body;
    assert!(!list.to_string().contains(&key));
    assert!(list.as_array().expect("array").iter().any(|row| row["name"] == "laptop" && row["id"] == made.body["id"]));
    let use_key = || Answer::read(server.client.get(server.url("/v1/models")).bearer_auth(&key));
    assert_eq!(use_key().await.status, 200);
    let path = format!("/api/keys/{}", made.body["id"].as_str().expect("id"));
    assert_eq!(page.send(Method::DELETE, &path, None).await.status, 200);
    assert_eq!(use_key().await.error(), (401, "invalid_key", None));
    assert_eq!(page.send(Method::DELETE, "/api/keys/key_9999", None).await.error().0, 404);
    assert_eq!(page.send(Method::DELETE, "/api/keys/nonsense", None).await.error().0, 404);
    let named = page.send(Method::POST, "/api/keys", Some(json!({"name": ""}))).await;
    assert_eq!(named.error(), (422, "invalid_parameter", Some("name")));
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_out_and_inviting() {
    let server = Server::start().await;
    let token = server.app.setup_token().expect("token");
    let (owner, _) = Page::enter(&server, "/api/owner", json!({"token": token, "name": "ada", "password": PASSWORD})).await;
    let (_, wrong) = Page::enter(&server, "/api/session", json!({"name": "ada", "password": "wrong password"})).await;
    assert_eq!(wrong.error(), (401, "invalid_credentials", None));
    let (page, right) = Page::enter(&server, "/api/session", json!({"name": "ada", "password": PASSWORD})).await;
    assert_eq!((right.status, right.body["name"].as_str()), (200, Some("ada")));
    assert_eq!(page.send(Method::DELETE, "/api/session", None).await.status, 200);
    assert_eq!(page.send(Method::GET, "/api/keys", None).await.error(), (401, "no_session", None));

    let invitation = owner.send(Method::POST, "/api/invitations", None).await;
    assert_eq!(invitation.status, 201, "{}", invitation.body);
    let accept = json!({"invitation": invitation.body["invitation"], "name": "grace", "password": PASSWORD});
    let (guest, accepted) = Page::enter(&server, "/api/accounts", accept.clone()).await;
    assert_eq!((accepted.status, accepted.body["owner"].as_bool()), (201, Some(false)), "{}", accepted.body);
    assert_eq!(guest.send(Method::POST, "/api/invitations", None).await.error(), (403, "forbidden", None));
    let (_, twice) =
        Page::enter(&server, "/api/accounts", json!({"invitation": invitation.body["invitation"], "name": "eve", "password": PASSWORD}))
            .await;
    assert_eq!(twice.error().0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_passwords_is_slow() {
    let server = Server::start().await;
    let mut refused = 0;
    for _ in 0..12 {
        let (_, answer) = Page::enter(&server, "/api/session", json!({"name": "ada", "password": "wrong password"})).await;
        if answer.status == 429 {
            assert!(answer.headers["retry-after"].to_str().expect("seconds").parse::<u32>().expect("seconds") > 0);
            refused += 1;
        }
    }
    assert!(refused >= 2, "{refused}");
}

/// Keys never open `/api`; cookies open `/v1` only with the page's header.
#[tokio::test(flavor = "multi_thread")]
async fn each_credential_opens_its_own_door() {
    let server = Server::start().await;
    let token = server.app.setup_token().expect("token");
    let (page, _) = Page::enter(&server, "/api/owner", json!({"token": token, "name": "ada", "password": PASSWORD})).await;
    assert_eq!(server.get("/api/keys").await.error(), (401, "no_session", None));
    let with_cookie = |path: &str| server.client.get(server.url(path)).header("cookie", &page.cookie);
    assert_eq!(Answer::read(with_cookie("/v1/models")).await.error(), (403, "missing_csrf_header", None));
    assert_eq!(Answer::read(with_cookie("/v1/models").header("x-tiger-csrf", "1")).await.status, 200);
    let post = server.client.post(server.url("/api/keys")).header("cookie", &page.cookie).json(&json!({"name": "forged"}));
    assert_eq!(Answer::read(post).await.error(), (403, "missing_csrf_header", None));
    for path in ["/v1/models", "/v1/models/tiny"] {
        assert_eq!(Answer::read(server.client.get(server.url(path))).await.error(), (401, "missing_key", None));
        for bad in ["tiger_x", "", "Basic abc"] {
            let answer = Answer::read(server.client.get(server.url(path)).header("authorization", format!("Bearer {bad}"))).await;
            assert_eq!(answer.error().0, 401);
        }
    }
}
