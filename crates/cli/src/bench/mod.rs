//! `tiger bench`: decode, prefill and training beside the machine's own limits, measured in the same run, and beside llama.cpp when its
//! binary is given, or PyTorch and PEFT when an interpreter is. Numbers only, no judgement. Knows no kernel and no scheduling: the engine's
//! cost per token is measured elsewhere.

mod beside;
mod engine;
mod http;
mod llama;
mod peft;
mod quality;
mod sampling;
mod shape;
mod speculation;
mod training;

use std::sync::Arc;

use serde_json::json;
use tiger_kernels::Cpu;
use tiger_kernels::cpu::limits;
use tiger_model::{Model, Precision};

use crate::args::{Bench, Global};
use crate::failure::Failure;
use crate::output;
use crate::table::Table;
use llama::Llama;
use peft::{Peft, Step};
use sampling::Sampling;
use speculation::Answer;
use training::Pass;

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// One prompt of so many tokens.
    Prefill(usize),
    /// One token for each of so many streams, over so many adapters (0: the bare base).
    Decode { streams: usize, adapters: usize },
    /// The last tokens of a context of so many.
    Context(usize),
    /// The last page of a prompt of so many tokens, the rest of which is in the cache, against the whole prompt.
    Cached(usize),
    /// A stream through the whole engine, against the same steps done bare.
    Engine,
    /// Answers through the whole engine with drafts, against the same without.
    Drafts { answer: Answer, streams: u32 },
    /// So many streams while a model trains, against the same alone.
    Beside { streams: u32 },
    /// A step of training on so many sequences.
    Train { sequences: usize, pass: Pass },
    /// A training call with responses to one prompt, against the same responses one by one.
    TrainGroup,
}

/// What `tiger bench` always measures, and what `--full` adds.
const SHORT: [Work; 2] = [Work::Prefill(512), Work::Decode { streams: 1, adapters: 0 }];
const FULL: [Work; 9] = [
    Work::Prefill(2048),
    Work::Decode { streams: 8, adapters: 0 },
    Work::Decode { streams: 8, adapters: 4 },
    Work::Decode { streams: 8, adapters: 8 },
    Work::Decode { streams: 16, adapters: 0 },
    Work::Decode { streams: 32, adapters: 0 },
    Work::Context(8192),
    Work::Cached(4096),
    Work::Engine,
];
/// What `--speculation` measures alone.
const DRAFTS: [Work; 6] = [
    Work::Drafts { answer: Answer::Copy, streams: 1 },
    Work::Drafts { answer: Answer::Traps, streams: 1 },
    Work::Drafts { answer: Answer::New, streams: 1 },
    Work::Drafts { answer: Answer::Copy, streams: 8 },
    Work::Drafts { answer: Answer::Traps, streams: 8 },
    Work::Drafts { answer: Answer::New, streams: 8 },
];

impl Work {
    fn name(self) -> String {
        match self {
            Self::Prefill(tokens) => format!("prefill {tokens}"),
            Self::Decode { streams: 1, .. } => "decode, 1 stream".into(),
            Self::Decode { streams, adapters: 0 } => format!("decode, {streams} streams"),
            Self::Decode { streams, adapters } => format!("decode, {streams} over {adapters} adapters"),
            Self::Context(tokens) => format!("decode behind {tokens} tokens"),
            Self::Cached(tokens) => format!("first token, {tokens} cached"),
            Self::Engine => "engine, 1 stream".into(),
            Self::Drafts { answer, streams: 1 } => format!("drafts, {}", answer.name()),
            Self::Drafts { answer, streams } => format!("drafts, {} × {streams}", answer.name()),
            Self::Beside { streams: 1 } => "beside training, 1 stream".into(),
            Self::Beside { streams } => format!("beside training, {streams} streams"),
            Self::Train { sequences, pass } => {
                let how = match pass {
                    Pass::MicroBatches => "",
                    Pass::Whole => ", one pass",
                    Pass::Checkpointed => ", checkpointed",
                };
                format!("train {sequences} × {}{how}", training::SEQUENCE)
            }
            Self::TrainGroup => {
                format!("train {} × ({} + {}), shared", training::GROUP, training::GROUP_PROMPT, training::GROUP_ANSWER)
            }
        }
    }
}

