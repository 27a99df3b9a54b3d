//! `POST /v1/models/{id}/evaluate`.

use reqwest::Method;
use serde_json::{Value, json};
use tiger_server::Limits;

use crate::harness::{Answer, Options, Server, user};

const PATH: &str = "/v1/models/mine/evaluate";

/// A server with the model `mine`, trained once to prefer "well" to "hell".
async fn trained(options: Options) -> (Server, Value) {
    let server = Server::with(options).await;
    server.make("mine").await;
    let body = json!({
        "model": "mine", "messages": user("hello"), "seed": 1, "learning_rate": 0.01,
        "responses": [{"content": "well", "reward": 1.0}, {"content": "hell", "reward": 0.0}],
    });
    let answer = server.post("/v1/train", &body).await;
    assert_eq!((answer.status, answer.body["revision"].as_u64()), (200, Some(1)), "{}", answer.body);
    (server, answer.body)
}

fn request(extra: &Value) -> Value {
    let mut body = json!({
        "prompts": [{"messages": user("hello"), "responses": ["well", "hell"]}, {"messages": user("other")}],
        "samples": 3, "temperature": 1.0, "max_tokens": 12, "seed": 5,
    });
    for (key, value) in extra.as_object().expect("object") {
        body[key] = value.clone();
    }
    body
}

