//! Runs llama.cpp's own benchmarks for the same work. Knows their options and output, not how ours is measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::sampling::{DECODED, PROMPT};
use super::{Row, Work};
use crate::failure::Failure;

/// llama.cpp's programs and a model of the same shape and bits.
pub(super) struct Llama {
    bench: PathBuf,
    /// Several streams are another program's job, which lies beside the first in its builds.
    batched: Option<PathBuf>,
    model: PathBuf,
    threads: usize,
}

impl Llama {
    /// `bench` is `llama-bench`.
    pub(super) fn new(bench: &Path, model: &Path, threads: usize) -> Self {
        let batched = bench.with_file_name("llama-batched-bench");
        Self { bench: bench.into(), batched: batched.exists().then_some(batched), model: model.into(), threads }
    }

    /// Puts llama.cpp's tokens/s into the rows that it has a benchmark for.
    pub(super) fn measure(&self, rows: &mut [Row]) -> Result<(), Failure> {
        let mut prompts = list(rows.iter().filter_map(|r| if let Work::Prefill(tokens) = r.work { Some(tokens) } else { None }));
        if prompts.is_empty() {
            // None.
            prompts.push('0');
        }
        let decoded = DECODED.to_string();
        let text = self.run(&self.bench, &["-p", &prompts, "-n", &decoded, "-r", "1", "-o", "json"])?;
        let found: Value = serde_json::from_str(&text).map_err(|e| Failure::because("llama-bench printed no JSON", e))?;
        for test in found.as_array().into_iter().flatten() {
            let speed = test["avg_ts"].as_f64();
            let work = match (test["n_prompt"].as_u64(), test["n_gen"].as_u64()) {
                (Some(prompt), Some(0)) => Work::Prefill(prompt as usize),
                _ => Work::Decode { streams: 1, adapters: 0 },
            };
            rows.iter_mut().filter(|r| r.work == work).for_each(|r| r.theirs = speed);
        }
        let several = |r: &Row| if let Work::Decode { streams, adapters: 0 } = r.work { Some(streams).filter(|s| *s > 1) } else { None };
        let Some(most) = rows.iter().filter_map(several).max() else { return Ok(()) };
        let Some(batched) = &self.batched else { return Ok(()) };
        let (streams, context) = (list(rows.iter().filter_map(several)), (most * (PROMPT + DECODED)).to_string());
        let prompt = PROMPT.to_string();
        let text = self.run(batched, &["-npp", &prompt, "-ntg", &decoded, "-npl", &streams, "-c", &context, "--output-format", "jsonl"])?;
        for test in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let (Some(streams), speed) = (test["pl"].as_u64(), test["speed_tg"].as_f64()) else { continue };
            let work = Work::Decode { streams: streams as usize, adapters: 0 };
            rows.iter_mut().filter(|r| r.work == work).for_each(|r| r.theirs = speed);
        }
        Ok(())
    }

    fn run(&self, program: &Path, options: &[&str]) -> Result<String, Failure> {
        let threads = self.threads.to_string();
        let result = Command::new(program)
            .args(["-m".as_ref(), self.model.as_os_str(), "-t".as_ref(), threads.as_ref()])
            .args(options)
            .output()
            .map_err(|e| Failure::because(format!("{} does not start", program.display()), e))?;
        if !result.status.success() {
            let errors = String::from_utf8_lossy(&result.stderr);
            let last: Vec<&str> = errors.lines().rev().take(3).collect();
            return Err(Failure::new(format!("{} failed: {}", program.display(), last.into_iter().rev().collect::<Vec<_>>().join(" | "))));
        }
        Ok(String::from_utf8_lossy(&result.stdout).into_owned())
    }
}

fn list(values: impl Iterator<Item = usize>) -> String {
    values.map(|v| v.to_string()).collect::<Vec<_>>().join(",")
}
