//! Measures learning on the built-in model: how many calls and tokens a goal takes, what is forgotten, how far the model goes from its
//! parent, for several tasks, objectives, settings and seeds. Writes one JSON line per look; `plot.py` draws them.
//!
//! ```text
//! cargo run --release -p tiger-learning -- --out learning.jsonl
//! ```
//!
//! Does not judge speed: every number is in calls and tokens.

mod tasks;
mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Parser;
use serde::{Deserialize, Serialize};
use tasks::{Rules, TASKS, Task};
use tiger_engine::{Knobs, Objective, TrainMetrics};
use world::{Error, World};

/// Rank of the adapters, unless it is swept.
const RANK: usize = 16;

#[derive(Parser)]
#[command(about = "Measures learning on the built-in model")]
struct Args {
    /// Tasks, comma-separated; all by default.
    #[arg(long, value_delimiter = ',')]
    tasks: Vec<String>,
    /// tapered, ppo, importance_sampling, sft, reinforce (importance sampling without the pull to the parent).
    #[arg(long, value_delimiter = ',', default_value = "tapered")]
    methods: Vec<String>,
    /// Runs of each, seeds 1 to this.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Settings to try one by one, e.g. `rate=3,10,30` (times the usual), `kl=`, `c=`, `tau=`, `rank=`, `steps=`.
    #[arg(long)]
    sweep: Option<String>,
    /// JSON lines; runs that are whole in it are not done again.
    #[arg(long, default_value = "learning.jsonl")]
    out: PathBuf,
    /// Threads of arithmetic.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Fewer calls than the tasks say.
    #[arg(long)]
    calls: Option<u32>,
    /// Folder of the built-in model.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/nano"))]
    model: PathBuf,
    /// Only prints the table of what is in the file.
    #[arg(long)]
    report: bool,
}

/// One look at one run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    task: String,
    method: String,
    seed: u64,
    /// Calls so far.
    call: u32,
    /// Tokens trained so far.
    tokens: u64,
    /// Share of wanted answers to unseen questions, temperature 1.
    good: f64,
    /// Share of right greedy answers to unseen questions.
    right: f64,
    /// Mean of the last call's rewards.
    reward: f64,
    /// KL to the parent, nats per token, in the last call.
    kl: f64,
    /// Entropy, nats per token, in the last call.
    entropy: f64,
    /// The model stopped itself: it had gone too far from its parent.
    #[serde(default)]
    stopped: bool,
    /// The run's last look.
    last: bool,
}

fn main() -> Result<(), Error> {
    let args = Args::parse();
    let mut lines = read(&args.out)?;
    if !args.report {
        let (world, rules) = (World::open(&args.model, args.threads)?, Rules::new()?);
        let chosen = chosen(&args.tasks)?;
        let settings = settings(&args, world.learning_rate())?;
        let mut file = std::fs::File::options().create(true).append(true).open(&args.out)?;
        for task in chosen {
            for (method, knobs, rank) in &settings {
                for seed in 1..=args.seeds {
                    let same = |line: &Line| line.task == task.name && line.method == *method && line.seed == seed;
                    if lines.iter().any(|line| same(line) && line.last) {
                        continue;
                    }
                    let run = Run { world: &world, rules: &rules, task, method, knobs, rank: *rank, seed };
                    let looks = run.run(args.calls.unwrap_or(task.calls).min(task.calls))?;
                    for look in &looks {
                        writeln!(file, "{}", serde_json::to_string(look)?)?;
                    }
                    file.flush()?;
                    lines.extend(looks);
                }
            }
        }
    }
    print!("{}", table(&lines));
    Ok(())
}

fn read(path: &std::path::Path) -> Result<Vec<Line>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => text.lines().map(|line| serde_json::from_str(line).map_err(Error::from)).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Task>, Error> {
    if names.is_empty() {
        return Ok(TASKS.iter().collect());
    }
    let find = |name: &String| TASKS.iter().find(|task| task.name == name).ok_or_else(|| format!("no task is named {name}").into());
    names.iter().map(find).collect()
}

