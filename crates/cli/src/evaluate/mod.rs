//! `tiger evaluate`: a revision beside its parent or another one, on the prompts of a file, with rewards by a command.

mod flags;
mod summary;

use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tiger_wire::{Against, EvaluatePrompt, EvaluateRequest, EvaluateResponse, EvaluateResult, EvaluatedAnswer};

pub use flags::Evaluate;
use summary::{PromptRewards, Summary, summarize};

use crate::args::{Global, RewardArgs, RewardFailures};
use crate::data::{self, Prompt};
use crate::failure::Failure;
use crate::reward::{self, Rewards};
use crate::table::Table;
use crate::{home, output};

/// Prompts of one call: enough to fill the server's batches, few enough that the bar moves.
const PROMPTS_A_CALL: usize = 16;
/// Answers that are rewarded at once; how many commands run is the reward's own limit.
const REWARDS_AT_ONCE: usize = 64;
/// Tries after a reward failed, as in `tiger rl`.
const REWARD_RETRIES: u32 = 2;
/// Characters of a text in the table.
const SHOWN_CHARS: usize = 48;

/// One line of the file.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    prompt: Prompt,
    responses: Option<Vec<String>>,
}

/// Reads the whole file first: a mistake in the last line must not cost an evaluation.
pub async fn run(global: &Global, args: Evaluate) -> Result<(), Failure> {
    let client = home::client(global)?;
    let file = args.prompts.display().to_string();
    let lines = parse(&file, &data::text(&file)?)?;
    let rewards = rewards(&args)?;
    if rewards.is_some() && args.samples == 0 {
        return Err(Failure::new("a reward needs answers to reward; give --samples 1 or more"));
    }
    let bar = output::bar(lines.len() as u64, "{bar:30} {pos}/{len} prompts  {elapsed} elapsed, {eta} left  {msg}");
    let (mut results, mut judged, mut last) = (Vec::new(), Vec::new(), None);
    for chunk in lines.chunks(PROMPTS_A_CALL) {
        let request = request(&args, chunk, results.len(), last.as_ref());
        let mut answer = client.evaluate(&args.model, &request).await?;
        let found = std::mem::take(&mut answer.results);
        if let Some(rewards) = &rewards {
            bar.set_message("rewards");
            judged.extend(judge(rewards, chunk, &found).await?);
        }
        results.extend(found);
        bar.set_position(results.len() as u64);
        last = Some(answer);
    }
    bar.finish_and_clear();
    let last = last.ok_or_else(|| Failure::new("there was no prompt"))?;
    let summary = summarize(&results, &judged);
    if global.json {
        let rewards = rewards.is_some().then_some(&judged);
        let value = serde_json::json!({
            "model": last.model, "revision": last.revision, "against": last.against, "seed": args.seed,
            "summary": summary, "results": results, "rewards": rewards,
        });
        return output::json(&value);
    }
    print(&lines, &results, &judged, (&last, &summary));
    Ok(())
}

/// One call. The first decides which revision the others ask for, whatever is trained meanwhile; prompt i has the seed that it would have in
/// one call of all.
fn request(args: &Evaluate, chunk: &[Line], before: usize, first: Option<&EvaluateResponse>) -> EvaluateRequest {
    EvaluateRequest {
        prompts: chunk.iter().map(asked).collect(),
        revision: first.map(|first| first.revision).or(args.revision),
        against: Some(args.against),
        samples: Some(args.samples),
        temperature: args.temperature,
        top_p: args.top_p,
        max_tokens: args.max_tokens,
        seed: Some(args.seed.wrapping_add(before as u64)),
        ..Default::default()
    }
}

fn asked(line: &Line) -> EvaluatePrompt {
    EvaluatePrompt { messages: line.prompt.messages.clone(), responses: line.responses.clone() }
}

/// One try, for there is no run that a failure would end.
fn rewards(args: &Evaluate) -> Result<Option<Rewards>, Failure> {
    if args.reward.is_none() && args.reward_url.is_none() {
        return Ok(None);
    }
    let rewards = Rewards::new(&RewardArgs {
        reward: args.reward.clone(),
        reward_url: args.reward_url.clone(),
        reward_timeout: args.reward_timeout,
        reward_retries: REWARD_RETRIES,
        reward_parallel: None,
        reward_failures: RewardFailures::Stop,
    });
    rewards.map(Some)
}

async fn judge(rewards: &Rewards, lines: &[Line], results: &[EvaluateResult]) -> Result<Vec<PromptRewards>, Failure> {
    let mut work = Vec::new();
    for (line, result) in lines.iter().zip(results) {
        for answers in [&result.answers.model, &result.answers.against] {
            work.extend(answers.iter().enumerate().map(|(index, answer)| (line, index, answer)));
        }
    }
    let one = |(line, index, answer): (&Line, usize, &EvaluatedAnswer)| {
        let input = reward::input(&line.prompt, index, (&answer.content, answer.reasoning.as_deref(), answer.stop_reason));
        async move { rewards.judge(&input?).await.map_err(Failure::new) }
    };
    let futures: Vec<_> = work.into_iter().map(one).collect();
    let all: Vec<f64> = futures::stream::iter(futures).buffered(REWARDS_AT_ONCE).try_collect().await?;
    let mut all = all.into_iter();
    let mut take = |count: usize| all.by_ref().take(count).collect();
    Ok(results.iter().map(|r| PromptRewards { model: take(r.answers.model.len()), against: take(r.answers.against.len()) }).collect())
}

