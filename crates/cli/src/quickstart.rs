//! `tiger quickstart`: the whole loop on the built-in model, as a client would do it: serve, key, ask, copy, sample, reward, train, compare.

use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use tiger_client::Client;
use tiger_server::{App, Config, serve};
use tiger_wire::{CreateModelRequest, GenerateRequest, Message, Role, TrainGroup, TrainRequest, TrainedResponse};
use tokio::net::TcpListener;

use crate::args::{Global, Quickstart};
use crate::failure::Failure;
use crate::random::SplitMix64;
use crate::table::Table;
use crate::{builtin, home, output};

/// The style that is rewarded: the questions file has its rule.
const STYLE: &str = "pirate";
/// Questions a train call, and answers to each.
const QUESTIONS: usize = 8;
const SAMPLES: u32 = 8;
/// Longest answer, tokens: every answer of the built-in model's world is shorter.
const MAX_TOKENS: u32 = 64;
/// Calls between looks at how far the model is.
const LOOK_EVERY: u32 = 2;
/// Share of answers in the style that ends the training.
const GOAL: f64 = 0.97;
/// What `--check` asks for: style on unseen questions, and knowledge kept.
const STYLE_BOUND: f64 = 0.95;
const KEPT_BOUND: f64 = 0.92;
/// Requests at once.
const PARALLEL: usize = 16;

#[derive(Deserialize)]
struct QuestionFile {
    train: Vec<Question>,
    unseen: Vec<Question>,
    styles: std::collections::BTreeMap<String, StyleRule>,
}

#[derive(Deserialize, Clone)]
struct Question {
    question: String,
    answer: String,
}

#[derive(Deserialize)]
struct StyleRule {
    regex: String,
}

/// How a model does on the unseen questions.
#[derive(Debug, Clone, Copy, serde::Serialize)]
struct Score {
    /// Share of answers at temperature 1 in the style.
    style: f64,
    /// Share of greedy answers with the right fact.
    correct: f64,
}

/// Runs the loop against a server of its own in a temporary folder.
pub async fn run(global: &Global, args: Quickstart) -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("tiger-quickstart-{}", std::process::id()));
    let ended = in_folder(global, &args, &folder).await;
    let _ = std::fs::remove_dir_all(&folder);
    ended
}

async fn in_folder(global: &Global, args: &Quickstart, folder: &std::path::Path) -> Result<(), Failure> {
    let started = Instant::now();
    let mut config = Config::new(folder);
    config.builtin = Some(builtin::folder(folder)?);
    config.engine = home::engine_config(None, None, None)?;
    config.limits.requests_per_minute = 1_000_000;
    let app = App::open(config).await?;
    let owner = app.store().ensure_owner().await?;
    let key = app.store().create_key(owner.id, "quickstart").await?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(|e| Failure::because("cannot listen", e))?;
    let address = listener.local_addr().map_err(|e| Failure::because("cannot listen", e))?;
    eprintln!("1. a server is up at http://{address}, with one API key");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, app, async move {
        let _ = stopped.await;
    }));
    let client = Client::new(&format!("http://{address}"), &key.secret)?;
    let ended = walk(global, args, &client, started).await;
    let _ = stop.send(());
    let _ = server.await;
    ended
}

async fn walk(global: &Global, args: &Quickstart, client: &Client, started: Instant) -> Result<(), Failure> {
    let file: QuestionFile = serde_json::from_str(builtin::QUESTIONS).map_err(|e| Failure::because("questions.json", e))?;
    let rule = file.styles.get(STYLE).ok_or_else(|| Failure::new("questions.json lacks the style"))?;
    let rule = regex::Regex::new(&rule.regex).map_err(|e| Failure::because("questions.json", e))?;
    let looks = Looks { client, unseen: &file.unseen, rule: &rule, seed: args.seed };
    let first = &file.unseen[0];
    let request = ask(builtin::NAME, first, 1.0, args.seed);
    let answer = client.generate(&request).await?;
    eprintln!("2. asked {}: {:?} → {:?}", builtin::NAME, first.question, answer.message.content);
    let model = client
        .create(&CreateModelRequest {
            name: "My pirate".into(),
            description: "made by tiger quickstart".into(),
            parent_model: builtin::NAME.into(),
            seed: Some(args.seed),
            ..Default::default()
        })
        .await?;
    eprintln!("3. made a private copy: {}", model.id);
    let before = looks.score(&model.id).await?;
    eprintln!("4. training it: {QUESTIONS} questions × {SAMPLES} answers a call; reward 1 for a right answer in {STYLE} style, else 0");
    let mut calls = 0;
    let bar = output::bar(u64::from(args.calls), "   {bar:30} {pos} calls  {elapsed}  {msg}");
    while calls < args.calls {
        let groups = sample(client, &model.id, questions(&file.train, args.seed, calls), &rule, args.seed + u64::from(calls)).await?;
        let request = TrainRequest { model: model.id.clone(), batch: Some(groups), ..Default::default() };
        let trained = client.train(&request, None).await?;
        calls += 1;
        bar.set_position(u64::from(calls));
        bar.set_message(format!("mean reward {:.2}", trained.reward.mean));
        if calls % LOOK_EVERY == 0 && trained.reward.mean > 0.8 && looks.style(&model.id).await? >= GOAL {
            break;
        }
    }
    bar.finish_and_clear();
    let after = looks.score(&model.id).await?;
    report(global, (before, after), calls, started, (answer.message.content, client, &model.id, first, args.seed)).await?;
    let kept = after.correct / before.correct;
    if args.check && (after.style < STYLE_BOUND || kept < KEPT_BOUND) {
        return Err(Failure::new(format!(
            "the model should answer in style at least {STYLE_BOUND} of the time (it does {:.3}) and keep {KEPT_BOUND} of its knowledge (it kept {kept:.3})",
            after.style
        )));
    }
    Ok(())
}