/// One measured number beside its limit.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    work: Work,
    tokens_per_s: f64,
    /// What the machine did, and what it can do. For a cached prompt: its time, and that of the whole; for the engine: the time of a bare
    /// step and draw, and of both in the engine; for drafts: the time of a token with them, and without; for a group: its time, and that of its
    /// responses apart; beside training: the rate then, and alone.
    reached: f64,
    limit: f64,
    unit: &'static str,
    /// Largest resident set while it was measured.
    peak_bytes: u64,
    /// Tokens/s of llama.cpp or PEFT in the same round, and PEFT's memory.
    theirs: Option<f64>,
    their_peak_bytes: Option<u64>,
    /// What the engine's token is made of.
    costs: Option<engine::Costs>,
    /// What a long context takes.
    context: Option<Context>,
    /// What was drafted.
    drafted: Option<engine::Drafted>,
    /// Gaps of streams beside training.
    beside: Option<beside::Beside>,
}

/// Keys and values of a long context.
#[derive(Debug, Clone, Copy)]
struct Context {
    tokens: usize,
    /// As a server counts them.
    kv_bytes: u64,
    /// What the process grew by as they were written.
    resident_bytes: u64,
    /// What a token takes longer than one behind a page.
    seconds: f64,
}

impl Context {
    fn gb_per_s(&self) -> f64 {
        self.kv_bytes as f64 / self.seconds / 1e9
    }
}

impl Row {
    fn new(work: Work, tokens_per_s: f64, [reached, limit]: [f64; 2], unit: &'static str) -> Self {
        Self {
            work,
            tokens_per_s,
            reached,
            limit,
            unit,
            peak_bytes: 0,
            theirs: None,
            their_peak_bytes: None,
            costs: None,
            context: None,
            drafted: None,
            beside: None,
        }
    }

    /// A step of training beside PEFT's two: everything kept, and checkpointed.
    fn beside(self, theirs: Option<[Step; 2]>) -> Self {
        let (Some([kept, checkpointed]), Work::Train { pass, .. }) = (theirs, self.work) else { return self };
        let step = if pass == Pass::Checkpointed { checkpointed } else { kept };
        Self { theirs: Some(step.tokens_per_s), their_peak_bytes: Some(step.peak_bytes), ..self }
    }
}

/// Measures and prints.
pub fn run(args: &Bench, global: &Global) -> Result<(), Failure> {
    let json = global.json;
    if let Some(url) = &args.http {
        return http::run(args, global, url);
    }
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let cpu = Cpu::new(threads, None);
    if let Some(text) = &args.text {
        return quality::run(&cpu, &args.model, args.precision.into(), text, json);
    }
    let llama = args.llama_bench.as_ref().zip(args.llama_model.as_ref()).map(|(bench, model)| Llama::new(bench, model, threads));
    let peft = args.python.as_ref().map(|python| Peft { python: python.clone(), shape: args.model.clone(), threads });
    let works = works(args);
    let mut held = None;
    let mut peak_bytes = 0;
    let mut rounds: Vec<Vec<Row>> = Vec::new();
    for round in 0..args.rounds {
        let mut theirs = None;
        if let Some(peft) = &peft {
            eprintln!("round {} of {}: PyTorch and PEFT", round + 1, args.rounds);
            // It may need all the memory there is.
            held = None;
            theirs = Some(peft.measure(args.sequences)?);
        }
        forget_peak();
        let model = held.take().map_or_else(|| made(&cpu, args), Ok)?;
        let mut rows = Vec::new();
        let mut sampling = Sampling::new(&model);
        for &work in &works {
            eprintln!("round {} of {}: {}", round + 1, args.rounds, work.name());
            peak_bytes = peak_bytes.max(resident_bytes());
            forget_peak();
            let row = measure(&cpu, &model, &mut sampling, work)?;
            rows.push(Row { peak_bytes: resident_bytes(), ..row }.beside(theirs));
        }
        peak_bytes = peak_bytes.max(resident_bytes());
        drop(sampling);
        if let Some(llama) = &llama {
            eprintln!("round {} of {}: llama.cpp", round + 1, args.rounds);
            llama.measure(&mut rows)?;
        }
        rounds.push(rows);
        held = Some(model);
    }
    let Some(model) = held else { return Err(Failure::new("no round, nothing measured")) };
    let printed = Printed { args, cpu: &cpu, model: &model, rows: &medians(&rounds), peak_bytes };
    if json { print_json(&printed) } else { print_table(&printed) }
}

/// Whether the model has such a context, with room for the tokens that are timed.
fn has_context(model: &Model, tokens: usize) -> Result<(), Failure> {
    let (least, most) = (sampling::SHORTEST, model.architecture().context_length);
    if (least..=most).contains(&tokens) {
        return Ok(());
    }
    Err(Failure::new(format!("--context {tokens}: this model's contexts are measured from {least} to {most} tokens")))
}