/// Prompts, and the responses to score: the field `responses` is not the reward's.
fn parse(file: &str, text: &str) -> Result<Vec<Line>, Failure> {
    let one = |mut prompt: Prompt| {
        let responses = prompt.fields.remove("responses").as_ref().map(texts).transpose();
        let responses = responses.map_err(|problem| Failure::new(format!("{file}, line {}: {problem}", prompt.line)))?;
        Ok(Line { prompt, responses })
    };
    data::prompts(file, text)?.into_iter().map(one).collect()
}

/// Texts, or the rated responses of a training file, of which those above the line's mean are what the model should say.
fn texts(responses: &Value) -> Result<Vec<String>, String> {
    let wrong = || "`responses` must be a list of texts, or of {\"content\": \"…\", \"reward\": …}".to_owned();
    let all = responses.as_array().ok_or_else(wrong)?;
    let rewards: Option<Vec<f64>> = all.iter().map(|response| response["reward"].as_f64()).collect();
    let mean = rewards.as_ref().map_or(0.0, |rewards| rewards.iter().sum::<f64>() / rewards.len().max(1) as f64);
    let good = |index: usize| rewards.as_ref().is_none_or(|rewards| rewards.len() < 2 || rewards[index] > mean);
    let text = |response: &Value| response.as_str().or_else(|| response["content"].as_str()).map(str::to_owned);
    let picked = all.iter().enumerate().filter(|(index, _)| good(*index));
    picked.map(|(_, response)| text(response)).collect::<Option<_>>().ok_or_else(wrong)
}

fn print(lines: &[Line], results: &[EvaluateResult], rewards: &[PromptRewards], (last, summary): (&EvaluateResponse, &Summary)) {
    let against = match last.against {
        Against::Named(_) => "parent".to_owned(),
        Against::Revision(revision) => format!("revision {revision}"),
    };
    let (ours, theirs) = (format!("{} revision {}", last.model, last.revision), against);
    if results.iter().any(|result| !result.answers.model.is_empty()) {
        println!("{}", side_by_side(lines, results, rewards, (&ours, &theirs)));
    }
    let mut table = Table::new(&["", &ours, &theirs]);
    let mut row = |name: &str, ours: Option<f64>, theirs: Option<f64>, digits: usize| {
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            table.row([name.to_owned(), format!("{ours:.digits$}"), format!("{theirs:.digits$}")]);
        }
    };
    row("log-prob of given responses, per token", summary.mean_logprob, summary.mean_logprob_against, 4);
    row("tokens of an answer", summary.mean_tokens, summary.mean_tokens_against, 1);
    row("reward", summary.mean_reward, summary.mean_reward_against, 3);
    print!("{table}");
    if let Some(win) = &summary.win_rate {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        println!(
            "win rate {} (95 % interval {} to {}, Wilson's over {} prompts; ties count half)",
            percent(win.rate),
            percent(win.low),
            percent(win.high),
            rewards.len()
        );
    }
    if let Some(kl) = summary.kl {
        println!("KL to {theirs}, estimated from the answers: {kl:.4} nats per token");
    }
}

fn side_by_side(lines: &[Line], results: &[EvaluateResult], rewards: &[PromptRewards], (ours, theirs): (&str, &str)) -> Table {
    let mut header = vec!["PROMPT", ours, theirs];
    if !rewards.is_empty() {
        header.push("REWARDS");
    }
    let mut table = Table::new(&header);
    for (number, (line, result)) in lines.iter().zip(results).enumerate() {
        let prompt = line.prompt.messages.last().map_or("", |message| message.content.as_str());
        for (index, (model, against)) in result.answers.model.iter().zip(&result.answers.against).enumerate() {
            let prompt = if index == 0 { shown(prompt) } else { String::new() };
            let mut cells = vec![prompt, shown(&model.content), shown(&against.content)];
            if let Some(rewards) = rewards.get(number) {
                cells.push(format!("{} | {}", rewards.model[index], rewards.against[index]));
            }
            table.row(cells);
        }
    }
    table
}

/// One line of limited length.
fn shown(text: &str) -> String {
    let flat: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS + 1).collect();
    match flat.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &flat[..at]),
        None => flat,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_have_their_forms() {
        let parse = |text: &str| super::parse("file", text);
        let texts = r#"{"messages": [{"role": "user", "content": "b"}], "responses": ["x", {"content": "y"}], "answer": 3}"#;
        let rated = r#"{"prompt": "a", "responses": [{"content": "x", "reward": 0}, {"content": "y", "reward": 1}]}"#;
        let lines = parse(&format!("{texts}\n{rated}\n{{\"prompt\": \"c\"}}")).unwrap();
        let responses: Vec<Option<Vec<String>>> = lines.iter().map(|line| line.responses.clone()).collect();
        assert_eq!(responses, [Some(vec!["x".into(), "y".into()]), Some(vec!["y".into()]), None]);
        assert_eq!(Value::Object(lines[0].prompt.fields.clone()), serde_json::json!({"answer": 3}), "what is scored is not the reward's");
        for (line, says) in
            [("{}", "file, line 1: it needs"), (r#"{"prompt": "a", "responses": [3]}"#, "file, line 1: `responses` must be")]
        {
            let problem = parse(line).unwrap_err().message;
            assert!(problem.starts_with(says), "{problem}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shown("a\nb"), "a b");
        assert_eq!(shown(&"ä".repeat(60)).chars().count(), SHOWN_CHARS + 1);
    }
}
