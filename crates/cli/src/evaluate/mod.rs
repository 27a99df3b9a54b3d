//! `tiger evaluate`: a revision beside its parent or another one, on the prompts of a file, with rewards by a command.

mod flags;
mod summary;

use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Map, Value};
use tiger_wire::{Against, EvaluatePrompt, EvaluateRequest, EvaluateResponse, EvaluateResult, EvaluatedAnswer, Message, Role};

pub use flags::Evaluate;
use summary::{PromptRewards, Summary, summarize};

use crate::args::Global;
use crate::failure::Failure;
use crate::reward::Rewards;
use crate::table::Table;
use crate::{home, output};

/// Prompts of one call: enough to fill the server's batches, few enough that the bar moves.
const PROMPTS_A_CALL: usize = 16;
/// Answers that are rewarded at once; how many commands run is the reward's own limit.
const REWARDS_AT_ONCE: usize = 64;
/// Characters of a text in the table.
const SHOWN_CHARS: usize = 48;
/// Names that the reward's input has for itself.
const RESERVED: [&str; 4] = ["response", "stop_reason", "sample", "reasoning"];

/// One line of the file.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    prompt: EvaluatePrompt,
    /// The line's other fields, for the reward.
    fields: Map<String, Value>,
}

/// Reads the whole file first: a mistake in the last line must not cost an evaluation.
pub async fn run(global: &Global, args: Evaluate) -> Result<(), Failure> {
    let client = home::client(global)?;
    let lines = read(&args.prompts)?;
    let rewards = args.reward.as_ref().map(|command| Rewards::new(command, Duration::from_secs_f64(args.reward_timeout)));
    if rewards.is_some() && args.samples == 0 {
        return Err(Failure::new("--reward needs answers to reward; give --samples 1 or more"));
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
        prompts: chunk.iter().map(|line| line.prompt.clone()).collect(),
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

async fn judge(rewards: &Rewards, lines: &[Line], results: &[EvaluateResult]) -> Result<Vec<PromptRewards>, Failure> {
    let mut work = Vec::new();
    for (line, result) in lines.iter().zip(results) {
        for answers in [&result.answers.model, &result.answers.against] {
            work.extend(answers.iter().enumerate().map(|(index, answer)| (line, index, answer)));
        }
    }
    let one = |(line, index, answer): (&Line, usize, &EvaluatedAnswer)| {
        let input = input(line, index, answer);
        async move { rewards.judge(&input?).await.map_err(Failure::new) }
    };
    let futures: Vec<_> = work.into_iter().map(one).collect();
    let all: Vec<f64> = futures::stream::iter(futures).buffered(REWARDS_AT_ONCE).try_collect().await?;
    let mut all = all.into_iter();
    let mut take = |count: usize| all.by_ref().take(count).collect();
    Ok(results.iter().map(|r| PromptRewards { model: take(r.answers.model.len()), against: take(r.answers.against.len()) }).collect())
}

/// What a reward is given: the same as in `tiger rl`.
fn input(line: &Line, index: usize, answer: &EvaluatedAnswer) -> Result<Map<String, Value>, Failure> {
    let json = |value: Result<Value, serde_json::Error>| value.map_err(|e| Failure::because("cannot write JSON", e));
    let mut input = Map::new();
    input.insert("messages".into(), json(serde_json::to_value(&line.prompt.messages))?);
    input.insert("response".into(), answer.content.clone().into());
    if let Some(reasoning) = &answer.reasoning {
        input.insert("reasoning".into(), reasoning.clone().into());
    }
    input.insert("stop_reason".into(), json(serde_json::to_value(answer.stop_reason))?);
    input.insert("sample".into(), index.into());
    input.extend(line.fields.clone());
    Ok(input)
}

fn read(file: &Path) -> Result<Vec<Line>, Failure> {
    let text = if file == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|e| Failure::because(file.display(), e))?;
    parse(&text).map_err(|problem| Failure::new(format!("{}, {problem}", file.display())))
}

fn parse(text: &str) -> Result<Vec<Line>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed = lines.map(|(number, line)| {
        let object = serde_json::from_str(line).map_err(|e| e.to_string());
        object.and_then(parse_line).map_err(|problem| format!("line {}: {problem}", number + 1))
    });
    let all: Vec<Line> = parsed.collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err("no lines: each line is {\"prompt\": \"…\"} or {\"messages\": […]}".into());
    }
    Ok(all)
}

fn parse_line(mut fields: Map<String, Value>) -> Result<Line, String> {
    let messages = match (fields.remove("messages"), fields.get("prompt")) {
        (Some(messages), _) => serde_json::from_value(messages).map_err(|e| format!("`messages`: {e}"))?,
        (None, Some(Value::String(text))) => vec![Message::new(Role::User, text.as_str())],
        (None, Some(prompt)) => Vec::<Message>::deserialize(prompt).map_err(|e| format!("`prompt`: {e}"))?,
        (None, None) => return Err("it needs `prompt` or `messages`".into()),
    };
    let responses = match fields.remove("responses") {
        Some(responses) => Some(texts(&responses)?),
        None => None,
    };
    if let Some(name) = RESERVED.iter().find(|name| fields.contains_key(**name)) {
        return Err(format!("the field `{name}` is set for the reward by `tiger evaluate`; give the line's another name"));
    }
    Ok(Line { prompt: EvaluatePrompt { messages, responses }, fields })
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
    fn lines_have_their_forms() {
        let text = "{\"prompt\": \"a\", \"answer\": 3}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"b\"}], \"responses\": [\"x\", {\"content\": \"y\", \"reward\": 1}]}\n";
        let lines = parse(text).unwrap();
        assert_eq!(lines[0].prompt.messages, [Message::new(Role::User, "a")]);
        assert_eq!(Value::Object(lines[0].fields.clone()), serde_json::json!({"prompt": "a", "answer": 3}));
        assert_eq!(lines[1].prompt.responses, Some(vec!["x".to_owned(), "y".to_owned()]));
        let rated = r#"{"prompt": "a", "responses": [{"content": "x", "reward": 0}, {"content": "y", "reward": 1}]}"#;
        assert_eq!(parse(rated).unwrap()[0].prompt.responses, Some(vec!["y".to_owned()]));
        for (line, says) in [
            ("{}", "line 1: it needs `prompt` or `messages`"),
            ("{\"prompt\": 3}", "line 1: `prompt`"),
            ("{\"prompt\": \"a\", \"responses\": [3]}", "line 1: `responses` must be"),
            ("{\"prompt\": \"a\", \"response\": \"b\"}", "line 1: the field `response`"),
            ("", "no lines"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.starts_with(says), "{problem}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(shown("a\nb"), "a b");
        assert_eq!(shown(&"ä".repeat(60)).chars().count(), SHOWN_CHARS + 1);
    }
}