fn made(cpu: &Cpu, args: &Bench) -> Result<Arc<Model>, Failure> {
    eprintln!("making the model ({})", args.model);
    let model = shape::model(cpu, &args.model, args.precision.into())?;
    if let Some(tokens) = args.context {
        has_context(&model, tokens)?;
    }
    Ok(Arc::new(match args.kv_cache {
        Some(kv) => model.with_kv_type(kv.into()),
        None => model,
    }))
}

fn works(args: &Bench) -> Vec<Work> {
    let mut works = match args.context {
        Some(tokens) => vec![Work::Context(tokens)],
        None if args.beside.is_some() => Vec::new(),
        None if args.speculation => DRAFTS.to_vec(),
        None if args.train && !args.full => Vec::new(),
        None => SHORT.to_vec(),
    };
    works.extend(args.beside.map(|streams| Work::Beside { streams }));
    if args.full {
        works.extend(FULL);
        works.extend(DRAFTS);
    }
    if args.train {
        let sequences = args.sequences as usize;
        // One micro-batch is one pass.
        let passes = [Pass::MicroBatches, Pass::Whole, Pass::Checkpointed].into_iter();
        let passes = passes.filter(|pass| *pass != Pass::Whole || training::micro_batches(sequences) > 1);
        works.extend(passes.map(|pass| Work::Train { sequences, pass }));
        if args.python.is_none() {
            works.push(Work::TrainGroup);
        }
    }
    if let Some(part) = &args.only {
        works.retain(|work| work.name().contains(part));
    }
    works
}

/// What is printed.
struct Printed<'a> {
    args: &'a Bench,
    cpu: &'a Cpu,
    model: &'a Model,
    rows: &'a [Row],
    /// Largest resident set of all that was done.
    peak_bytes: u64,
}

fn print_json(&Printed { args, cpu, model, rows, peak_bytes }: &Printed<'_>) -> Result<(), Failure> {
    let trains = |r: &Row| matches!(r.work, Work::Train { .. });
    let rows: Vec<_> = rows
        .iter()
        .map(|r| {
            json!({
                "what": r.work.name(), "tokens_per_s": r.tokens_per_s, "reached": r.reached, "limit": r.limit, "unit": r.unit,
                "share": r.reached / r.limit, "peak_resident_bytes": r.peak_bytes,
                "llama_tokens_per_s": r.theirs.filter(|_| !trains(r)), "peft_tokens_per_s": r.theirs.filter(|_| trains(r)),
                "peft_peak_resident_bytes": r.their_peak_bytes, "ratio": r.theirs.map(|theirs| r.tokens_per_s / theirs),
                "step_us": r.costs.map(|c| c.step_us), "draw_us": r.costs.map(|c| c.draw_us),
                "engine_overhead_us": r.costs.map(|c| c.overhead_us()), "kv_bytes": r.context.map(|c| c.kv_bytes),
                "kv_resident_bytes": r.context.map(|c| c.resident_bytes), "kv_gb_per_s": r.context.map(|c| c.gb_per_s()),
                "drafted": r.drafted.map(|d| d.tokens), "drafted_right": r.drafted.map(|d| d.right), "gaps": r.beside.map(gaps_json),
            })
        })
        .collect();
    output::json(&json!({
        "model": args.model, "precision": format!("{:?}", model.precision()),
        "kv_cache": format!("{:?}", model.kv_type()), "threads": cpu.threads(), "isa": format!("{:?}", cpu.isa()),
        "weights_bytes": model.bytes(), "peak_resident_bytes": peak_bytes, "rows": rows,
    }))
}

fn gaps_json(b: beside::Beside) -> serde_json::Value {
    let pace = |p: beside::Pace| json!({ "median_ms": 1e3 * p.median_s, "p99_ms": 1e3 * p.p99_s, "largest_ms": 1e3 * p.largest_s });
    json!({ "idle": pace(b.idle), "beside": pace(b.beside), "trained_tokens_per_s": b.trained_per_s })
}

fn print_gaps(row: &Row, beside: &beside::Beside) {
    let beside::Beside { idle, beside, trained_per_s } = beside;
    let times = |p: &beside::Pace| format!("{:.2} ms, 99 % under {:.2}, largest {:.2}", 1e3 * p.median_s, 1e3 * p.p99_s, 1e3 * p.largest_s);
    println!("{}: a token every {}; alone every {}", row.work.name(), times(beside), times(idle));
    println!(
        "largest gap {:.2} x the time between two tokens alone, 99 % under {:.2} x; trained meanwhile {trained_per_s:.1} tokens/s",
        beside.largest_s / idle.median_s,
        beside.p99_s / idle.median_s
    );
}

