//! `tiger train`: rated responses from a JSON-lines file, batch by batch, with a bar.

use std::time::Instant;

use futures::StreamExt;
use serde::Deserialize;
use tiger_client::Client;
use tiger_wire::{Chunk, Message, Objective, StopChunk, TrainGroup, TrainRequest, TrainResponse, TrainedResponse};

use crate::args::{Global, ObjectiveArg, Train};
use crate::failure::Failure;
use crate::{home, output};

/// One line of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    messages: Vec<Message>,
    responses: Vec<TrainedResponse>,
}

/// Reads the whole file before the first training: a mistake in the last line must not leave half a run behind.
pub async fn run(global: &Global, args: Train) -> Result<(), Failure> {
    let client = home::client(global)?;
    let groups = read(&args.file)?;
    let batches: Vec<&[TrainGroup]> = groups.chunks(args.batch as usize).collect();
    let calls = batches.len() as u64 * u64::from(args.epochs);
    let bar = output::bar(calls, "{bar:30} {pos}/{len} calls  {elapsed} elapsed, {eta} left  {msg}");
    // A repeated call after a lost connection must not train twice.
    let run_id = format!(
        "{}-{}",
        std::process::id(),
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos())
    );
    let started = Instant::now();
    let mut answers = Vec::new();
    for epoch in 0..args.epochs {
        for (index, batch) in batches.iter().enumerate() {
            let request = request(&args, batch);
            let answer = call(&client, &request, &format!("{run_id}-{epoch}-{index}"), &bar).await?;
            bar.inc(1);
            bar.set_message(format!("revision {}  reward {:.3}  loss {:.4}", answer.revision, answer.reward.mean, answer.metrics.loss));
            for warning in &answer.warnings {
                bar.println(format!("call {}: {warning}", bar.position()));
            }
            if global.json {
                bar.suspend(|| output::json(&answer))?;
            }
            answers.push(answer);
        }
    }
    bar.finish_and_clear();
    if !global.json
        && let Some(last) = answers.last()
    {
        let updated = answers.iter().filter(|a| a.updated).count();
        let tokens: u64 = answers.iter().map(|a| a.trained_tokens).sum();
        println!(
            "{}: revision {}, {updated} of {} calls changed it, {tokens} tokens trained in {:.1} s",
            last.model,
            last.revision,
            answers.len(),
            started.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn read(file: &str) -> Result<Vec<TrainGroup>, Failure> {
    let text = if file == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(file) };
    let text = text.map_err(|e| Failure::because(file, e))?;
    parse(&text).map_err(|problem| Failure::new(format!("{file}, {problem}")))
}

fn parse(text: &str) -> Result<Vec<TrainGroup>, String> {
    let mut groups = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|e| format!("line {}: {e}", number + 1))?;
        if line.responses.is_empty() {
            return Err(format!("line {}: responses is empty; give at least one with a reward", number + 1));
        }
        groups.push(TrainGroup { messages: line.messages, responses: line.responses });
    }
    if groups.is_empty() {
        return Err("no lines: each line is {\"messages\": […], \"responses\": [{\"content\": …, \"reward\": …}, …]}".into());
    }
    Ok(groups)
}

fn request(args: &Train, batch: &[TrainGroup]) -> TrainRequest {
    let objective = args.objective.map(|objective| match objective {
        ObjectiveArg::Tapered => Objective::Tapered,
        ObjectiveArg::ImportanceSampling => Objective::ImportanceSampling,
        ObjectiveArg::Ppo => Objective::Ppo,
        ObjectiveArg::Sft => Objective::Sft,
    });
    TrainRequest {
        model: args.model.clone(),
        batch: Some(batch.to_vec()),
        learning_rate: args.learning_rate,
        steps: args.steps,
        kl_coefficient: args.kl_coefficient,
        objective,
        dry_run: args.dry_run,
        ..Default::default()
    }
}

async fn call(client: &Client, request: &TrainRequest, key: &str, bar: &indicatif::ProgressBar) -> Result<TrainResponse, Failure> {
    let mut chunks = client.train_stream(request, Some(key)).await?;
    while let Some(chunk) = chunks.next().await {
        match chunk? {
            Chunk::Info(info) => bar.set_message(info.message),
            Chunk::Stop(stop) => {
                if let StopChunk::Train(stop) = *stop {
                    return Ok(stop.answer);
                }
            }
            Chunk::Error(error) => return Err(Failure::new(error.error.message)),
            Chunk::Progress(_) | Chunk::Delta(_) => {}
        }
    }
    Err(Failure::new(
        "the connection ended before the training did; the model is unchanged or one revision further: `tiger models show` tells",
    ))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn mistakes_name_their_line() {
        let good = r#"{"messages":[{"role":"user","content":"a"}],"responses":[{"content":"b","reward":1}]}"#;
        assert_eq!(parse(&format!("{good}\n\n{good}\n")).unwrap().len(), 2);
        assert!(parse(&format!("{good}\n{{}}\n")).unwrap_err().starts_with("line 2: missing field"));
        assert!(parse(&good.replace("reward", "rewrad")).unwrap_err().contains("rewrad"));
        assert!(parse("\n").unwrap_err().contains("no lines"));
    }
}
