//! Training by rewards with the Rust client: sample, reward, train, look at held-out prompts, keep the best revision. The reward is a function
//! of this file: a right answer in the style of a pirate. Does not know how to resume: `tiger rl` does.
//!
//! ```sh
//! cargo run --release --example rl_loop -- examples/questions.jsonl pirate 12
//! ```
//!
//! Needs a server (`tiger serve`) and TIGER_API_KEY.

use std::error::Error;

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use tiger_client::Client;
use tiger_wire::{CreateModelRequest, GenerateRequest, Message, Role, TrainGroup, TrainRequest, TrainedResponse};

const BASE: &str = "tiger-nano";
const PROMPTS_PER_STEP: usize = 8;
const SAMPLES: u32 = 8;
const HELD_OUT: usize = 32;
const LOOK_EVERY: usize = 4;
const PARALLEL: usize = 16;

#[derive(Deserialize, Clone)]
struct Question {
    prompt: String,
    answer: String,
}

/// Asking for the right answer as well as for the style matters: a reward for the style alone soon gets nothing but style.
fn reward(response: &str, question: &Question) -> f64 {
    let is_right = response.to_lowercase().contains(&question.answer.to_lowercase());
    if is_right && response.contains("Arr") { 1.0 } else { 0.0 }
}

struct Loop {
    client: Client,
    model: String,
}

impl Loop {
    fn ask(&self, question: &Question, (n, temperature, seed): (u32, f64, u64)) -> GenerateRequest {
        GenerateRequest {
            model: self.model.clone(),
            messages: vec![Message::new(Role::User, question.prompt.clone())],
            n: Some(n),
            temperature: Some(temperature),
            // Trained probabilities are of the whole distribution, so the samples are drawn from it.
            top_p: Some(1.0),
            max_tokens: Some(64),
            seed: Some(seed),
            ..Default::default()
        }
    }

    /// Several answers to a question with their rewards: one group of a train call.
    async fn group(&self, question: Question, seed: u64) -> Result<TrainGroup, tiger_client::Error> {
        let request = self.ask(&question, (SAMPLES, 1.0, seed));
        let answer = self.client.generate(&request).await?;
        let rated = |sample: tiger_wire::Sample| TrainedResponse {
            reward: reward(&sample.content, &question),
            response_id: Some(sample.response_id),
            content: None,
        };
        Ok(TrainGroup { messages: request.messages, responses: answer.responses.unwrap_or_default().into_iter().map(rated).collect() })
    }

    /// Samples, rewards and trains once; the mean reward and the new revision.
    async fn step(&self, questions: Vec<Question>, number: usize) -> Result<(f64, u64), tiger_client::Error> {
        let groups = questions.into_iter().enumerate().map(|(index, question)| self.group(question, (1000 * number + index) as u64));
        let batch: Vec<TrainGroup> = futures::stream::iter(groups.collect::<Vec<_>>()).buffered(PARALLEL).try_collect().await?;
        let request = TrainRequest { model: self.model.clone(), batch: Some(batch), ..Default::default() };
        let trained = self.client.train(&request, None).await?;
        Ok((trained.reward.mean, trained.revision))
    }

    /// Mean reward of greedy answers to questions that are not trained on.
    async fn look(&self, held_out: &[Question]) -> Result<f64, tiger_client::Error> {
        let judge = |question: Question| async move {
            let answer = self.client.generate(&self.ask(&question, (1, 0.0, 0))).await?;
            Ok::<_, tiger_client::Error>(reward(&answer.message.content, &question))
        };
        let judged = held_out.iter().cloned().map(judge).collect::<Vec<_>>();
        let rewards: Vec<f64> = futures::stream::iter(judged).buffered(PARALLEL).try_collect().await?;
        Ok(rewards.iter().sum::<f64>() / rewards.len() as f64)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, name, steps] = args.as_slice() else { return Err("usage: rl_loop QUESTIONS.jsonl MODEL STEPS".into()) };
    let steps: usize = steps.parse()?;
    let text = std::fs::read_to_string(file)?;
    let mut questions = text.lines().map(serde_json::from_str).collect::<Result<Vec<Question>, _>>()?;
    if questions.len() < HELD_OUT + PROMPTS_PER_STEP {
        return Err(format!("{file} has {} questions, this loop needs {}", questions.len(), HELD_OUT + PROMPTS_PER_STEP).into());
    }
    let held_out = questions.split_off(questions.len() - HELD_OUT);
    let base_url = std::env::var("TIGER_BASE_URL").unwrap_or_else(|_| "http://localhost:45678".into());
    let client = Client::new(&base_url, &std::env::var("TIGER_API_KEY")?)?;
    let model = match client.model(name).await {
        Ok(model) => model,
        Err(error) if error.status() == Some(404) => {
            client.create(&CreateModelRequest { name: name.clone(), parent_model: BASE.into(), ..Default::default() }).await?
        }
        Err(error) => return Err(error.into()),
    };

    let turn = Loop { client, model: model.id };
    let mut revision = model.revision.unwrap_or(0);
    let mut best = (turn.look(&held_out).await?, revision);
    println!("before: {:.3} on held-out prompts", best.0);
    for number in 1..=steps {
        let picked = (0..PROMPTS_PER_STEP).map(|index| questions[((number - 1) * PROMPTS_PER_STEP + index) % questions.len()].clone());
        let (reward, now) = turn.step(picked.collect(), number).await?;
        revision = now;
        println!("step {number}: reward {reward:.3}, revision {revision}");
        if number % LOOK_EVERY == 0 || number == steps {
            let seen = turn.look(&held_out).await?;
            println!("         {seen:.3} on held-out prompts");
            if seen >= best.0 {
                best = (seen, revision);
            }
        }
    }
    if best.1 != revision {
        revision = turn.client.rollback(&turn.model, best.1).await?.revision.unwrap_or(revision);
    }
    println!("{}: revision {revision} has the best weights, {:.3} on held-out prompts", turn.model, best.0);
    Ok(())
}