async fn evaluate(server: &Server, extra: &Value) -> Value {
    let answer = server.post(PATH, &request(extra)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// What does not depend on the call: neither ids nor times.
fn lasting(answers: &Value) -> Vec<(Value, Value, Value, Value)> {
    let one = |answer: &Value| ["content", "logprob", "logprob_other", "tokens"].map(|field| answer[field].clone()).into();
    answers.as_array().expect("answers").iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_is_compared_with_its_parent() {
    let (server, trained) = trained(Options::default()).await;
    let body = evaluate(&server, &json!({})).await;
    assert_eq!((body["model"].as_str(), body["revision"].as_u64(), body["against"].as_str()), (Some("mine"), Some(1), Some("parent")));
    let (well, hell) = (&body["results"][0]["responses"][0], &body["results"][0]["responses"][1]);
    assert!(number(&well["logprob"]) > number(&well["logprob_against"]), "{well}");
    assert!(number(&hell["logprob"]) < number(&hell["logprob_against"]), "{hell}");
    // The same numbers as the training's, by the mean: "well" has four tokens.
    for (after, score) in [("logprob_after", "logprob"), ("logprob_before", "logprob_against")] {
        let expected = number(&trained["responses"][0][after]) / 4.0;
        assert!((number(&well[score]) - expected).abs() < 1e-12, "{score}: {well} {expected}");
    }
    let mean = |field: &str| (4.0 * number(&well[field]) + 2.0 * number(&hell[field])) / 6.0;
    assert!((number(&body["mean_logprob"]) - mean("logprob")).abs() < 1e-12);
    assert!((number(&body["mean_logprob_against"]) - mean("logprob_against")).abs() < 1e-12);
    let results = body["results"].as_array().expect("results");
    assert_eq!(results.len(), 2);
    assert_eq!(results[1]["responses"], json!([]));
    let ours: Vec<&Value> = results.iter().flat_map(|r| r["answers"]["model"].as_array().expect("answers")).collect();
    assert_eq!(ours.len(), 6);
    let tokens = |a: &Value| number(&a["tokens"]);
    let all: f64 = ours.iter().map(|a| tokens(a)).sum();
    let moved: f64 = ours.iter().map(|a| tokens(a) * (number(&a["logprob"]) - number(&a["logprob_other"]))).sum();
    assert!((number(&body["kl"]) - moved / all).abs() < 1e-12, "{body}");
    assert!((number(&body["mean_tokens"]) - all / 6.0).abs() < 1e-12);
    let usage = &body["usage"];
    assert!(number(&usage["output_tokens"]) >= all && number(&usage["scored_tokens"]) >= all, "{usage}");
    assert_eq!(server.get("/v1/models/mine").await.body["revision"], 1, "nothing is changed");
    // The answers can be trained on.
    let rated = [(1.0, &ours[0]), (0.0, &ours[1])].map(|(reward, a)| json!({"response_id": a["response_id"], "reward": reward}));
    let train = json!({"model": "mine", "messages": user("hello"), "responses": rated});
    let answer = server.post("/v1/train", &train).await;
    assert_eq!((answer.status, answer.body["ratio"]["mean"].as_f64()), (200, Some(1.0)), "{}", answer.body);
}

/// Equal weights: the sampler's log-probs are the scorer's bit for bit, and the same seeds give the same answers.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_said_is_scored_with_the_same_bits() {
    let (server, _) = trained(Options::default()).await;
    let body = evaluate(&server, &json!({"against": 1})).await;
    for result in body["results"].as_array().expect("results") {
        assert_eq!(lasting(&result["answers"]["model"]), lasting(&result["answers"]["against"]));
        for answer in result["answers"]["model"].as_array().expect("answers") {
            assert_eq!(answer["logprob"], answer["logprob_other"], "{answer}");
        }
        for response in result["responses"].as_array().expect("responses") {
            assert_eq!(response["logprob"], response["logprob_against"], "{response}");
        }
    }
    assert_eq!((body["kl"].as_f64(), body["against"].as_u64()), (Some(0.0), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sides_can_be_changed_and_answers_are_those_of_generate() {
    let (server, _) = trained(Options::default()).await;
    let (ours, theirs) = (evaluate(&server, &json!({})).await, evaluate(&server, &json!({"revision": 0, "against": 1})).await);
    let mut differ = false;
    for index in 0..2 {
        let answers = |body: &Value, side: &str| lasting(&body["results"][index]["answers"][side]);
        assert_eq!(answers(&ours, "model"), answers(&theirs, "against"));
        assert_eq!(answers(&ours, "against"), answers(&theirs, "model"));
        differ |= answers(&ours, "model") != answers(&ours, "against");
    }
    assert!(differ, "the training changed something");
    let ask = json!({"model": "mine", "messages": user("other"), "n": 3, "temperature": 1.0, "max_tokens": 12, "seed": 6});
    let generated = server.post("/v1/generate_response", &ask).await.body;
    let texts = |answers: &Value| answers.as_array().expect("answers").iter().map(|a| a["content"].clone()).collect::<Vec<_>>();
    assert_eq!(texts(&generated["responses"]), texts(&ours["results"][1]["answers"]["model"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn given_responses_alone_are_scored_without_sampling() {
    let (server, _) = trained(Options::default()).await;
    let scored = evaluate(&server, &json!({"samples": 0, "prompts": [{"messages": user("hello"), "responses": ["well", "hell"]}]})).await;
    assert_eq!(scored["results"][0]["answers"], json!({"model": [], "against": []}));
    assert!(scored["mean_logprob"].is_number() && scored.get("kl").is_none() && scored.get("mean_tokens").is_none(), "{scored}");
    assert_eq!((scored["usage"]["output_tokens"].as_u64(), scored["usage"]["scored_tokens"].as_u64()), (Some(0), Some(12)));
    let whole = evaluate(&server, &json!({})).await;
    assert_eq!(scored["results"][0]["responses"], whole["results"][0]["responses"], "whatever else is scored with them");
    let answers = evaluate(&server, &json!({"prompts": [{"messages": user("hello")}]})).await;
    assert!(answers.get("mean_logprob").is_none() && answers["kl"].is_number(), "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_is_streamed() {
    let (server, _) = trained(Options::default()).await;
    let whole = evaluate(&server, &json!({})).await;
    let chunks = server.stream(PATH, &request(&json!({"stream": true}))).await;
    let (last, before) = chunks.split_last().expect("chunks");
    assert_eq!((last["type"].as_str(), last["stop_reason"].as_str()), (Some("stop"), Some("end_turn")), "{last}");
    // Two prompts, two sides, two scorings.
    let progress: Vec<_> = before.iter().filter(|c| c["type"] == "progress").map(|c| (c["step"].as_u64(), c["steps"].as_u64())).collect();
    assert_eq!(progress, (1..=6).map(|step| (Some(step), Some(6))).collect::<Vec<_>>());
    for field in ["model", "revision", "against", "seed", "mean_logprob", "mean_logprob_against", "mean_tokens", "kl"] {
        assert_eq!(last[field], whole[field], "{field}");
    }
    for index in 0..2 {
        let answers = |body: &Value| lasting(&body["results"][index]["answers"]["model"]);
        assert_eq!(answers(last), answers(&whole));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_named() {
    let (server, _) = trained(Options {
        limits: Limits { train_tokens: 1000, requests_per_minute: 1_000_000, ..Limits::default() },
        ..Options::default()
    })
    .await;
    let prompt = |extra: Value| {
        let mut one = json!({"messages": user("a"), "responses": ["b"]});
        one.as_object_mut().expect("object").extend(extra.as_object().expect("object").clone());
        json!({"prompts": [one]})
    };
    let many: Vec<Value> = (0..65).map(|_| json!({"messages": user("a")})).collect();
    let cases = [
        (json!({"revision": 2}), (404, "not_found", Some("revision"))),
        (json!({"against": 77}), (404, "not_found", Some("against"))),
        (json!({"against": "base"}), (422, "invalid_parameter", Some("against"))),
        (json!({"against": -1}), (422, "invalid_parameter", Some("against"))),
        (json!({"revision": u64::MAX}), (404, "not_found", Some("revision"))),
        (json!({"samples": 17}), (422, "invalid_parameter", Some("samples"))),
        (json!({"samples": 0}), (422, "invalid_parameter", Some("prompts[1].responses"))),
        (json!({"prompts": []}), (422, "invalid_parameter", Some("prompts"))),
        (json!({"prompts": many}), (422, "invalid_parameter", Some("prompts"))),
        (prompt(json!({"messages": []})), (422, "invalid_parameter", Some("prompts[0].messages"))),
        (prompt(json!({"messages": [{"role": "assistant", "content": "a"}]})), (422, "invalid_messages", Some("prompts[0].messages"))),
        (prompt(json!({"responses": ["b", ""]})), (422, "invalid_parameter", Some("prompts[0].responses[1]"))),
        (prompt(json!({"responses": vec!["b"; 257]})), (422, "invalid_parameter", Some("prompts[0].responses"))),
        (prompt(json!({"responses": ["x".repeat(600)]})), (422, "context_length_exceeded", Some("prompts[0].responses[0]"))),
        (prompt(json!({"messages": user(&"x".repeat(600))})), (422, "context_length_exceeded", Some("prompts[0].messages"))),
        (prompt(json!({"responses": vec!["x".repeat(300); 4]})), (422, "invalid_parameter", Some("prompts"))),
        (json!({"max_tokens": 300}), (422, "invalid_parameter", Some("max_tokens"))),
        (json!({"max_tokens": 0}), (422, "invalid_parameter", Some("max_tokens"))),
        (json!({"temperature": 3}), (422, "invalid_parameter", Some("temperature"))),
        (json!({"reward": "x"}), (422, "invalid_parameter", Some("reward"))),
    ];
    for (extra, expected) in cases {
        let answer = server.post(PATH, &request(&extra)).await;
        assert_eq!(answer.error(), expected, "{extra}: {}", answer.body);
    }
    let base = server.post("/v1/models/Tiny/evaluate", &request(&json!({}))).await;
    assert_eq!(base.error(), (403, "read_only", Some("model")));
    assert!(
        base.body["error"]["message"].as_str().is_some_and(|message| message.contains("no parent to be compared with")),
        "{}",
        base.body
    );
    assert_eq!(server.post("/v1/models/absent/evaluate", &request(&json!({}))).await.error().0, 404);
    let key = server.stranger().await;
    let theirs = server.client.request(Method::POST, server.url(PATH)).bearer_auth(key).json(&request(&json!({})));
    assert_eq!(Answer::read(theirs).await.error(), (404, "model_not_found", Some("model")));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_while_the_model_trains_and_when_a_caller_leaves() {
    let (server, _) = trained(Options::default()).await;
    let quiet = evaluate(&server, &json!({})).await;
    let long = "word ".repeat(80);
    let responses: Vec<Value> = (0..40).map(|i| json!({"content": format!("{long}{i}"), "reward": i})).collect();
    let body = json!({"model": "mine", "messages": user("hello"), "stream": true, "steps": 16, "target_kl": 1e6, "responses": responses});
    let mut training = server.request(Method::POST, "/v1/train").json(&body).send().await.expect("answer");
    assert!(training.chunk().await.expect("chunk").is_some(), "it began");
    let busy = evaluate(&server, &json!({})).await;
    assert_eq!(busy["revision"], 1);
    assert_eq!((&busy["kl"], &busy["mean_logprob"]), (&quiet["kl"], &quiet["mean_logprob"]));
    drop(training);
    let mut left = server.request(Method::POST, PATH).json(&request(&json!({"stream": true, "samples": 16}))).send().await.expect("answer");
    assert!(left.chunk().await.expect("chunk").is_some());
    drop(left);
    assert_eq!(evaluate(&server, &json!({})).await["kl"], quiet["kl"]);
    server.app.engine().check().await.expect("engine");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_is_one_request_of_its_key() {
    // Making, training, evaluating, and one more: the four generate requests within are not counted.
    let limits = Limits { requests_per_minute: 4, ..Limits::default() };
    let (server, _) = trained(Options { limits, ..Options::default() }).await;
    assert_eq!(server.post(PATH, &request(&json!({}))).await.status, 200);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(server.get("/v1/models").await.status);
    }
    assert!(statuses[0] == 200 && statuses[1..].contains(&429), "{statuses:?}");
}