/// Names, knobs and ranks to run.
fn settings(args: &Args, rate: f64) -> Result<Vec<(String, Knobs, usize)>, Error> {
    let mut all = Vec::new();
    for method in &args.methods {
        let mut knobs = Knobs { learning_rate: rate, evaluate: false, ..Knobs::default() };
        knobs.objective = match method.as_str() {
            "tapered" => Objective::Tapered,
            "ppo" => Objective::Ppo,
            "importance_sampling" | "reinforce" => Objective::ImportanceSampling,
            "sft" => Objective::Sft,
            other => return Err(format!("no method is named {other}").into()),
        };
        if method == "reinforce" {
            knobs.kl_coefficient = 0.0;
        }
        let Some(sweep) = &args.sweep else {
            all.push((method.clone(), knobs, RANK));
            continue;
        };
        let (name, values) = sweep.split_once('=').ok_or("a sweep is NAME=VALUE,VALUE")?;
        for value in values.split(',') {
            let (number, mut knobs, mut rank) = (value.parse::<f64>()?, knobs.clone(), RANK);
            match name {
                "rate" => knobs.learning_rate = rate * number,
                "kl" => knobs.kl_coefficient = number,
                "c" => knobs.clip_high = number,
                "kl_limit" => knobs.kl_limit = number,
                "tau" => knobs.negative_floor = number,
                "steps" => knobs.steps = number as u32,
                "rank" => rank = number as usize,
                other => return Err(format!("{other} cannot be swept").into()),
            }
            all.push((format!("{method} {name}={value}"), knobs, rank));
        }
    }
    Ok(all)
}

/// One task, setting and seed.
struct Run<'a> {
    world: &'a World,
    rules: &'a Rules,
    task: &'a Task,
    method: &'a str,
    knobs: &'a Knobs,
    rank: usize,
    seed: u64,
}

impl Run<'_> {
    /// Trains until the goal or the last call; every look.
    fn run(&self, calls: u32) -> Result<Vec<Line>, Error> {
        let Run { world, rules, task, .. } = *self;
        let mut learner = world.learner(self.rank, self.seed);
        let mut looks = vec![self.line(0, 0, task.look(world, &learner, rules, self.seed)?, &TrainMetrics::default())];
        let mut tokens = 0;
        for call in 1..=calls {
            let groups = task.groups(world, &learner, rules, (self.seed, call))?;
            let metrics = world.train(&mut learner, groups, self.knobs)?;
            tokens += metrics.trained_tokens as u64;
            let stopped = metrics.reason.as_deref() == Some("far_from_parent");
            if call % task.look_every() == 0 || call == calls || stopped {
                let line = self.line(call, tokens, task.look(world, &learner, rules, self.seed)?, &metrics);
                let reached = task.goal.is_some_and(|goal| line.good >= goal);
                looks.push(line);
                if reached || stopped {
                    break;
                }
            }
        }
        if let Some(last) = looks.last_mut() {
            last.last = true;
            eprintln!(
                "{:14} {:28} seed {}: {:4} calls, {:.3} as wanted, {:.3} right, KL {:.3}{}",
                last.task,
                last.method,
                last.seed,
                last.call,
                last.good,
                last.right,
                last.kl,
                if last.stopped { ", stopped itself" } else { "" }
            );
        }
        Ok(looks)
    }

    fn line(&self, call: u32, tokens: u64, look: tasks::Look, metrics: &TrainMetrics) -> Line {
        Line {
            task: self.task.name.to_owned(),
            method: self.method.to_owned(),
            seed: self.seed,
            call,
            tokens,
            good: look.good,
            right: look.right,
            reward: metrics.reward.mean,
            kl: metrics.step.kl_parent,
            entropy: metrics.step.entropy,
            stopped: metrics.reason.as_deref() == Some("far_from_parent"),
            last: false,
        }
    }
}

/// Medians over the seeds, as a Markdown table.
fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| task | method | seeds | at first | reached | calls | tokens | as wanted | right before → after | KL |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for task in &TASKS {
        let mut runs: BTreeMap<&str, Vec<[&Line; 2]>> = BTreeMap::new();
        for last in lines.iter().filter(|line| line.last && line.task == task.name) {
            let first = lines.iter().find(|l| l.call == 0 && l.task == last.task && l.method == last.method && l.seed == last.seed);
            runs.entry(&last.method).or_default().push([first.unwrap_or(last), last]);
        }
        for (method, runs) in runs {
            let median = |of: &dyn Fn(&[&Line; 2]) -> f64| {
                let mut values: Vec<f64> = runs.iter().map(of).collect();
                values.sort_by(f64::total_cmp);
                values[values.len() / 2]
            };
            let reached = match task.goal {
                Some(goal) => format!("{} of {}", runs.iter().filter(|[_, last]| last.good >= goal).count(), runs.len()),
                None => "-".to_owned(),
            };
            text.push_str(&format!(
                "| {} | {method} | {} | {:.0} % | {reached} | {:.0} | {:.0} | {:.0} % | {:.0} → {:.0} % | {:.3} |\n",
                task.name,
                runs.len(),
                100.0 * median(&|[first, _]| first.good),
                median(&|[_, last]| f64::from(last.call)),
                median(&|[_, last]| last.tokens as f64),
                100.0 * median(&|[_, last]| last.good),
                100.0 * median(&|[first, _]| first.right),
                100.0 * median(&|[_, last]| last.right),
                median(&|[_, last]| last.kl),
            ));
        }
    }
    text.push('\n');
    for task in &TASKS {
        text.push_str(&format!("- {}: {}\n", task.name, task.what));
    }
    text
}
