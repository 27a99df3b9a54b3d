//! Answers to prompts with their rewards: sampled and judged side by side, in the order of the prompts whatever comes first.
//! Does not know what becomes of them.

use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use futures::{StreamExt, TryStreamExt};
use indicatif::ProgressBar;
use serde_json::{Map, Value};
use tiger_client::Client;
use tiger_wire::{GenerateRequest, GenerateResponse, Sample};

use crate::args::RewardFailures;
use crate::data::Prompt;
use crate::failure::Failure;
use crate::output;
use crate::reward::{self, Rewards};

/// Prompts answered at once: enough to fill the server's batches.
const PARALLEL: usize = 16;

/// How prompts are answered.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// Answers to each prompt.
    pub samples: u32,
    /// 0: the most probable token, always.
    pub temperature: f64,
    /// Longest answer, tokens.
    pub max_tokens: u32,
}

/// One answer that was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Names its tokens for a train call.
    pub response_id: String,
    /// `None`: the reward failed, and such responses are left out.
    pub reward: Option<f64>,
}

/// Asks the model and the reward.
pub struct Rollouts<'a> {
    /// The server.
    pub client: &'a Client,
    /// Id of the model.
    pub model: &'a str,
    /// What gives rewards.
    pub rewards: &'a Rewards,
    /// What a failed reward means.
    pub failures: RewardFailures,
    /// Where every response goes as well.
    pub log: Option<&'a Log>,
    /// Says how far it is.
    pub bar: &'a ProgressBar,
}

/// What is being answered, for the log and the bar.
#[derive(Debug, Clone, Copy)]
pub struct Occasion {
    /// Steps trained so far.
    pub step: u32,
    /// `sampling` or `held-out prompts`.
    pub what: &'static str,
}

impl Rollouts<'_> {
    /// Answers to each prompt, each prompt with its own seed.
    pub async fn collect(&self, occasion: Occasion, sampling: Sampling, prompts: &[(&Prompt, u64)]) -> Result<Vec<Vec<Judged>>, Failure> {
        let done = std::sync::atomic::AtomicUsize::new(0);
        let one = |(prompt, seed): (&Prompt, u64)| {
            let request = GenerateRequest {
                model: self.model.to_owned(),
                messages: prompt.messages.clone(),
                temperature: Some(sampling.temperature),
                // The recorded probabilities are of the whole distribution, so the samples are drawn from it.
                top_p: Some(1.0),
                top_k: Some(0),
                max_tokens: Some(sampling.max_tokens),
                n: Some(sampling.samples),
                seed: Some(seed),
                ..Default::default()
            };
            let (prompt, done) = (prompt.clone(), &done);
            async move {
                let answer = self.client.generate(&request).await?;
                let judged = futures::stream::iter(responses(answer).into_iter().enumerate())
                    .map(|(index, response)| self.judge(occasion, &prompt, index, response))
                    .buffered(sampling.samples as usize)
                    .try_collect::<Vec<_>>()
                    .await?;
                let count = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                self.bar.set_message(format!("{}: {count} of {}", occasion.what, prompts.len()));
                Ok::<_, Failure>(judged)
            }
        };
        let work: Vec<_> = prompts.iter().map(|(prompt, seed)| one((prompt, *seed))).collect();
        futures::stream::iter(work).buffered(PARALLEL).try_collect().await
    }

    async fn judge(&self, occasion: Occasion, prompt: &Prompt, index: usize, response: Sample) -> Result<Judged, Failure> {
        let input = reward::input(prompt, index, (&response.content, response.reasoning.as_deref(), response.stop_reason))?;
        let place = format!("{}, prompt of line {}, response {index}", occasion.what, prompt.line);
        let reward = match self.rewards.judge(&input).await {
            Ok(reward) => Some(reward),
            Err(problem) if self.failures == RewardFailures::Skip => {
                let first = problem.lines().next().unwrap_or_default();
                output::say(self.bar, format!("{place}: left out: {first}"));
                None
            }
            Err(problem) => {
                return Err(Failure::new(format!(
                    "{place}: {problem}\nRepair it and give the same command again, which goes on with this step; or let --reward-failures skip leave such responses out."
                )));
            }
        };
        if let Some(log) = self.log {
            log.write(occasion, input, reward)?;
        }
        Ok(Judged { response_id: response.response_id, reward })
    }
}

/// All responses, whether there was one or several.
fn responses(answer: GenerateResponse) -> Vec<Sample> {
    let GenerateResponse { message, stop_reason, response_id, logprobs, reasoning, responses, .. } = answer;
    responses.unwrap_or_else(|| vec![Sample { content: message.content, stop_reason, response_id, logprobs, reasoning }])
}

/// A file that every response is appended to.
pub struct Log {
    file: Mutex<std::fs::File>,
    name: String,
}

impl Log {
    /// Opens it at its end.
    pub fn open(path: &Path) -> Result<Log, Failure> {
        let name = path.display().to_string();
        let file = std::fs::File::options().create(true).append(true).open(path).map_err(|e| Failure::because(&name, e))?;
        Ok(Log { file: Mutex::new(file), name })
    }

    fn write(&self, occasion: Occasion, input: Map<String, Value>, reward: Option<f64>) -> Result<(), Failure> {
        let mut line = Map::new();
        line.insert("step".into(), occasion.step.into());
        line.insert("for".into(), occasion.what.into());
        line.insert("reward".into(), reward.into());
        line.extend(input);
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(text.as_bytes()).map_err(|e| Failure::because(&self.name, e))
    }
}
