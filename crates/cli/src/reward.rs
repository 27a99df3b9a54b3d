//! Rewards from outside: a command that reads a response as JSON and prints a number. Does not know what is sampled or compared.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio::sync::Semaphore;

/// Pause between looks at whether a command has ended: short beside the start of any process.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes kept of what a command prints: a number, or its complaint.
const KEPT_BYTES: u64 = 64 << 10;
/// Characters of what a command printed that a message repeats.
const SHOWN_CHARS: usize = 600;

/// What gives the rewards.
pub struct Rewards {
    command: String,
    timeout: Duration,
    places: Semaphore,
}

impl Rewards {
    /// `command` is run by `sh -c`, one for each core at once.
    pub fn new(command: &str, timeout: Duration) -> Rewards {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Rewards { command: command.to_owned(), timeout, places: Semaphore::new(cores) }
    }

    /// The reward of one response: the first line that the command prints, a finite number or `{"reward": number}`.
    pub async fn judge(&self, input: &Map<String, Value>) -> Result<f64, String> {
        let body = serde_json::to_vec(input).map_err(|e| e.to_string())?;
        let _place = self.places.acquire().await.map_err(|e| e.to_string())?;
        let (command, timeout) = (self.command.clone(), self.timeout);
        let tried = tokio::task::spawn_blocking(move || run(&command, body, timeout)).await.map_err(|e| e.to_string())?;
        tried.map_err(|problem| format!("the reward command `{}` failed: {problem}", self.command))
    }
}

/// A command's end, whatever happens to who waits for it.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run(command: &str, body: Vec<u8>, timeout: Duration) -> Result<f64, String> {
    let spawned = Command::new("sh").arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = Reaped(spawned.map_err(|e| format!("cannot run sh: {e}"))?);
    let (stdin, out, err) = (child.0.stdin.take(), child.0.stdout.take(), child.0.stderr.take());
    std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // A command need not read what it does not need.
            let _ = stdin.write_all(&body);
        }
    });
    let (out, err) = (reader(out), reader(err));
    let deadline = Instant::now() + timeout;
    let status = loop {
        match child.0.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() >= deadline => {
                return Err(format!("no number within {} s; --reward-timeout allows more", timeout.as_secs_f64()));
            }
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned();
    let (out, err) = (text(out), text(err));
    let complaint = if err.trim().is_empty() { String::new() } else { format!("; its standard error: {}", start(err.trim())) };
    if !status.success() {
        return Err(format!("{status}{complaint}"));
    }
    let first = out.lines().next().unwrap_or_default();
    number(first)
        .ok_or_else(|| format!("the first line of its standard output must be a finite number, it is {:?}{complaint}", start(first)))
}

/// Reads to the end and keeps the start, so that a talkative command neither blocks nor fills the memory.
fn reader(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut from) = from {
            let _ = from.by_ref().take(KEPT_BYTES).read_to_end(&mut kept);
            let _ = std::io::copy(&mut from, &mut std::io::sink());
        }
        kept
    })
}

fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let parsed = text.parse().ok().or_else(|| serde_json::from_str::<Value>(text).ok()?.get("reward")?.as_f64());
    parsed.filter(|reward| reward.is_finite())
}

fn start(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn judge(command: &str) -> Result<f64, String> {
        let input = serde_json::json!({"response": "a\u{e4}", "answer": 7});
        Rewards::new(command, Duration::from_secs(20)).judge(input.as_object().unwrap()).await
    }

    #[tokio::test]
    async fn the_first_line_is_the_reward() {
        assert_eq!(judge("echo 0.25; echo 7").await, Ok(0.25));
        assert_eq!(judge("echo '{\"reward\": -2}'").await, Ok(-2.0));
        assert_eq!(judge("wc -c").await, Ok(r#"{"response":"aä","answer":7}"#.len() as f64));
        assert_eq!(judge("echo 1; yes | head -c 300000; yes | head -c 300000 >&2").await, Ok(1.0));
    }

    #[tokio::test]
    async fn what_went_wrong_is_said() {
        for (command, says) in [
            ("echo nan", "must be a finite number, it is \"nan\""),
            ("true", "it is \"\""),
            ("echo 1; echo it broke >&2; exit 3", "exit status: 3; its standard error: it broke"),
        ] {
            let problem = judge(command).await.unwrap_err();
            assert!(problem.contains(says) && problem.contains(command), "{problem}");
        }
        let slow = Rewards::new("exec sleep 600", Duration::from_millis(200)).judge(&Map::new()).await.unwrap_err();
        assert!(slow.contains("no number within 0.2 s"), "{slow}");
    }
}
