//! `POST /v1/train`, revisions, rollback.

use reqwest::Method;
use serde_json::{Value, json};

use tiger_testkit::Tiny;

use crate::harness::{Answer, Options, Server, user};

fn texts(extra: &Value) -> Value {
    let mut body = json!({
        "model": "mine", "messages": user("hello"), "seed": 1, "learning_rate": 0.01,
        "responses": [{"content": "well", "reward": 1.0}, {"content": "hell", "reward": 0.0}],
    });
    for (key, value) in extra.as_object().expect("object") {
        body[key] = value.clone();
    }
    body
}

fn logprob(response: &Value, field: &str) -> f64 {
    response[field].as_f64().unwrap_or_else(|| panic!("{field}: {response}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rewards_move_probabilities_and_the_revision_by_one() {
    let server = Server::start().await;
    server.make("mine").await;
    let answer = server.post("/v1/train", &texts(&json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = &answer.body;
    assert_eq!((body["updated"].as_bool(), body["revision"].as_u64(), body["steps"].as_u64()), (Some(true), Some(1), Some(1)), "{body}");
    let (good, bad) = (&body["responses"][0], &body["responses"][1]);
    assert!(logprob(good, "logprob_after") > logprob(good, "logprob_before"), "{good}");
    assert!(logprob(bad, "logprob_after") < logprob(bad, "logprob_before"), "{bad}");
    // "well" is w, e, ll and the end of the turn; "hell" is one token and the end.
    assert_eq!((good["tokens"].as_u64(), bad["tokens"].as_u64()), (Some(4), Some(2)));
    assert_eq!(body["usage"]["trained_tokens"], 6);
    assert_eq!(body["trained_tokens"], 6);
    assert_eq!(body["reward"]["mean"], 0.5);

    let info = server.get("/v1/models/mine").await.body;
    assert_eq!((info["revision"].as_u64(), info["status"].as_str()), (Some(1), Some("ready")));
    assert!(info["last_modified"].is_number());
    let revisions = server.get("/v1/models/mine/revisions").await.body;
    assert_eq!(revisions.as_array().map(Vec::len), Some(2));
    assert_eq!((revisions[0]["revision"].as_u64(), revisions[1]["revision"].as_u64()), (Some(1), Some(0)));
    assert_eq!(revisions[0]["metrics"]["loss"], body["loss"]);
    assert_eq!(revisions[0]["train_id"], body["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sampled_is_what_is_trained() {
    let server = Server::start().await;
    server.make("mine").await;
    let ask =
        json!({"model": "mine", "messages": user("hello"), "n": 4, "max_tokens": 12, "seed": 3, "temperature": 1.0, "logprobs": true});
    let sampled = server.post("/v1/generate_response", &ask).await.body;
    let responses = sampled["responses"].as_array().expect("responses");
    let rated: Vec<Value> =
        responses.iter().zip([1.0, 0.0, 0.5, -1.0]).map(|(r, reward)| json!({"response_id": r["response_id"], "reward": reward})).collect();
    let answer = server.post("/v1/train", &texts(&json!({"responses": rated}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for (trained, sampled) in answer.body["responses"].as_array().expect("responses").iter().zip(responses) {
        let logprobs: Vec<f64> = sampled["logprobs"].as_array().expect("logprobs").iter().map(|entry| logprob(entry, "logprob")).collect();
        assert_eq!(trained["mode"], "recorded");
        assert_eq!(trained["tokens"].as_u64(), Some(logprobs.len() as u64));
        let sum: f64 = logprobs.iter().sum();
        assert!((sum - logprob(trained, "logprob_before")).abs() < 1e-3, "{sum} {trained}");
    }
    assert_eq!(answer.body["ratio"]["mean"], 1.0, "the trainer's log-probs are the sampler's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_response_is_trained_up_to_its_stop_string() {
    let server = Server::start().await;
    server.make("mine").await;
    let ask = |stop: Value| json!({"model": "mine", "messages": user("hello"), "max_tokens": 40, "seed": 4, "temperature": 1.0, "logprobs": true, "stop": stop});
    let free = server.post("/v1/generate_response", &ask(Value::Null)).await.body;
    let text: Vec<char> = free["message"]["content"].as_str().expect("content").chars().collect();
    let stop: String = text[text.len() / 2..text.len() / 2 + 2].iter().collect();
    let stopped = server.post("/v1/generate_response", &ask(json!(stop))).await.body;
    assert_eq!(stopped["stop_reason"], "stop_sequence");
    let kept = stopped["logprobs"].as_array().expect("logprobs").len();
    assert!(kept > 0 && kept < free["logprobs"].as_array().expect("logprobs").len());
    let rated = json!([{"response_id": stopped["response_id"], "reward": 1}, {"response_id": free["response_id"], "reward": 0}]);
    let answer = server.post("/v1/train", &texts(&json!({"responses": rated}))).await;
    assert_eq!((answer.status, answer.body["responses"][0]["tokens"].as_u64()), (200, Some(kept as u64)), "{}", answer.body);
}

/// The template opens a thought, so a text without one is trained behind a closed thought, and one with its own is taken as it is.
#[tokio::test(flavor = "multi_thread")]
async fn texts_of_a_reasoning_model_keep_the_thought_closed() {
    let options = Options { tiny: Tiny { reasoning: true, ..Tiny::default() }, ..Options::default() };
    let server = Server::with(options).await;
    server.make("mine").await;
    let responses = json!([{"content": "w", "reward": 1}, {"content": "<think>\nh\n</think>\n\nw", "reward": 0}]);
    let answer = server.post("/v1/train", &texts(&json!({"responses": responses}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let tokens: Vec<u64> = answer.body["responses"].as_array().expect("responses").iter().filter_map(|r| r["tokens"].as_u64()).collect();
    // </think> \n \n w <|end|>, and h \n before it.
    assert_eq!(tokens, [5, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn response_ids_must_be_ones_own_and_fit() {
    let server = Server::start().await;
    server.make("mine").await;
    let sampled = server.post("/v1/generate_response", &json!({"model": "Tiny", "messages": user("other"), "max_tokens": 4})).await.body;
    let id = &sampled["response_id"];
    let rated = |id: &Value| json!({"responses": [{"content": "well", "reward": 0.0}, {"response_id": id, "reward": 1.0}]});
    let cases = [(rated(&json!("resp_unknown")), "responses[1].response_id"), (rated(id), "responses[1].response_id")];
    for (extra, param) in cases {
        let answer = server.post("/v1/train", &texts(&extra)).await;
        assert_eq!(answer.error(), (422, "unknown_response", Some(param)), "{}", answer.body);
    }
    let mut fitting = rated(id);
    fitting["messages"] = user("other");
    assert_eq!(server.post("/v1/train", &texts(&fitting)).await.status, 200);
    // Another account may have a model of the same name, but not the sample.
    let key = server.stranger().await;
    let make = json!({"name": "mine", "description": "", "parent_model": "Tiny", "rank": 4});
    let send = |path: &str, body: Value| server.client.request(Method::POST, server.url(path)).bearer_auth(&key).json(&body);
    assert_eq!(Answer::read(send("/v1/models", make)).await.status, 201);
    assert_eq!(Answer::read(send("/v1/train", texts(&fitting))).await.error().1, "unknown_response");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rewards_change_nothing() {
    let server = Server::start().await;
    server.make("mine").await;
    let equal = json!({"responses": [{"content": "well", "reward": 0.5}, {"content": "hell", "reward": 0.5}]});
    let answer = server.post("/v1/train", &texts(&equal)).await;
    assert_eq!(
        (answer.status, answer.body["updated"].as_bool(), answer.body["revision"].as_u64()),
        (200, Some(false), Some(0)),
        "{}",
        answer.body
    );
    assert_eq!(answer.body["reason"], "zero_advantage");
    let dry = server.post("/v1/train", &texts(&json!({"dry_run": true}))).await;
    assert_eq!((dry.status, dry.body["updated"].as_bool(), dry.body["revision"].as_u64()), (200, Some(false), Some(0)), "{}", dry.body);
    assert_eq!(server.get("/v1/models/mine").await.body["revision"], 0);
}

/// A dry run says what the call would do, and does nothing: the same numbers, the same row, the same weights.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_predicts_the_change() {
    let server = Server::start().await;
    server.make("mine").await;
    let body = |extra: &Value| texts(&json!({"steps": 2, "target_kl": 100.0, "dry_run": extra}));
    let row = async || server.app.store().model(server.account, "mine").await.expect("store").expect("model");
    let before = row().await;
    let weights = server.app.store().blob(&before.blob_sha256).await.expect("weights");
    let mut dry = server.post("/v1/train", &body(&json!(true))).await.body;
    assert_eq!(row().await, before);
    assert_eq!(server.app.store().blob(&before.blob_sha256).await.expect("weights"), weights);
    assert_eq!(server.get("/v1/models/mine/revisions").await.body.as_array().map(Vec::len), Some(1));
    let mut real = server.post("/v1/train", &body(&json!(false))).await.body;
    assert_eq!((dry["updated"].as_bool(), dry["reason"].as_str(), dry["revision"].as_u64()), (Some(false), Some("dry_run"), Some(0)));
    assert!(dry["responses"][0]["logprob_after"].is_number() && dry["kl_moved"].as_f64() > Some(0.0) && dry["entropy_after"].is_number());
    for answer in [&mut dry, &mut real] {
        let fields = answer.as_object_mut().expect("object");
        for name in ["id", "updated", "reason", "revision", "duration", "usage"] {
            fields.remove(name);
        }
    }
    assert_eq!(dry, real);
    let quick = server.post("/v1/train", &texts(&json!({"dry_run": true, "evaluate": false}))).await.body;
    assert!(quick["steps"] == 0 && quick["responses"][0].get("logprob_after").is_none() && quick.get("kl_moved").is_none(), "{quick}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_responses_are_warned_of() {
    let server = Server::start().await;
    server.make("mine").await;
    let ask = json!({"model": "mine", "messages": user("hello"), "n": 2, "max_tokens": 2, "seed": 3, "temperature": 1.0});
    let sampled = server.post("/v1/generate_response", &ask).await.body;
    let responses = sampled["responses"].as_array().expect("responses");
    let cut = responses.iter().filter(|response| response["stop_reason"] == "max_tokens").count();
    assert!(cut > 0, "{sampled}");
    let rated: Vec<Value> =
        responses.iter().zip([1.0, 0.0]).map(|(r, reward)| json!({"response_id": r["response_id"], "reward": reward})).collect();
    let answer = server.post("/v1/train", &texts(&json!({"responses": rated}))).await.body;
    let warnings: Vec<&str> = answer["warnings"].as_array().expect("warnings").iter().filter_map(Value::as_str).collect();
    assert!(warnings.iter().any(|w| w.starts_with(&format!("responses_cut: {cut} of 2 "))), "{warnings:?}");
    let stored = &server.get("/v1/models/mine/revisions").await.body[0]["metrics"];
    assert_eq!(*stored, answer, "everything that was answered is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_come_in_pages() {
    let server = Server::start().await;
    server.make("mine").await;
    for _ in 0..19 {
        assert_eq!(server.post("/v1/models/mine/rollback", &json!({"revision": 0})).await.status, 200);
    }
    let page = async |query: &str| {
        let answer = server.get(&format!("/v1/models/mine/revisions{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.as_array().expect("list").iter().filter_map(|r| r["revision"].as_u64()).collect::<Vec<_>>()
    };
    let all: Vec<u64> = (0..20).rev().collect();
    assert_eq!(page("").await, all);
    assert_eq!(page("?limit=18").await, all[..18]);
    assert_eq!(page("?limit=3&before=10").await, [9, 8, 7]);
    assert_eq!(page("?before=2").await, [1, 0]);
    assert_eq!(page("?before=0").await, [0u64; 0]);
    for (query, param) in
        [("?limit=0", "limit"), ("?limit=1001", "limit"), ("?limit=x", "query"), ("?before=-1", "query"), ("?after=3", "query")]
    {
        let answer = server.get(&format!("/v1/models/mine/revisions{query}")).await;
        assert_eq!(answer.error(), (422, "invalid_parameter", Some(param)), "{query}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_is_streamed() {
    let server = Server::start().await;
    server.make("mine").await;
    let chunks = server.stream("/v1/train", &texts(&json!({"stream": true, "steps": 3, "target_kl": 100.0}))).await;
    let (last, before) = chunks.split_last().expect("chunks");
    assert_eq!(
        (last["type"].as_str(), last["stop_reason"].as_str(), last["revision"].as_u64()),
        (Some("stop"), Some("end_turn"), Some(1)),
        "{last}"
    );
    assert!(before.iter().all(|chunk| ["info", "progress"].contains(&chunk["type"].as_str().unwrap_or_default())));
    let steps: Vec<u64> =
        before.iter().filter(|chunk| chunk["metrics"]["loss"].is_number()).filter_map(|chunk| chunk["step"].as_u64()).collect();
    assert_eq!(steps, [1, 2, 3]);
    assert!(before.iter().filter(|chunk| chunk["type"] == "progress").all(|chunk| chunk["metrics"].is_object() && chunk["steps"] == 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_step() {
    let server = Server::start().await;
    server.make("mine").await;
    let group = |text: &str| json!({"messages": user(text), "responses": [{"content": "a", "reward": 1}, {"content": "b", "reward": 0}]});
    let body = json!({"model": "mine", "batch": [group("one"), group("two")]});
    let answer = server.post("/v1/train", &body).await;
    assert_eq!((answer.status, answer.body["revision"].as_u64()), (200, Some(1)), "{}", answer.body);
    let groups: Vec<u64> = answer.body["responses"].as_array().expect("responses").iter().filter_map(|r| r["group"].as_u64()).collect();
    assert_eq!(groups, [0, 0, 1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_trains_once() {
    let server = Server::start().await;
    server.make("mine").await;
    let send = |body: Value| server.request(Method::POST, "/v1/train").header("idempotency-key", "once").json(&body);
    let first = Answer::read(send(texts(&json!({})))).await;
    let again = Answer::read(send(texts(&json!({})))).await;
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(first.body, again.body);
    assert!(first.headers.get("idempotent-replayed").is_none());
    assert_eq!(again.headers["idempotent-replayed"], "true");
    let other = Answer::read(send(texts(&json!({"steps": 2})))).await;
    assert_eq!(other.error(), (422, "idempotency_mismatch", Some("Idempotency-Key")));
    assert_eq!(server.get("/v1/models/mine").await.body["revision"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn trainings_of_one_model_run_one_after_the_other() {
    let server = Server::start().await;
    server.make("mine").await;
    let body = texts(&json!({}));
    let six = futures::future::join_all((0..6).map(|_| server.post("/v1/train", &body))).await;
    let mut revisions: Vec<u64> =
        six.iter().map(|answer| answer.body["revision"].as_u64().unwrap_or_else(|| panic!("{}", answer.body))).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 2, 3, 4, 5, 6]);
    let stale = server.post("/v1/train", &texts(&json!({"if_revision": 2}))).await;
    assert_eq!(stale.error(), (409, "revision_conflict", None));
    let fresh = server.post("/v1/train", &texts(&json!({"if_revision": 6}))).await;
    assert_eq!(fresh.body["revision"], 7, "{}", fresh.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_back_gives_the_old_answers() {
    let server = Server::start().await;
    server.make("mine").await;
    let ask = json!({"model": "mine", "messages": user("hello"), "temperature": 0.0, "max_tokens": 20});
    let text = |answer: Answer| answer.body["message"]["content"].as_str().expect("content").to_owned();
    let before = text(server.post("/v1/generate_response", &ask).await);
    for _ in 0..4 {
        assert_eq!(server.post("/v1/train", &texts(&json!({"learning_rate": 0.1, "steps": 4, "target_kl": 1e6}))).await.status, 200);
    }
    let trained = text(server.post("/v1/generate_response", &ask).await);
    assert_ne!(before, trained);
    let back = server.post("/v1/models/mine/rollback", &json!({"revision": 0})).await;
    assert_eq!((back.status, back.body["revision"].as_u64()), (200, Some(5)), "{}", back.body);
    assert_eq!(text(server.post("/v1/generate_response", &ask).await), before);
    let revisions = server.get("/v1/models/mine/revisions").await.body;
    assert_eq!((revisions[0]["revision"].as_u64(), revisions[0]["rolled_back_to"].as_u64()), (Some(5), Some(0)));
    assert_eq!(
        server.post("/v1/models/mine/rollback", &json!({"revision": 99})).await.error(),
        (422, "invalid_parameter", Some("revision"))
    );
    assert_eq!(server.post("/v1/models/tiny/rollback", &json!({"revision": 0})).await.error().0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let server = Server::start().await;
    server.make("mine").await;
    let long = "x".repeat(600);
    let cases = [
        (json!({"model": "Tiny"}), (403, "read_only", Some("model"))),
        (json!({"model": "nobody"}), (404, "model_not_found", Some("model"))),
        (json!({"responses": []}), (422, "invalid_parameter", Some("responses"))),
        (json!({"responses": null}), (422, "invalid_parameter", Some("responses"))),
        (json!({"messages": null}), (422, "invalid_parameter", Some("messages"))),
        (json!({"batch": []}), (422, "invalid_parameter", Some("batch"))),
        (json!({"responses": [{"reward": 1}]}), (422, "invalid_parameter", Some("responses[0]"))),
        (json!({"responses": [{"content": "a", "response_id": "b", "reward": 1}]}), (422, "invalid_parameter", Some("responses[0]"))),
        (json!({"responses": [{"content": "a"}]}), (422, "invalid_parameter", Some("responses[0].reward"))),
        (json!({"responses": [{"content": "", "reward": 1}]}), (422, "invalid_parameter", Some("responses[0].content"))),
        (json!({"responses": [{"content": "a", "reward": 1e13}]}), (422, "invalid_parameter", Some("responses[0].reward"))),
        (json!({"responses": [{"content": long, "reward": 1.0}]}), (422, "context_length_exceeded", Some("responses[0]"))),
        (json!({"messages": [{"role": "assistant", "content": "a"}]}), (422, "invalid_messages", Some("messages"))),
        (json!({"steps": 17}), (422, "invalid_parameter", Some("steps"))),
        (json!({"learning_rate": 0}), (422, "invalid_parameter", Some("learning_rate"))),
        (json!({"clip_high": 0.5}), (422, "invalid_parameter", Some("clip_high"))),
        (json!({"baseline": "mean"}), (422, "invalid_parameter", Some("baseline"))),
        (json!({"objective": "dpo"}), (422, "invalid_parameter", Some("objective"))),
        (json!({"epochs": 3}), (422, "invalid_parameter", Some("epochs"))),
    ];
    for (extra, expected) in cases {
        let answer = server.post("/v1/train", &texts(&extra)).await;
        assert_eq!(answer.error(), expected, "{extra}: {}", answer.body);
    }
    assert_eq!(server.get("/v1/models/mine").await.body["revision"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_leaves_changes_nothing() {
    let server = Server::start().await;
    server.make("mine").await;
    let long = "word ".repeat(80);
    let responses: Vec<Value> = (0..40).map(|i| json!({"content": format!("{long}{i}"), "reward": i})).collect();
    let body = texts(&json!({"stream": true, "steps": 16, "target_kl": 1e6, "responses": responses}));
    let mut response = server.request(Method::POST, "/v1/train").json(&body).send().await.expect("answer");
    // The first chunk shows that it began.
    assert!(response.chunk().await.expect("chunk").is_some());
    drop(response);
    // The next training takes its turn, and is the first revision.
    let next = server.post("/v1/train", &texts(&json!({}))).await;
    assert_eq!((next.status, next.body["revision"].as_u64()), (200, Some(1)), "{}", next.body);
    server.app.engine().check().await.expect("engine");
}

/// A training that was cut off by the end of the process goes on when the server starts again.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_training_is_tried_again() {
    let mut server = Server::start().await;
    server.make("mine").await;
    let model = server.app.store().model(server.account, "mine").await.expect("store").expect("model");
    let job = json!({
        "groups": [{"prompt": [262, 265, 259, 263, 266], "responses": [
            {"tokens": [119, 101, 257, 263], "reward": 1.0f64.to_bits(), "recorded": null},
            {"tokens": [258, 263], "reward": 0.0f64.to_bits(), "recorded": null},
        ]}],
        "knobs": {"model": "mine"}, "seed": 1, "warnings": [],
    });
    let begin = tiger_store::BeginTrain {
        model: model.key,
        idempotency_key: None,
        request_sha256: "0".repeat(64),
        request: Some(job.to_string()),
        if_revision: None,
    };
    let tiger_store::Begun::Queued(ticket) = server.app.store().begin_train(begin).await.expect("begun") else { panic!("not queued") };
    let running = server.app.store().start(&ticket).await.expect("started");
    // Leaked on purpose: a process that dies drops nothing.
    std::mem::forget((ticket, running));
    server.stop().await;
    let config = crate::harness::config(&server.data, &crate::harness::Options::default());
    drop(std::mem::replace(&mut server.app, {
        // The directory's lock goes with the last handle of the first server.
        reopen(config).await
    }));
    let account = server.account;
    for _ in 0..600 {
        let row = server.app.store().model(account, "mine").await.expect("store").expect("model");
        if row.revision == 1 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the training was not tried again");
}

async fn reopen(config: tiger_server::Config) -> tiger_server::App {
    let copy = config.data_dir.with_file_name("copy");
    copy_folder(&config.data_dir, &copy);
    tiger_server::App::open(tiger_server::Config { data_dir: copy, ..config }).await.expect("app")
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("file");
        }
    }
}
