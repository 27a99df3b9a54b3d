//! Rewards from outside: a command that reads a response and prints a number, or an address that is sent one. With a time limit, tries and
//! a bound on how many at once. Does not know what is sampled or trained.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use tiger_wire::StopReason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::args::RewardArgs;
use crate::data::Prompt;
use crate::failure::Failure;

/// Bytes kept of what a command prints: a number, or the end of its complaint.
const KEPT_BYTES: usize = 64 << 10;
/// Characters of a command's complaint, or of an answer, that a message repeats.
const SHOWN_CHARS: usize = 600;
/// Pause before the second try, doubled before each later one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What a reward is given: a response (its text, what was thought before it, why it ended), which of the answers to its prompt it is, and the
/// prompt with all fields of its line.
pub fn input(
    prompt: &Prompt,
    index: usize,
    (content, reasoning, stop_reason): (&str, Option<&str>, StopReason),
) -> Result<Map<String, Value>, Failure> {
    let json = |value: Result<Value, serde_json::Error>| value.map_err(|e| Failure::because("cannot write JSON", e));
    let mut input = Map::new();
    input.insert("messages".into(), json(serde_json::to_value(&prompt.messages))?);
    input.insert("response".into(), content.into());
    if let Some(reasoning) = reasoning {
        input.insert("reasoning".into(), reasoning.into());
    }
    input.insert("stop_reason".into(), json(serde_json::to_value(stop_reason))?);
    input.insert("sample".into(), index.into());
    input.extend(prompt.fields.clone());
    Ok(input)
}

/// What gives the rewards.
pub struct Rewards {
    source: Source,
    timeout: Duration,
    retries: u32,
    places: Semaphore,
}

enum Source {
    Command(String),
    Url(String, reqwest::Client),
}

impl Rewards {
    /// From the command line.
    pub fn new(args: &RewardArgs) -> Result<Rewards, Failure> {
        let source = match (&args.reward, &args.reward_url) {
            (Some(command), _) => Source::Command(command.clone()),
            (None, Some(url)) => {
                let url = reqwest::Url::parse(url).map_err(|e| Failure::because(format!("--reward-url {url}"), e))?;
                let http = reqwest::Client::builder().build().map_err(|e| Failure::because("cannot make an HTTP client", e))?;
                Source::Url(url.into(), http)
            }
            (None, None) => return Err(Failure::new("give --reward COMMAND or --reward-url URL")),
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let places = Semaphore::new(args.reward_parallel.map_or_else(cores, |n| n as usize));
        Ok(Rewards { source, timeout: Duration::from_secs_f64(args.reward_timeout), retries: args.reward_retries, places })
    }

    /// The reward of one response. The error says what was tried, how it ended and what to do.
    pub async fn judge(&self, input: &Map<String, Value>) -> Result<f64, String> {
        let body = serde_json::to_vec(input).map_err(|e| e.to_string())?;
        let mut pause = FIRST_PAUSE;
        for tries_left in (0..=self.retries).rev() {
            let place = self.places.acquire().await.map_err(|e| e.to_string())?;
            let tried = tokio::time::timeout(self.timeout, self.attempt(&body)).await;
            drop(place);
            let problem = match tried {
                Ok(Ok(reward)) => return Ok(reward),
                Ok(Err(problem)) => problem,
                Err(_) => format!("no number within {} s; --reward-timeout allows more", self.timeout.as_secs_f64()),
            };
            if tries_left == 0 {
                return Err(self.failed(&problem, &body));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        unreachable!("the loop returns on its last try")
    }

    fn failed(&self, problem: &str, body: &[u8]) -> String {
        let what = match &self.source {
            Source::Command(command) => format!("the reward command `{command}`"),
            Source::Url(url, _) => format!("the reward address {url}"),
        };
        let times = if self.retries == 0 { "once".to_owned() } else { format!("{} times", self.retries + 1) };
        let input = start(&String::from_utf8_lossy(body));
        format!("{what} failed ({times}): {problem}\nIt was given: {input}")
    }

    async fn attempt(&self, body: &[u8]) -> Result<f64, String> {
        match &self.source {
            Source::Command(command) => run(command, body).await,
            Source::Url(url, http) => post(http, url, body).await,
        }
    }
}

/// The end of a command with everything that it started, also when nobody waits for it any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // Gone already is as good.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

async fn run(command: &str, body: &[u8]) -> Result<f64, String> {
    let mut shell = Command::new("sh");
    // A group of its own: Ctrl-C is ours to see to, and a time limit ends the shell's children as well.
    shell.arg("-c").arg(command).process_group(0).kill_on_drop(true);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = shell.spawn().map_err(|e| format!("cannot run sh: {e}"))?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let (status, out, err) = exchange(&mut child, body).await.map_err(|e| format!("cannot talk to it: {e}"))?;
    group.0 = None;
    let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    let complaint = if err.trim().is_empty() { String::new() } else { format!("; the end of its standard error:\n{}", end(&err)) };
    if !status.success() {
        return Err(format!("{status}{complaint}"));
    }
    let first = out.lines().next().unwrap_or_default();
    number(first)
        .ok_or_else(|| format!("the first line of its standard output must be a finite number, it is {:?}{complaint}", start(first)))
}

async fn exchange(child: &mut Child, body: &[u8]) -> std::io::Result<(std::process::ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it does not need.
            let _ = stdin.write_all(body).await;
        }
    };
    let (out, err, ()) = tokio::join!(read(stdout, Part::Start), read(stderr, Part::End), write);
    Ok((child.wait().await?, out?, err?))
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Start,
    End,
}

/// Reads to the end and keeps a part, so that a talkative command neither blocks nor fills the memory.
async fn read(from: Option<impl AsyncRead + Unpin>, part: Part) -> std::io::Result<Vec<u8>> {
    let (mut kept, mut piece) = (Vec::new(), [0; 4096]);
    let Some(mut from) = from else { return Ok(kept) };
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            return Ok(kept);
        }
        match part {
            Part::Start => kept.extend_from_slice(&piece[..count.min(KEPT_BYTES - kept.len())]),
            Part::End => {
                kept.extend_from_slice(&piece[..count]);
                kept.drain(..kept.len().saturating_sub(KEPT_BYTES));
            }
        }
    }
}

