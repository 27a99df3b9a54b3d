//! Runs a training step of PyTorch and PEFT for the same work. Knows the script's options and output, not how ours is measured.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::failure::Failure;

/// The script, which goes to the interpreter as text: the binary is all that one needs besides it.
const SCRIPT: &str = include_str!("../../../../bench/peft/train.py");
/// What makes glibc keep freed memory, on huge pages: PyTorch trains nearly twice as fast with it as without.
const ALLOCATOR: [(&str, &str); 4] = [
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "40000000000"),
    ("MALLOC_TOP_PAD_", "67108864"),
    ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
];

/// A Python interpreter that has the libraries of `bench/peft/requirements.txt`.
pub(super) struct Peft {
    pub(super) python: PathBuf,
    pub(super) shape: String,
    pub(super) threads: usize,
}

/// A measured step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) tokens_per_s: f64,
    /// Largest resident set of its process once the model was made.
    pub(super) peak_bytes: u64,
}

impl Peft {
    /// A step on so many sequences, everything kept, and one with layers checkpointed.
    pub(super) fn measure(&self, sequences: u32) -> Result<[Step; 2], Failure> {
        Ok([self.step(sequences, false)?, self.step(sequences, true)?])
    }

    fn step(&self, sequences: u32, checkpointed: bool) -> Result<Step, Failure> {
        let (threads, sequences) = (self.threads.to_string(), sequences.to_string());
        let mut command = Command::new(&self.python);
        command.envs(ALLOCATOR).args(["-c", SCRIPT, "--shape", &self.shape, "--sequences", &sequences, "--threads", &threads]);
        if checkpointed {
            command.arg("--checkpoint");
        }
        let name = self.python.display();
        let result = command.output().map_err(|e| Failure::because(format!("{name} does not start"), e))?;
        if !result.status.success() {
            let errors = String::from_utf8_lossy(&result.stderr);
            let last = errors.lines().next_back().unwrap_or("no word; was it killed for want of memory?");
            return Err(Failure::new(format!("the step of PyTorch and PEFT failed ({}): {last}", result.status)));
        }
        let text = String::from_utf8_lossy(&result.stdout);
        let found = text.lines().rev().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some(Step { tokens_per_s: line["tokens_per_s"].as_f64()?, peak_bytes: line["peak_resident_bytes"].as_u64()? })
        });
        found.ok_or_else(|| Failure::new(format!("{name} printed no line with tokens_per_s and peak_resident_bytes")))
    }
}
