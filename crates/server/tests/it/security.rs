//! What `docs/security.md` claims, line by line; and that every test which that page names is there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::json;
use tiger_server::Limits;

use crate::harness::{Answer, Options, PASSWORD, Page, Server, user};

async fn sign_in(server: &Server) -> Page<'_> {
    let (page, answer) = Page::enter(server, "/api/session", json!({"name": "ada", "password": PASSWORD})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    page
}

async fn is_signed_in(page: &Page<'_>) -> bool {
    page.send(Method::GET, "/api/keys", None).await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn the_session_cookie_is_out_of_reach() {
    for secure in [false, true] {
        let server = Server::with(Options { secure_cookies: secure, ..Options::default() }).await;
        let body = json!({"token": server.app.setup_token(), "name": "ada", "password": PASSWORD});
        let made = Page::enter(&server, "/api/owner", body).await.1;
        let cookie = made.headers["set-cookie"].to_str().expect("cookie").to_owned();
        let has = |attribute: &str| cookie.split("; ").any(|part| part == attribute);
        assert!(has("HttpOnly") && has("SameSite=Strict") && has("Path=/"), "{cookie}");
        assert_eq!(has("Secure"), secure, "{cookie}");
        // Without a domain only the very host that set it gets it back.
        assert!(!cookie.to_lowercase().contains("domain"), "{cookie}");
    }
}

/// Every call that changes something, and `/v1` with the page's cookie.
const GUARDED: [(Method, &str); 13] = [
    (Method::POST, "/api/session"),
    (Method::DELETE, "/api/session"),
    (Method::POST, "/api/owner"),
    (Method::PUT, "/api/password"),
    (Method::POST, "/api/accounts"),
    (Method::DELETE, "/api/accounts/acct_9"),
    (Method::POST, "/api/invitations"),
    (Method::POST, "/api/keys"),
    (Method::DELETE, "/api/keys/key_1"),
    (Method::POST, "/api/chats"),
    (Method::DELETE, "/api/chats"),
    (Method::GET, "/v1/models"),
    (Method::POST, "/v1/generate_response"),
];

async fn guarded(page: &Page<'_>, (method, path): (Method, &str), headers: &[(&str, &str)]) -> Answer {
    let body = match path {
        "/api/owner" => json!({"token": "x", "name": "eve", "password": PASSWORD}),
        "/api/accounts" => json!({"invitation": "x", "name": "eve", "password": PASSWORD}),
        "/api/session" => json!({"name": "eve", "password": PASSWORD}),
        "/api/keys" => json!({"name": "forged"}),
        _ => json!({}),
    };
    let request = page.server.client.request(method, page.server.url(path)).header("cookie", &page.cookie).json(&body);
    Answer::read(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_the_pages_own_header_is_refused() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    for call in GUARDED {
        let at = format!("{} {}", call.0, call.1);
        assert_eq!(guarded(&page, call, &[]).await.error(), (403, "missing_csrf_header", None), "{at}");
    }
    assert!(is_signed_in(&page).await && page.send(Method::GET, "/api/keys", None).await.body.as_array().map(Vec::len) == Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_another_sites_page_is_refused() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let own = format!("http://{}", server.address);
    let other_port = format!("http://127.0.0.1:{}", server.address.port() ^ 1);
    let header = ("x-tiger-csrf", "1");
    for call in GUARDED {
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "nonsense"),
            ("origin", &other_port),
        ] {
            let answer = guarded(&page, (call.0.clone(), call.1), &[header, foreign]).await;
            assert_eq!(answer.error(), (403, "forbidden", None), "{} {} {foreign:?}", call.0, call.1);
        }
    }
    for friendly in [("origin", own.as_str()), ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")] {
        assert_eq!(guarded(&page, (Method::GET, "/v1/models"), &[header, friendly]).await.status, 200, "{friendly:?}");
    }
    // A key is no cookie: browsers do not add it by themselves, so programs may call from wherever they run.
    let with_key = server.request(Method::GET, "/v1/models").header("origin", "https://app.example");
    assert_eq!(Answer::read(with_key).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_are_counted_by_name_and_in_all() {
    let limits = Limits { sign_ins_per_minute_in_all: 20, ..Limits::default() };
    let server = Server::with(Options { limits, ..Options::default() }).await;
    let mut refused = 0;
    for number in 0..30 {
        let (_, answer) = Page::enter(&server, "/api/session", json!({"name": format!("name {number}"), "password": "a guess"})).await;
        if answer.status == 429 {
            assert_eq!(answer.error(), (429, "rate_limited", None));
            assert!(answer.headers["retry-after"].to_str().expect("seconds").parse::<u32>().expect("seconds") >= 1);
            refused += 1;
        }
    }
    assert!((5..=10).contains(&refused), "{refused} of 30 names were refused");
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let mut last = 0;
    for _ in 0..12 {
        let guess = json!({"current": "a guess", "password": PASSWORD});
        last = page.send(Method::PUT, "/api/password", Some(guess)).await.status;
    }
    assert_eq!(last, 429, "a stolen session does not guess the password either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_it_should() {
    let server = Server::start().await;
    let owner = Page::owner(&server).await;
    let signed_out = sign_in(&server).await;
    assert!(is_signed_in(&signed_out).await);
    signed_out.send(Method::DELETE, "/api/session", None).await;
    assert!(!is_signed_in(&signed_out).await, "a copied cookie is worth nothing after the sign-out");
    let elsewhere = sign_in(&server).await;
    let changed = owner.send(Method::PUT, "/api/password", Some(json!({"current": PASSWORD, "password": "battery staple"}))).await;
    assert!(!is_signed_in(&elsewhere).await && !is_signed_in(&owner).await, "after a new password");
    let owner = Page { cookie: Page::cookie(&changed), ..owner };
    let guest = owner.guest("grace").await;
    let id = owner.send(Method::GET, "/api/accounts", None).await.body[1]["id"].as_str().expect("id").to_owned();
    owner.send(Method::DELETE, &format!("/api/accounts/{id}"), None).await;
    assert!(!is_signed_in(&guest).await && is_signed_in(&owner).await, "after the account's end");
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_see_nothing_of_each_other() {
    let server = Server::start().await;
    let owner = Page::owner(&server).await;
    let guest = owner.guest("grace").await;
    let model = json!({"name": "secret", "description": "", "parent_model": "Tiny", "rank": 2});
    assert_eq!(owner.send(Method::POST, "/v1/models", Some(model)).await.status, 201);
    let answer =
        owner.send(Method::POST, "/v1/generate_response", Some(json!({"model": "secret", "messages": user("a"), "max_tokens": 2}))).await;
    let key = owner.send(Method::POST, "/api/keys", Some(json!({"name": "secret"}))).await.body["id"].clone();
    let chat = owner.send(Method::POST, "/api/chats", Some(json!({"title": "secret", "model": "secret"}))).await.body["id"].clone();
    for path in ["/v1/models", "/api/keys", "/api/chats", "/api/chats?search=secret", "/api/usage", "/api/status", "/api/session"] {
        let seen = guest.send(Method::GET, path, None).await;
        assert!(seen.status == 200 && !seen.body.to_string().contains("secret"), "{path}: {}", seen.body);
    }
    let chat = format!("/api/chats/{}", chat.as_str().expect("id"));
    let key = format!("/api/keys/{}", key.as_str().expect("id"));
    for (method, path, body) in [
        (Method::GET, chat.as_str(), None),
        (Method::DELETE, &chat, None),
        (Method::DELETE, &key, None),
        (Method::GET, "/v1/models/secret", None),
        (Method::DELETE, "/v1/models/secret", None),
        (Method::GET, "/v1/models/secret/revisions", None),
        (Method::GET, "/v1/models/secret/adapter/adapter_config.json", None),
        (Method::POST, "/v1/generate_response", Some(json!({"model": "secret", "messages": user("a")}))),
        (Method::POST, "/v1/train", Some(json!({"model": "secret", "messages": user("a"), "responses": [{"content": "b", "reward": 1}]}))),
    ] {
        assert_eq!(guest.send(method.clone(), path, body).await.error().0, 404, "{method} {path}");
    }
    let own = json!({"name": "own", "description": "", "parent_model": "Tiny", "rank": 2});
    assert_eq!(guest.send(Method::POST, "/v1/models", Some(own)).await.status, 201);
    let train = json!({"model": "own", "messages": user("a"), "responses": [{"response_id": answer.body["response_id"], "reward": 1}]});
    assert_eq!(guest.send(Method::POST, "/v1/train", Some(train)).await.error().1, "unknown_response");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("log").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The log of the whole process: that of other tests is no secret of this one.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_neither_listed_nor_logged() {
    let log = Log::default();
    let writer = log.clone();
    let filter = tracing_subscriber::EnvFilter::new("info,tiger_server=trace,tiger_store=trace,sqlx=debug");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(move || writer.clone()).init();
    let server = Server::start().await;
    let token = server.app.setup_token().expect("token");
    let owner = Page::owner(&server).await;
    let session = owner.cookie.split('=').nth(1).expect("token").to_owned();
    let key = owner.send(Method::POST, "/api/keys", Some(json!({"name": "laptop"}))).await.body["key"].as_str().expect("key").to_owned();
    let invitation = owner.send(Method::POST, "/api/invitations", None).await.body["invitation"].as_str().expect("token").to_owned();
    let asked = json!({"model": "Tiny", "messages": user("a private question"), "max_tokens": 2});
    let ask = server.client.post(server.url("/v1/generate_response")).bearer_auth(&key).header("x-request-id", "this-very-one");
    assert_eq!(Answer::read(ask.json(&asked)).await.status, 200);
    Answer::read(server.client.get(server.url("/v1/models")).bearer_auth(format!("{}x", &key[..48]))).await;
    for path in ["/api/keys", "/api/invitations", "/api/accounts", "/api/session", "/api/usage", "/api/status", "/metrics"] {
        let seen = owner.send(Method::GET, path, None).await.body.to_string();
        for secret in [&token, &session, &key, &invitation, PASSWORD] {
            assert!(!seen.contains(secret), "{path}");
        }
    }
    let log = String::from_utf8(log.0.lock().expect("log").clone()).expect("text");
    assert!(log.contains("this-very-one"), "the log is not caught");
    for secret in [&token, &session, &key[..48], &invitation, PASSWORD, "a private question"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_setup_token_makes_one_owner() {
    let server = Server::start().await;
    let token = server.app.setup_token().expect("token");
    let body = |name: &str| json!({"token": token, "name": name, "password": PASSWORD});
    let both = tokio::join!(Page::enter(&server, "/api/owner", body("ada")), Page::enter(&server, "/api/owner", body("eve")));
    let mut statuses = [both.0.1.status, both.1.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "two at once make one");
    assert_eq!(server.app.setup_token(), None);
    assert_eq!(Page::enter(&server, "/api/owner", body("mallory")).await.1.error().0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_makes_one_account() {
    let server = Server::start().await;
    let owner = Page::owner(&server).await;
    let invitation = owner.send(Method::POST, "/api/invitations", None).await.body["invitation"].clone();
    let body = |name: &str| json!({"invitation": invitation, "name": name, "password": PASSWORD});
    let both = tokio::join!(Page::enter(&server, "/api/accounts", body("grace")), Page::enter(&server, "/api/accounts", body("eve")));
    let mut statuses = [both.0.1.status, both.1.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403], "two at once make one");
    assert_eq!(owner.send(Method::GET, "/api/accounts", None).await.body.as_array().map(Vec::len), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_site_frames_the_page_or_runs_in_it() {
    let server = Server::start().await;
    for path in ["/", "/keys", "/welcome"] {
        let headers = Answer::read(server.client.get(server.url(path))).await.headers;
        let header = |name: &str| headers[name].to_str().expect("header").to_owned();
        let policy = header("content-security-policy");
        for part in ["default-src 'self'", "script-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"] {
            assert!(policy.split("; ").any(|found| found == part), "{path}: {part} is not in {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
        assert_eq!(header("x-frame-options"), "DENY");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        assert_eq!(
            (header("cross-origin-opener-policy"), header("cross-origin-resource-policy")),
            ("same-origin".into(), "same-origin".into())
        );
        assert!(header("permissions-policy").contains("camera=()") && header("permissions-policy").contains("microphone=()"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_answers_are_kept_by_no_cache() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    for path in ["/api/session", "/api/keys", "/api/chats", "/api/nowhere"] {
        let answer = page.send(Method::GET, path, None).await;
        assert_eq!(
            (&answer.headers["cache-control"], &answer.headers["x-content-type-options"]),
            (&"no-store".parse().expect("value"), &"nosniff".parse().expect("value")),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_bounded_before_anybody_is_known() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    for (path, bytes) in
        [("/api/session", 70_000), ("/api/owner", 70_000), ("/api/accounts", 70_000), ("/api/keys", 70_000), ("/api/chats", 4_300_000)]
    {
        let body = json!({"name": "x".repeat(bytes), "password": "", "title": "", "model": ""});
        assert_eq!(page.send(Method::POST, path, Some(body)).await.error(), (413, "body_too_large", None), "{path}");
    }
}

/// A name that was made to mean this machine (DNS rebinding): the browser has no cookie for it, and no address opens anything by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_opens_nothing() {
    let server = Server::start().await;
    let page = Page::owner(&server).await;
    let ask = |method: Method, path: &str| {
        server
            .client
            .request(method, server.url(path))
            .header("host", "evil.example")
            .header("origin", "http://evil.example")
            .header("x-tiger-csrf", "1")
    };
    for (method, path) in [
        (Method::GET, "/api/keys"),
        (Method::GET, "/api/chats"),
        (Method::POST, "/api/invitations"),
        (Method::GET, "/v1/models"),
        (Method::GET, "/api/status"),
    ] {
        assert_eq!(Answer::read(ask(method, path)).await.error().0, 401, "{path}");
    }
    let state = Answer::read(ask(Method::GET, "/api/session")).await.body;
    assert_eq!((state["signed_in"].as_bool(), state.get("name")), (Some(false), None));
    assert!(is_signed_in(&page).await);
}

fn sources(folder: PathBuf, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            text.push_str(&std::fs::read_to_string(path).expect("source"));
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/security.md")).expect("docs/security.md");
    let mut code = String::new();
    sources(root.join("crates"), &mut code);
    let journeys: String = std::fs::read_dir(root.join("playground/e2e"))
        .expect("the page's tests")
        .filter_map(|entry| std::fs::read_to_string(entry.expect("entry").path()).ok())
        .collect();
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let rows: Vec<_> = rows.iter().filter(|row| row.len() == 3 && row[0] != "threat" && !row[0].starts_with("---")).collect();
    assert!(rows.len() >= 15, "the table was not found");
    for row in rows {
        let names: Vec<&str> = row[2].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test is named for: {}", row[0]);
        for name in names {
            let there = match name.starts_with("e2e/") {
                true => journeys.contains(&format!("test('{name}'")),
                false => code.contains(&format!("fn {name}(")),
            };
            assert!(there, "docs/security.md names the test {name}, which is not there");
        }
    }
}

#[test]
fn the_search_for_tests_notices() {
    let mut code = String::new();
    sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut code);
    let missing = ["no_such", "_test"].concat();
    assert!(code.contains("fn the_search_for_tests_notices(") && !code.contains(&format!("fn {missing}(")));
}
