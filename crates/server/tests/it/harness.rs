//! A server on port 0 and a temporary folder, with accounts and keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiger_server::{App, BaseFolder, Clock, Config, Limits, Puller, serve};
use tiger_store::AccountId;
use tiger_testkit::{Tiny, tiny_checkpoint};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub struct Server {
    pub app: App,
    pub address: SocketAddr,
    pub client: Client,
    pub key: String,
    pub account: AccountId,
    pub data: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
    _dir: Option<TempDir>,
}

/// How a test's server differs from the usual one.
pub struct Options {
    pub limits: Limits,
    pub tiny: Tiny,
    pub secure_cookies: bool,
    pub pull: Option<Puller>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            limits: Limits { requests_per_minute: 1_000_000, ..Limits::default() },
            tiny: Tiny::default(),
            secure_cookies: false,
            pull: None,
        }
    }
}

pub fn config(data: &std::path::Path, options: &Options) -> Config {
    let tiny = data.join("tiny");
    tiny_checkpoint(&tiny, &options.tiny).expect("checkpoint");
    let mut config = Config::new(data);
    config.builtin = Some(BaseFolder { name: "Tiny".to_owned(), description: "built in".to_owned(), dir: tiny });
    config.precision = tiger_model::Precision::F32;
    config.clock = Clock::frozen(1_764_000_000);
    config.limits = options.limits.clone();
    config.secure_cookies = options.secure_cookies;
    config.pull = options.pull.clone();
    config.engine.threads = 1;
    config.engine.kv_bytes = 64 << 20;
    config.engine.memory_budget_bytes = 512 << 20;
    config
}

impl Server {
    pub async fn start() -> Server {
        Server::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Server {
        let dir = tempfile::tempdir().expect("temporary folder");
        let data = dir.path().join("data");
        std::fs::create_dir_all(&data).expect("data folder");
        let app = App::open(config(&data, &options)).await.expect("app");
        Server { _dir: Some(dir), ..Server::of(app).await }
    }

    /// Serves an app that the test opened, in a folder that the test keeps.
    pub async fn of(app: App) -> Server {
        let data = app.config().data_dir.clone();
        let owner = app.store().ensure_owner().await.expect("owner");
        let key = app.store().create_key(owner.id, "test").await.expect("key").secret;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = app.clone();
        let task = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            serve(listener, serving, shutdown).await.expect("serve");
        });
        let client = Client::builder().timeout(Duration::from_secs(120)).build().expect("client");
        Server { app, address, client, key, account: owner.id, data, stop: Some(stop), task: Some(task), _dir: None }
    }

    /// Asks the server to stop; it drains.
    pub fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Stops and waits for the end.
    pub async fn stop(&mut self) {
        self.begin_stop();
        if let Some(task) = self.task.take() {
            task.await.expect("server task");
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path)).bearer_auth(&self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::read(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::read(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::read(self.request(Method::POST, path).json(body)).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        Answer::read(self.request(Method::PATCH, path).json(body)).await
    }

    pub async fn stream(&self, path: &str, body: &Value) -> Vec<Value> {
        let response = self.request(Method::POST, path).json(body).send().await.expect("answer");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let text = response.text().await.expect("a whole stream");
        assert!(text.ends_with('\n'), "{text:?}");
        text.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
    }

    /// A second account with its own key.
    pub async fn stranger(&self) -> String {
        let invitation = self.app.store().create_invitation(self.account, 100.0).await.expect("invitation");
        let account = self.app.store().accept_invitation(&invitation.token, "stranger", "a long password").await.expect("account");
        self.app.store().create_key(account.id, "theirs").await.expect("key").secret
    }

    /// Makes a model named `name`.
    pub async fn make(&self, name: &str) -> Value {
        let body = json!({"name": name, "description": "", "parent_model": "Tiny", "rank": 4, "seed": 7});
        let answer = self.post("/v1/models", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn read(request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, headers, body }
    }

    /// An error of the contract's shape: (status, code, param).
    pub fn error(&self) -> (u16, &str, Option<&str>) {
        let error = &self.body["error"];
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 10), "{}", self.body);
        assert!(error["type"].is_string(), "{}", self.body);
        assert_eq!(error["request_id"].as_str(), self.headers["x-request-id"].to_str().ok(), "{}", self.body);
        (self.status, error["code"].as_str().expect("code"), error["param"].as_str())
    }
}

pub fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// The joined text of a stream's deltas of one response.
pub fn joined(chunks: &[Value], index: u64, field: &str) -> String {
    let mine = chunks.iter().filter(|chunk| chunk["type"] == "delta" && chunk["index"].as_u64().unwrap_or(0) == index);
    mine.filter_map(|chunk| chunk[field].as_str()).collect()
}

pub const PASSWORD: &str = "correct horse battery";

/// The web page of an account: its cookie and the header of its own calls.
pub struct Page<'a> {
    pub server: &'a Server,
    pub cookie: String,
}

impl<'a> Page<'a> {
    pub fn anonymous(server: &'a Server) -> Page<'a> {
        Page { server, cookie: String::new() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.server.client.request(method, self.server.url(path)).header("x-tiger-csrf", "1");
        if self.cookie.is_empty() { request } else { request.header("cookie", &self.cookie) }
    }

    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = self.request(method, path);
        Answer::read(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    pub async fn enter(server: &'a Server, path: &str, body: Value) -> (Page<'a>, Answer) {
        let answer = Page::anonymous(server).send(Method::POST, path, Some(body)).await;
        (Page { server, cookie: Page::cookie(&answer) }, answer)
    }

    /// The cookie that an answer sets.
    pub fn cookie(answer: &Answer) -> String {
        let cookie = answer.headers.get("set-cookie").and_then(|value| value.to_str().ok()).unwrap_or_default();
        cookie.split(';').next().unwrap_or_default().to_owned()
    }

    /// The owner, made with the printed token.
    pub async fn owner(server: &'a Server) -> Page<'a> {
        let token = server.app.setup_token().expect("token");
        Page::enter(server, "/api/owner", json!({"token": token, "name": "ada", "password": PASSWORD})).await.0
    }

    /// Somebody whom this owner invites.
    pub async fn guest(&self, name: &str) -> Page<'a> {
        let invitation = self.send(Method::POST, "/api/invitations", None).await.body["invitation"].clone();
        let accept = json!({"invitation": invitation, "name": name, "password": PASSWORD});
        let (page, answer) = Page::enter(self.server, "/api/accounts", accept).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        page
    }
}
