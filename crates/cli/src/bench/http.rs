//! `tiger bench --http`: one-token requests from several clients at once, to a running `tiger serve` and to a running `llama-server` in
//! turns. Its client writes and reads the bytes of HTTP itself: it shares the cores with the servers, so what a library takes it takes
//! from them. Knows of HTTP only what the two servers send; measures no kernel.

mod connection;
mod trivial;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::args::{Bench, Global};
use crate::failure::{Failure, UNAUTHORIZED};
use crate::output;
use crate::table::Table;
use connection::{Connection, Server};

/// Clients at once; each sends its next request when it has the answer to the last.
const CLIENTS: [usize; 3] = [1, 16, 64];
/// Time of one measurement, and of what runs before it and is not counted.
const MEASURED: Duration = Duration::from_secs(4);
const WARM: Duration = Duration::from_millis(500);
/// Tokens of a prompt: words of two letters, or ids.
const WORDS: u64 = 8;
/// Ids of the other server's prompts: a range that any vocabulary has, clear of bytes and marks.
const IDS: std::ops::Range<u64> = 300..1300;

/// What a server is asked.
#[derive(Debug, Clone)]
enum Api {
    /// `POST /v1/generate_response` of this model.
    Tiger { model: String, key: String },
    /// `POST /completion`.
    Llama,
}

/// A server and how it is asked.
struct Target {
    server: Server,
    api: Api,
    /// Number of the next prompt: no two are alike, so that no cache helps.
    next: AtomicU64,
}

/// One measurement.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Measures and prints.
pub(super) fn run(args: &Bench, global: &Global, url: &str) -> Result<(), Failure> {
    // One thread: the clients are many, their work is little.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failure::because("cannot start the runtime", e))?;
    runtime.block_on(measure(args, global, url))
}

async fn measure(args: &Bench, global: &Global, url: &str) -> Result<(), Failure> {
    let missing =
        || Failure { message: "no API key: make one with `tiger keys create NAME` and set TIGER_API_KEY".into(), code: UNAUTHORIZED };
    let key = global.api_key.clone().filter(|key| !key.is_empty()).ok_or_else(missing)?;
    let mut targets = vec![Target::new(url, Api::Tiger { model: args.model.clone(), key })?];
    if let Some(url) = &args.against {
        targets.push(Target::new(url, Api::Llama)?);
    }
    let targets: Vec<Arc<Target>> = targets.into_iter().map(Arc::new).collect();
    let mut tokens = Vec::new();
    for target in &targets {
        tokens.push(target.prompt_tokens().await?);
    }
    let alone = ceiling().await?;
    let before = targets[0].resident_bytes().await?;
    let mut rounds = Vec::new();
    for round in 0..args.rounds {
        let mut loads = Vec::new();
        for clients in CLIENTS {
            eprintln!("round {} of {}: {clients} clients", round + 1, args.rounds);
            for target in &targets {
                loads.push(load(target, clients, MEASURED).await?);
            }
        }
        rounds.push(loads);
    }
    let asked = targets[0].next.load(Ordering::Relaxed) - 1;
    print(global.json, &tokens, alone, &medians(&rounds))?;
    if let (false, Some(before), Some(after)) = (global.json, before, targets[0].resident_bytes().await?) {
        println!("resident {} before, {} after {asked} requests", output::bytes(before), output::bytes(after));
    }
    Ok(())
}

impl Target {
    fn new(url: &str, api: Api) -> Result<Self, Failure> {
        Ok(Self { server: Server::parse(url)?, api, next: AtomicU64::new(1) })
    }

    /// The bytes of the next request.
    fn request(&self) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match &self.api {
            Api::Tiger { model, key } => {
                let message = json!({"role": "user", "content": words(number)});
                let body = json!({"model": model, "messages": [message], "max_tokens": 1, "temperature": 1.0, "top_p": 1.0});
                self.server.post("/v1/generate_response", Some(key), &body.to_string())
            }
            Api::Llama => {
                let body =
                    json!({"prompt": ids(number), "n_predict": 1, "cache_prompt": false, "temperature": 1.0, "samplers": ["temperature"]});
                self.server.post("/completion", None, &body.to_string())
            }
        }
    }

    /// Bytes that a `tiger serve` has in memory, where its system tells: with many rounds a soak.
    async fn resident_bytes(&self) -> Result<Option<u64>, Failure> {
        let body = Connection::new(&self.server).ask(&self.server.get("/metrics")).await?;
        let text = String::from_utf8_lossy(&body);
        let value = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
        Ok(value.and_then(|value| value.trim().parse::<f64>().ok()).map(|bytes| bytes as u64))
    }

    /// Asks once; gives the prompt's length as the server counts it.
    async fn prompt_tokens(&self) -> Result<u64, Failure> {
        let body = Connection::new(&self.server).ask(&self.request()).await?;
        let answer: Value = serde_json::from_slice(&body).map_err(|e| Failure::because("the server's answer is no JSON", e))?;
        let count = match &self.api {
            Api::Tiger { .. } => &answer["usage"]["input_tokens"],
            Api::Llama => &answer["tokens_evaluated"],
        };
        count.as_u64().ok_or_else(|| Failure::new(format!("the server's answer has no count of tokens: {answer}")))
    }
}

/// Words of two letters, each behind a space, that spell the number in base 676.
fn words(number: u64) -> String {
    let mut text = String::new();
    for i in 0..WORDS {
        // Scattered, so that neighbours do not begin alike.
        let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(8 * i as u32) % 676;
        text.push(' ');
        text.push((b'a' + (word / 26) as u8) as char);
        text.push((b'a' + (word % 26) as u8) as char);
    }
    text
}

