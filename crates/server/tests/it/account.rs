//! `/api`: sessions and keys; and which credential opens what.

use reqwest::Method;
use serde_json::json;

use crate::harness::{Answer, PASSWORD, Page, Server};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_new_password_keeps_this_session_alone() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let (other, _) = Page::enter(&server, "/api/session", json!({"name": "ada", "password": PASSWORD})).await;
    let change = |current: &str, password: &str| Some(json!({"current": current, "password": password}));
    let wrong = page.send(Method::PUT, "/api/password", change("wrong password", "battery staple")).await;
    assert_eq!(wrong.error(), (403, "invalid_credentials", Some("current")));
    let short = page.send(Method::PUT, "/api/password", change(PASSWORD, "short")).await;
    assert_eq!(short.error(), (422, "invalid_parameter", Some("password")));
    assert_eq!(other.send(Method::GET, "/api/keys", None).await.status, 200, "a refused change changes nothing");
    let changed = page.send(Method::PUT, "/api/password", change(PASSWORD, "battery staple")).await;
    assert_eq!((changed.status, changed.body["name"].as_str()), (200, Some("ada")), "{}", changed.body);
    let page = Page { cookie: Page::cookie(&changed), ..page };
    assert_eq!(page.send(Method::GET, "/api/keys", None).await.status, 200);
    assert_eq!(other.send(Method::GET, "/api/keys", None).await.error(), (401, "no_session", None));
    let (_, old) = Page::enter(&server, "/api/session", json!({"name": "ada", "password": PASSWORD})).await;
    assert_eq!(old.error().0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_lists_and_deletes_accounts() {
    let server = Server::start().await;
    let owner = Page::owner(&server).await;
    let guest = owner.guest("grace").await;
    let list = owner.send(Method::GET, "/api/accounts", None).await.body;
    let rows: Vec<_> = list.as_array().expect("array").iter().map(|row| (row["name"].as_str(), row["owner"].as_bool())).collect();
    assert_eq!(rows, [(Some("ada"), Some(true)), (Some("grace"), Some(false))]);
    for (method, path) in [(Method::GET, "/api/accounts"), (Method::DELETE, "/api/accounts/acct_1"), (Method::GET, "/api/invitations")] {
        assert_eq!(guest.send(method, path, None).await.error(), (403, "forbidden", None), "{path}");
    }
    let path = |row: usize| format!("/api/accounts/{}", list[row]["id"].as_str().expect("id"));
    assert_eq!(owner.send(Method::DELETE, &path(0), None).await.error(), (409, "conflict", None));
    let key = guest.send(Method::POST, "/api/keys", Some(json!({"name": "laptop"}))).await.body["key"].as_str().expect("key").to_owned();
    let use_key = || Answer::read(server.client.get(server.url("/v1/models")).bearer_auth(&key));
    assert_eq!(use_key().await.status, 200);
    let gone = owner.send(Method::DELETE, &path(1), None).await;
    assert_eq!((gone.status, gone.body["message"].as_str()), (200, Some("account has been deleted")), "{}", gone.body);
    assert_eq!(use_key().await.error(), (401, "invalid_key", None));
    assert_eq!(guest.send(Method::GET, "/api/keys", None).await.error(), (401, "no_session", None));
    assert_eq!(owner.send(Method::DELETE, &path(1), None).await.error().0, 404);
    assert_eq!(owner.send(Method::DELETE, "/api/accounts/nonsense", None).await.error().0, 404);
    owner.guest("grace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_listed_without_its_token_and_withdrawn() {
    let server = Server::start().await;
    let owner = Page::owner(&server).await;
    let made = owner.send(Method::POST, "/api/invitations", None).await.body;
    let token = made["invitation"].as_str().expect("token");
    let list = owner.send(Method::GET, "/api/invitations", None).await.body;
    assert!(!list.to_string().contains(token));
    assert_eq!(list[0]["expires"], made["expires"]);
    let path = format!("/api/invitations/{}", list[0]["id"].as_str().expect("id"));
    let gone = owner.send(Method::DELETE, &path, None).await;
    assert_eq!(gone.body["message"], "invitation has been withdrawn");
    assert_eq!(owner.send(Method::DELETE, &path, None).await.error(), (404, "not_found", None));
    let accept = json!({"invitation": token, "name": "grace", "password": PASSWORD});
    assert_eq!(Page::enter(&server, "/api/accounts", accept).await.1.error(), (403, "invalid_credentials", Some("invitation")));
}

#[tokio::test(flavor = "multi_thread")]
async fn use_and_status_are_shown() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let guest = page.guest("grace").await;
    let body = json!({"model": "Tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3});
    server.post("/v1/generate_response", &body).await;
    page.send(Method::POST, "/v1/generate_response", Some(body)).await;
    let mut rows = json!([]);
    for _ in 0..200 {
        rows = page.send(Method::GET, "/api/usage?days=1", None).await.body;
        if rows.as_array().is_some_and(|rows| rows.len() == 2) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let by_key = rows.as_array().expect("array").iter().find(|row| row.get("key").is_some()).unwrap_or_else(|| panic!("{rows}"));
    assert_eq!((by_key["key_name"].as_str(), by_key["model"].as_str(), by_key["requests"].as_u64()), (Some("test"), Some("tiny"), Some(1)));
    assert!(rows.as_array().expect("array").iter().any(|row| row.get("key").is_none() && row["kind"] == "generate"));
    assert_eq!(guest.send(Method::GET, "/api/usage", None).await.body, json!([]));
    for days in ["0", "367", "x"] {
        let refused = page.send(Method::GET, &format!("/api/usage?days={days}"), None).await;
        assert_eq!(refused.error(), (422, "invalid_parameter", Some("days")), "{days}");
    }
    let status = page.send(Method::GET, "/api/status", None).await.body;
    assert!(status["sampled_tokens"].as_u64() >= Some(2) && status["uptime_s"].as_f64() > Some(0.0), "{status}");
    assert_eq!(status["bases"][0]["id"], "tiny");
}