async fn post(http: &reqwest::Client, url: &str, body: &[u8]) -> Result<f64, String> {
    let request = http.post(url).header(reqwest::header::CONTENT_TYPE, "application/json").body(body.to_vec());
    let answer = request.send().await.map_err(|e| innermost(&e))?;
    let status = answer.status();
    let text = answer.text().await.map_err(|e| innermost(&e))?;
    if !status.is_success() {
        return Err(format!("status {status}: {}", start(&text)));
    }
    number(&text).ok_or_else(|| format!("the answer must be a finite number or {{\"reward\": number}}, it is {:?}", start(&text)))
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A finite number, alone or as `{"reward": number}`.
fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    let parsed = text.parse().ok().or_else(|| serde_json::from_str::<Value>(text).ok()?.get("reward")?.as_f64());
    parsed.filter(|reward| reward.is_finite())
}

fn start(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

fn end(text: &str) -> &str {
    let text = text.trim_end();
    let from = text.char_indices().rev().nth(SHOWN_CHARS - 1).map_or(0, |(at, _)| at);
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewards(command: &str, timeout: f64, retries: u32) -> Rewards {
        let args = RewardArgs {
            reward: Some(command.into()),
            reward_url: None,
            reward_timeout: timeout,
            reward_retries: retries,
            reward_parallel: Some(2),
            reward_failures: crate::args::RewardFailures::Stop,
        };
        Rewards::new(&args).unwrap()
    }

    async fn judge(command: &str) -> Result<f64, String> {
        let input = serde_json::json!({"response": "a\u{e4}", "answer": 7});
        rewards(command, 20.0, 0).judge(input.as_object().unwrap()).await
    }

    #[tokio::test]
    async fn the_first_line_is_the_reward() {
        assert_eq!(judge("echo 0.25; echo 7").await, Ok(0.25));
        assert_eq!(judge("echo ' -1e2 '").await, Ok(-100.0));
        assert_eq!(judge("echo '{\"reward\": 2}'").await, Ok(2.0));
        assert_eq!(judge("wc -c").await, Ok(r#"{"response":"aä","answer":7}"#.len() as f64));
        assert_eq!(judge("echo 1; yes | head -c 300000; yes | head -c 300000 >&2").await, Ok(1.0));
    }

    #[tokio::test]
    async fn what_went_wrong_is_said() {
        for (command, says) in [
            ("echo nan", "must be a finite number, it is \"nan\""),
            ("true", "it is \"\""),
            ("echo True", "it is \"True\""),
            ("echo 1; echo it broke >&2; exit 3", "exit status: 3; the end of its standard error:\nit broke"),
            ("no-such-command-at-all", "exit status: 127"),
        ] {
            let problem = judge(command).await.unwrap_err();
            assert!(problem.contains(says) && problem.contains(command), "{problem}");
        }
    }

    #[tokio::test]
    async fn a_slow_command_is_ended_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let command = format!("sleep 600 & echo $! > {}; wait", file.display());
        let problem = rewards(&command, 0.5, 0).judge(&Map::new()).await.unwrap_err();
        assert!(problem.contains("no number within 0.5 s"), "{problem}");
        let pid = std::fs::read_to_string(file).unwrap();
        // Killed: gone, or a zombie until somebody collects it.
        for _ in 0..200 {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the child of the shell lives on");
    }

    #[tokio::test]
    async fn a_failure_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tries");
        let command = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3 && echo 5", file.display());
        assert_eq!(rewards(&command, 20.0, 2).judge(&Map::new()).await, Ok(5.0));
        std::fs::remove_file(&file).unwrap();
        let problem = rewards(&command, 20.0, 1).judge(&Map::new()).await.unwrap_err();
        assert!(problem.contains("failed (2 times)"), "{problem}");
    }
}