fn print_table(&Printed { args, cpu, model, rows, peak_bytes }: &Printed<'_>) -> Result<(), Failure> {
    println!("{} {:?}, {} threads, {:?}", args.model, model.precision(), cpu.threads(), cpu.isa());
    let compared = rows.iter().any(|r| r.theirs.is_some());
    let mut head = vec!["", "TOKENS/S", "REACHED", "LIMIT", "SHARE"];
    if args.train {
        head.push("PEAK");
    }
    if compared {
        head.extend([if args.python.is_some() { "PEFT" } else { "LLAMA.CPP" }, "RATIO"]);
    }
    if args.python.is_some() {
        head.push("PEFT'S PEAK");
    }
    let blank = String::new;
    let mut table = Table::new(&head);
    for r in rows {
        let mut cells = vec![
            r.work.name(),
            format!("{:.1}", r.tokens_per_s),
            format!("{:.1} {}", r.reached, r.unit),
            format!("{:.1} {}", r.limit, r.unit),
            format!("{:.0} %", 100.0 * r.reached / r.limit),
        ];
        if args.train {
            cells.push(output::bytes(r.peak_bytes));
        }
        if compared {
            cells.push(r.theirs.map_or_else(blank, |theirs| format!("{theirs:.1}")));
            cells.push(r.theirs.map_or_else(blank, |theirs| format!("{:.2}", r.tokens_per_s / theirs)));
        }
        if args.python.is_some() {
            cells.push(r.their_peak_bytes.map_or_else(blank, output::bytes));
        }
        table.row(cells);
    }
    print!("{table}");
    for costs in rows.iter().filter_map(|r| r.costs) {
        let engine::Costs { step_us, draw_us, engine_us } = costs;
        println!(
            "a token: step {step_us:.1} us, draw {draw_us:.1} us, in the engine {engine_us:.1} us: {:.1} us more",
            costs.overhead_us()
        );
    }
    for (row, drafted) in rows.iter().filter_map(|r| Some((r, r.drafted?))) {
        println!("{}: {} tokens drafted, {} of them right", row.work.name(), drafted.tokens, drafted.right);
    }
    for (row, beside) in rows.iter().filter_map(|r| Some((r, r.beside?))) {
        print_gaps(row, &beside);
    }
    for context in rows.iter().filter_map(|r| r.context) {
        println!(
            "{} tokens: keys and values {}, resident for them {}; read in {:.1} ms a token, at {:.1} GB/s",
            context.tokens,
            output::bytes(context.kv_bytes),
            output::bytes(context.resident_bytes),
            1e3 * context.seconds,
            context.gb_per_s()
        );
    }
    println!("weights {}, peak resident {}", output::bytes(model.bytes()), output::bytes(peak_bytes));
    Ok(())
}