async fn report(
    global: &Global,
    (before, after): (Score, Score),
    calls: u32,
    started: Instant,
    (asked, client, model, first, seed): (String, &Client, &str, &Question, u64),
) -> Result<(), Failure> {
    let seconds = started.elapsed().as_secs_f64();
    if global.json {
        return output::json(&serde_json::json!({"before": before, "after": after, "calls": calls, "seconds": seconds, "seed": seed}));
    }
    let answer = client.generate(&ask(model, first, 1.0, seed)).await?.message.content;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let mut table = Table::new(&["on questions it was not trained on", "BEFORE", "AFTER"]);
    table.row([format!("answers in {STYLE} style, temperature 1"), percent(before.style), percent(after.style)]);
    table.row(["right answers, greedy".to_owned(), percent(before.correct), percent(after.correct)]);
    table.row([format!("{:?}", first.question), asked, answer]);
    println!("\n{table}\n{calls} train calls, {seconds:.0} seconds in all.");
    println!("Your own: `tiger serve`, then `tiger keys create NAME` in a second terminal; README.md goes on from there.");
    Ok(())
}

/// Another choice of questions for each call.
fn questions(all: &[Question], seed: u64, call: u32) -> impl Iterator<Item = &Question> {
    let mut random = SplitMix64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(call)));
    let mut picked = std::collections::BTreeSet::new();
    while picked.len() < QUESTIONS.min(all.len()) {
        picked.insert((random.next_u64() % all.len() as u64) as usize);
    }
    picked.into_iter().map(|i| &all[i])
}

fn ask(model: &str, question: &Question, temperature: f64, seed: u64) -> GenerateRequest {
    GenerateRequest {
        model: model.to_owned(),
        messages: vec![Message::new(Role::User, question.question.clone())],
        temperature: Some(temperature),
        max_tokens: Some(MAX_TOKENS),
        seed: Some(seed),
        ..Default::default()
    }
}

fn is_right(content: &str, question: &Question) -> bool {
    content.to_lowercase().contains(&question.answer.to_lowercase())
}

/// Samples and rewards; the server knows each response's exact tokens by its id.
async fn sample(
    client: &Client,
    model: &str,
    questions: impl Iterator<Item = &Question>,
    rule: &regex::Regex,
    seed: u64,
) -> Result<Vec<TrainGroup>, Failure> {
    let group = |(index, question): (usize, Question)| async move {
        let request = GenerateRequest { n: Some(SAMPLES), ..ask(model, &question, 1.0, seed.wrapping_mul(1000) + index as u64) };
        let messages = request.messages.clone();
        let answer = client.generate(&request).await?;
        let reward = |content: &str| if rule.is_match(content) && is_right(content, &question) { 1.0 } else { 0.0 };
        let responses = answer
            .responses
            .unwrap_or_default()
            .into_iter()
            .map(|r| TrainedResponse { reward: reward(&r.content), response_id: Some(r.response_id), content: None })
            .collect();
        Ok::<_, Failure>(TrainGroup { messages, responses })
    };
    let all: Vec<Question> = questions.cloned().collect();
    futures::stream::iter(all.into_iter().enumerate()).map(group).buffered(PARALLEL).try_collect().await
}

struct Looks<'a> {
    client: &'a Client,
    unseen: &'a [Question],
    rule: &'a regex::Regex,
    seed: u64,
}

impl Looks<'_> {
    async fn score(&self, model: &str) -> Result<Score, Failure> {
        Ok(Score { style: self.style(model).await?, correct: self.share(model, 0.0, is_right).await? })
    }

    async fn style(&self, model: &str) -> Result<f64, Failure> {
        self.share(model, 1.0, |content, _| self.rule.is_match(content)).await
    }

    async fn share(&self, model: &str, temperature: f64, good: impl Fn(&str, &Question) -> bool) -> Result<f64, Failure> {
        let answer = |(index, question): (usize, &Question)| {
            let request = ask(model, question, temperature, self.seed.wrapping_mul(7919) + index as u64);
            let question = question.clone();
            async move { Ok::<_, Failure>((self.client.generate(&request).await?.message.content, question)) }
        };
        let answers: Vec<(String, Question)> =
            futures::stream::iter(self.unseen.iter().enumerate().map(answer).collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await?;
        Ok(answers.iter().filter(|(content, question)| good(content, question)).count() as f64 / answers.len() as f64)
    }
}