/// The same for a server that takes token ids.
fn ids(number: u64) -> Vec<u64> {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..WORDS as u32).map(|i| IDS.start + scattered.rotate_left(8 * i) % (IDS.end - IDS.start)).collect()
}

/// Requests/s of this client against a handler that does nothing, in a thread of its own: above it nothing can be measured.
async fn ceiling() -> Result<f64, Failure> {
    let address = trivial::start().map_err(|e| Failure::because("cannot listen on this machine", e))?;
    let target = Arc::new(Target::new(&format!("http://{address}"), Api::Llama)?);
    Ok(load(&target, 16, Duration::from_secs(1)).await?.per_s)
}

async fn load(target: &Arc<Target>, clients: usize, measured: Duration) -> Result<Load, Failure> {
    let from = Instant::now() + WARM;
    let until = from + measured;
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(client(Arc::clone(target), from, until));
    }
    let mut times_ms = Vec::new();
    while let Some(times) = tasks.join_next().await {
        times_ms.extend(times.map_err(|e| Failure::because("a client failed", e))??);
    }
    times_ms.sort_by(f64::total_cmp);
    let at = |share: f64| times_ms.get((times_ms.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    Ok(Load { per_s: times_ms.len() as f64 / measured.as_secs_f64(), p50_ms: at(0.5), p99_ms: at(0.99) })
}

/// One client's answered requests, milliseconds each; those that ended between `from` and `until`.
async fn client(target: Arc<Target>, from: Instant, until: Instant) -> Result<Vec<f64>, Failure> {
    let mut connection = Connection::new(&target.server);
    let mut times_ms = Vec::new();
    loop {
        let request = target.request();
        let began = Instant::now();
        connection.ask(&request).await?;
        let ended = Instant::now();
        if ended >= until {
            return Ok(times_ms);
        }
        if ended >= from {
            times_ms.push(1e3 * ended.duration_since(began).as_secs_f64());
        }
    }
}

/// The median of each number over the rounds.
fn medians(rounds: &[Vec<Load>]) -> Vec<Load> {
    let median = |i: usize, number: fn(&Load) -> f64| {
        let mut numbers: Vec<f64> = rounds.iter().map(|loads| number(&loads[i])).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let count = rounds.first().map_or(0, Vec::len);
    (0..count).map(|i| Load { per_s: median(i, |l| l.per_s), p50_ms: median(i, |l| l.p50_ms), p99_ms: median(i, |l| l.p99_ms) }).collect()
}

fn print(as_json: bool, tokens: &[u64], alone_per_s: f64, loads: &[Load]) -> Result<(), Failure> {
    let servers = tokens.len();
    if as_json {
        let name = |i: usize| if i == 0 { "tiger" } else { "llama-server" };
        let row = |(i, load): (usize, &Load)| {
            json!({
                "server": name(i % servers), "clients": CLIENTS[i / servers], "requests_per_s": load.per_s, "p50_ms": load.p50_ms,
                "p99_ms": load.p99_ms,
            })
        };
        let rows: Vec<Value> = loads.iter().enumerate().map(row).collect();
        return output::json(&json!({"prompt_tokens": tokens, "client_alone_requests_per_s": alone_per_s, "rows": rows}));
    }
    let mut head = vec!["CLIENTS", "REQUESTS/S", "P50 MS", "P99 MS"];
    if servers > 1 {
        head.extend(["LLAMA-SERVER", "P50 MS", "P99 MS", "RATIO", "RATIO OF P99"]);
    }
    let mut table = Table::new(&head);
    let cells = |load: &Load| [format!("{:.0}", load.per_s), format!("{:.2}", load.p50_ms), format!("{:.2}", load.p99_ms)];
    for (clients, row) in CLIENTS.iter().zip(loads.chunks(servers)) {
        let mut line = vec![clients.to_string()];
        line.extend(row.iter().flat_map(cells));
        if let [ours, theirs] = row {
            line.extend([format!("{:.2}", ours.per_s / theirs.per_s), format!("{:.2}", ours.p99_ms / theirs.p99_ms)]);
        }
        table.row(line);
    }
    print!("{table}");
    let tokens: Vec<String> = tokens.iter().map(u64::to_string).collect();
    println!("prompts of {} tokens, one token each; the client alone: {alone_per_s:.0} requests/s", tokens.join(" and "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_distinct_words_and_ids() {
        let mut seen = std::collections::HashSet::new();
        for number in 1..20_000 {
            let text = words(number);
            assert_eq!(text.split(' ').skip(1).map(str::len).collect::<Vec<_>>(), vec![2; WORDS as usize], "{text}");
            let ids = ids(number);
            assert!(ids.iter().all(|id| IDS.contains(id)), "{ids:?}");
            assert!(seen.insert(text) && seen.insert(format!("{ids:?}")), "prompt {number} was there before");
        }
    }

    #[test]
    fn every_request_of_many_clients_is_answered() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let address = trivial::start().expect("a port");
        let target = Arc::new(Target::new(&format!("http://{address}"), Api::Llama).expect("target"));
        assert_eq!(runtime.block_on(target.prompt_tokens()).expect("an answer"), trivial::TOKENS);
        let measured = runtime.block_on(load(&target, 3, Duration::from_millis(50))).expect("answers");
        assert!(measured.per_s > 0.0 && measured.p50_ms <= measured.p99_ms, "{measured:?}");
    }
}