fn measure(cpu: &Cpu, model: &Arc<Model>, sampling: &mut Sampling<'_>, work: Work) -> Result<Row, Failure> {
    let a = model.architecture();
    let table = (a.vocab * a.hidden) as f64;
    // Parameters that a token multiplies: all but an embedding table that is only looked up.
    let inner = a.parameters() as f64 - if a.tied { table } else { 2.0 * table };
    let row = |tokens: f64, seconds: f64, reached: f64, limit: f64, unit| {
        Row::new(work, tokens / seconds, [reached / seconds / 1e9, limit], unit)
    };
    Ok(match work {
        Work::Prefill(tokens) => {
            let seconds = sampling.prefill(cpu, tokens);
            row(tokens as f64, seconds, 2.0 * (inner * tokens as f64 + table), limits::peak_flops(cpu, model.precision()), "GFLOP/s")
        }
        Work::Decode { streams, adapters } => {
            let seconds = sampling.decode(cpu, streams, adapters, sampling::PROMPT) / sampling::DECODED as f64;
            let bandwidth = limits::read_bandwidth(cpu);
            let bytes = read_per_step(model) + sampling.adapter_bytes(adapters);
            // Few rows are bound by memory, many by arithmetic: the limit that is nearer.
            let flops = 2.0 * (inner + table) * streams as f64;
            let peak = limits::peak_flops(cpu, model.precision());
            if flops / peak > bytes / bandwidth {
                row(streams as f64, seconds, flops, peak, "GFLOP/s")
            } else {
                row(streams as f64, seconds, bytes, bandwidth, "GB/s")
            }
        }
        Work::Context(tokens) => {
            let [near, far, grown] = sampling.behind(cpu, tokens);
            let kv_bytes = (model.kv_bytes_per_page() * tokens.div_ceil(tiger_model::PAGE_TOKENS)) as u64;
            let context = Context { tokens, kv_bytes, resident_bytes: grown as u64, seconds: far - near };
            let row = row(1.0, far, read_per_step(model) + kv_bytes as f64, limits::read_bandwidth(cpu), "GB/s");
            Row { context: Some(context), ..row }
        }
        Work::Cached(tokens) => {
            let [whole, last] = sampling.cached(cpu, tokens);
            Row::new(work, 1.0 / last, [1e3 * last, 1e3 * whole], "ms")
        }
        Work::Engine => {
            let costs = engine::costs(cpu, model)?;
            let bare_us = costs.step_us + costs.draw_us;
            Row { costs: Some(costs), ..Row::new(work, 1e6 / costs.engine_us, [bare_us, costs.engine_us], "us") }
        }
        Work::Drafts { answer, streams } => {
            let ([with, without], drafted) = speculation::seconds_per_token(model, cpu.threads(), answer, streams)?;
            Row { drafted: Some(drafted), ..Row::new(work, 1.0 / with, [1e6 * with, 1e6 * without], "us") }
        }
        Work::Beside { streams } => {
            let both = beside::measure(model, cpu.threads(), streams)?;
            let rates = [both.beside, both.idle].map(|pace| pace.tokens_per_s);
            Row { beside: Some(both), ..Row::new(work, rates[0], rates, "tokens/s") }
        }
        Work::TrainGroup => {
            let [together, apart] = training::group_seconds(cpu, model)?;
            let tokens = (training::GROUP * (training::GROUP_PROMPT + training::GROUP_ANSWER)) as f64;
            Row::new(work, tokens / together, [together, apart], "s")
        }
        Work::Train { sequences, pass } => {
            let seconds = training::seconds(cpu, model, sequences, pass)?;
            let tokens = (sequences * training::SEQUENCE) as f64;
            row(tokens, seconds, 4.0 * (inner + table) * tokens, training_peak(cpu, model.precision()), "GFLOP/s")
        }
    })
}

/// Peak of a forward and a backward of as many operations: backwards integers are bf16.
fn training_peak(cpu: &Cpu, precision: Precision) -> f64 {
    let forward = limits::peak_flops(cpu, precision);
    let backward = match precision {
        Precision::F32 | Precision::Bf16 => forward,
        Precision::Int8 | Precision::Int4 => limits::peak_flops(cpu, Precision::Bf16),
    };
    2.0 / (1.0 / forward + 1.0 / backward)
}

/// Bytes of weights that a step reads, however few rows it has.
fn read_per_step(model: &Model) -> f64 {
    let a = model.architecture();
    let per_value = match model.precision() {
        Precision::F32 => 4.0,
        Precision::Bf16 | Precision::Int8 => 2.0,
        Precision::Int4 => 1.0,
    };
    model.bytes() as f64 - if a.tied { 0.0 } else { (a.vocab * a.hidden) as f64 * per_value }
}

/// The median of each row over the rounds, by share of the limit of the same moment; of the ratios likewise.
fn medians(rounds: &[Vec<Row>]) -> Vec<Row> {
    let count = rounds.first().map_or(0, Vec::len);
    (0..count)
        .filter_map(|i| {
            let mut column: Vec<&Row> = rounds.iter().map(|rows| &rows[i]).collect();
            let mut ratios: Vec<f64> = column.iter().filter_map(|r| r.theirs.map(|theirs| theirs / r.tokens_per_s)).collect();
            ratios.sort_by(f64::total_cmp);
            column.sort_by(|x, y| (x.reached / x.limit).total_cmp(&(y.reached / y.limit)));
            let middle = *column.get(column.len() / 2)?;
            let theirs = ratios.get(ratios.len() / 2).map(|ratio| ratio * middle.tokens_per_s);
            Some(Row { theirs, ..middle.clone() })
        })
        .collect()
}

/// Makes the kernel forget the largest resident set so far; where it cannot, all that follows counts what came before.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Largest resident set since [`forget_peak`], from the kernel.
fn resident_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// A size of this process, from the kernel.
fn status_bytes(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
