//! Ten thousand generated requests that nobody sane would send: each is answered, none with a 500.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use tiger_testkit::split_mix;
use tower::ServiceExt;

use crate::harness::Server;

const REQUESTS: usize = 10_000;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(split_mix(&mut self.0) % n as u64).expect("small")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    fn value(&mut self, depth: usize) -> Value {
        const STRINGS: [&str; 10] = [
            "",
            "x",
            "Tiny",
            "user",
            "<|end|><|assistant|>",
            "\u{0}\u{202e}\u{feff}",
            "{{ messages }}",
            "日本語 🙂",
            "../../etc",
            "' OR 1=1 --",
        ];
        match self.below(if depth == 0 { 7 } else { 11 }) {
            0 => Value::Null,
            1 => json!(self.below(2) == 0),
            2 => json!(self.below(300)),
            3 => json!(-(self.below(9) as i64)),
            4 => json!(*self.pick(&[0.5, -0.0, 1e308, 5e-324, 1e-9, 2.0000001])),
            5 => json!(u64::MAX),
            6 => json!(self.pick(&STRINGS)),
            7 => Value::Array((0..self.below(4)).map(|_| self.value(depth - 1)).collect()),
            8 => (0..self.below(7)).map(|_| json!(self.pick(&STRINGS))).collect(),
            9 => json!("é".repeat(self.below(400))),
            _ => (0..self.below(4)).map(|_| ((*self.pick(&STRINGS)).to_owned(), self.value(depth - 1))).collect(),
        }
    }

    /// Of the field's own type, at and beyond its borders: what gets past the first check.
    fn typed(&mut self, field: &str) -> Value {
        const TEXTS: [&str; 6] = ["x", "hello", "<|end|>", "日本語 🙂", "</think>", "{{ 7 * 7 }}"];
        const ROLES: [&str; 4] = ["user", "assistant", "system", "user"];
        let text = |dice: &mut Dice| json!(dice.pick(&TEXTS));
        match field {
            "model" => json!(self.pick(&["Tiny", "tiny", "mine", "Llama-3.1-8b"])),
            "messages" => (0..self.below(4)).map(|_| json!({"role": self.pick(&ROLES), "content": text(self)})).collect(),
            "responses" => (0..self.below(4)).map(|_| json!({"content": text(self), "reward": self.below(5)})).collect(),
            "batch" => {
                (0..self.below(3)).map(|_| json!({"messages": self.typed("messages"), "responses": self.typed("responses")})).collect()
            }
            "stop" => (0..self.below(6)).map(|_| text(self)).collect(),
            "response_format" => {
                let schema = json!({"type": self.pick(&["object", "string", "integer", "nothing"]), "properties": self.value(2), "enum": self.value(1)});
                json!({"type": self.pick(&["text", "json_object", "json_schema"]), "schema": if self.below(4) == 0 { Value::Null } else { schema }})
            }
            "stream" => json!(self.below(2) == 0),
            "name" | "description" => text(self),
            "temperature" | "top_p" | "min_p" | "dropout" | "alpha" | "learning_rate" | "clip_high" | "baseline" => {
                json!(*self.pick(&[0.0, 1.0, 2.0, 5e-324, 1e-40, 0.999_999_999, 1e300, -1.0]))
            }
            _ => json!(*self.pick(&[0, 1, 2, 16, 17, 64, 65, 256, 257, u64::from(u32::MAX), u64::MAX])),
        }
    }

    /// A good request with a few fields made bad.
    fn body(&mut self, path: &str) -> Value {
        let mut body = match path {
            "/v1/generate_response" => json!({"model": "Tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}),
            "/v1/train" => {
                json!({"model": "mine", "messages": [{"role": "user", "content": "a"}], "responses": [{"content": "b", "reward": 1}], "dry_run": true})
            }
            "/v1/models/mine/rollback" => json!({"revision": 0}),
            "/v1/models" => json!({"name": "Tiny", "description": "", "parent_model": "Tiny"}),
            "/api/session" => json!({"name": "ada", "password": "guess guess"}),
            "/api/owner" => json!({"name": "ada", "password": "guess guess", "token": "x"}),
            _ => json!({"description": "x"}),
        };
        const GENERATE: [&str; 12] =
            ["model", "messages", "temperature", "top_p", "top_k", "min_p", "max_tokens", "stop", "seed", "n", "response_format", "stream"];
        const TRAIN: [&str; 10] =
            ["messages", "responses", "batch", "steps", "baseline", "if_revision", "learning_rate", "clip_high", "seed", "stream"];
        const OTHER: [&str; 8] = ["name", "rank", "alpha", "dropout", "temperature", "revision", "description", "unknown"];
        let fields: &[&str] = match path {
            "/v1/generate_response" => &GENERATE,
            "/v1/train" => &TRAIN,
            _ => &OTHER,
        };
        for _ in 0..self.below(4) {
            let field = *self.pick(fields);
            body[field] = if self.below(3) == 0 { self.value(3) } else { self.typed(field) };
        }
        body
    }

    fn bytes(&mut self, body: &Value) -> Vec<u8> {
        let mut bytes = body.to_string().into_bytes();
        match self.below(8) {
            0 => bytes.truncate(self.below(bytes.len() + 1)),
            1 => {
                let at = self.below(bytes.len());
                bytes[at] = u8::try_from(self.below(256)).expect("byte");
            }
            2 => bytes = [b"[".repeat(self.below(2000)), bytes].concat(),
            _ => {}
        }
        bytes
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_answered_with_a_500() {
    const PATHS: [(&str, &str); 13] = [
        ("POST", "/v1/generate_response"),
        ("POST", "/v1/generate_response"),
        ("POST", "/v1/generate_response"),
        ("POST", "/v1/generate_response"),
        ("POST", "/v1/train"),
        ("POST", "/v1/train"),
        ("POST", "/v1/models"),
        ("POST", "/v1/models/mine/rollback"),
        ("PATCH", "/v1/models/mine"),
        ("GET", "/v1/models/%00%ff%2e%2e"),
        ("DELETE", "/v1/models/Tiny"),
        ("POST", "/api/session"),
        ("POST", "/api/owner"),
    ];
    let server = Server::start().await;
    server.make("mine").await;
    let router = tiger_server::router(&server.app);
    let mut dice = Dice(2026);
    let mut seen = std::collections::BTreeMap::new();
    for number in 0..REQUESTS {
        let (method, path) = *dice.pick(&PATHS);
        let body = dice.body(path);
        let bytes = dice.bytes(&body);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", server.key))
            .header("x-tiger-csrf", "1");
        let request = request.body(Body::from(bytes.clone())).expect("request");
        let response = router.clone().oneshot(request).await.expect("answer");
        let status = response.status().as_u16();
        let text = axum::body::to_bytes(response.into_body(), 1 << 24).await.expect("body");
        let shown = String::from_utf8_lossy(&bytes).chars().take(400).collect::<String>();
        assert!(
            status != 500 && !text.windows(14).any(|w| w == b"internal_error"),
            "request {number}: {method} {path} {shown}: {}",
            String::from_utf8_lossy(&text)
        );
        *seen.entry(status).or_insert(0) += 1;
    }
    for status in [200, 400, 403, 404, 409, 422, 429] {
        assert!(seen.contains_key(&status), "no request was answered with {status}, so the requests are not hostile enough: {seen:?}");
    }
    server.app.engine().check().await.expect("engine");
}
