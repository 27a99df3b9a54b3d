//! `tiger bench`: decode, prefill and training beside the machine's own limits, measured in the same run. Numbers only, no judgement.

use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tiger_formats::{Architecture, Checkpoint, Rope, RopeScaling};
use tiger_kernels::Cpu;
use tiger_kernels::cpu::limits;
use tiger_model::{
    Adapter, AdapterGradients, HeadGradient, Keep, Kv, Model, PAGE_TOKENS, PageId, Precision, Segment, Step, Target, TrainBatch, TrainPass,
    Workspace,
};

use crate::args::Bench;
use crate::failure::Failure;
use crate::output;
use crate::table::Table;

/// Prompt of the decode measurement and length of the prefill measurement, tokens.
const DECODE_PROMPT: usize = 64;
const PREFILL: usize = 512;
/// Tokens decoded per round.
const DECODE: usize = 16;
/// Training: sequences and their length.
const SEQUENCES: usize = 8;
const SEQUENCE: usize = 256;
const RANK: usize = 16;

/// One measured number beside its limit.
struct Row {
    what: String,
    tokens_per_s: f64,
    /// What the machine did, in GB/s or GFLOP/s, and what it can do.
    reached: f64,
    limit: f64,
    unit: &'static str,
}

/// Measures and prints.
pub fn run(args: &Bench, json: bool) -> Result<(), Failure> {
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let cpu = Cpu::new(threads, None);
    eprintln!("making the model ({})", args.model);
    let model = model(&cpu, &args.model, args.precision.into())?;
    let mut rounds: Vec<Vec<Row>> = Vec::new();
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        rounds.push(measure(&cpu, &model, args.train));
    }
    let rows = medians(rounds);
    let resident = resident_bytes();
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| json!({"what": r.what, "tokens_per_s": r.tokens_per_s, "reached": r.reached, "limit": r.limit, "unit": r.unit, "share": r.reached / r.limit}))
            .collect();
        return output::json(&json!({
            "model": args.model, "precision": format!("{:?}", model.precision()), "threads": cpu.threads(), "isa": format!("{:?}", cpu.isa()),
            "weights_bytes": model.bytes(), "peak_resident_bytes": resident, "rows": rows,
        }));
    }
    println!("{} {:?}, {} threads, {:?}", args.model, model.precision(), cpu.threads(), cpu.isa());
    let mut table = Table::new(&["", "TOKENS/S", "REACHED", "LIMIT", "SHARE"]);
    for r in rows {
        let cells = [
            r.what,
            format!("{:.1}", r.tokens_per_s),
            format!("{:.1} {}", r.reached, r.unit),
            format!("{:.1} {}", r.limit, r.unit),
            format!("{:.0} %", 100.0 * r.reached / r.limit),
        ];
        table.row(cells);
    }
    print!("{table}");
    println!("weights {}, peak resident {}", output::bytes(model.bytes()), output::bytes(resident));
    Ok(())
}

fn model(cpu: &Cpu, name: &str, precision: Precision) -> Result<Model, Failure> {
    if let Some(architecture) = shape(name) {
        return Ok(Model::synthetic(cpu, &architecture, precision, 1));
    }
    let checkpoint = Checkpoint::open(Path::new(name))
        .map_err(|e| Failure::because(format!("{name} is no shape (1b, 8b, nano) and no checkpoint"), e))?;
    Model::load(cpu, &checkpoint, precision, &mut |_| {}).map_err(|e| Failure::because(name, e))
}

/// The shapes of Llama-3.2-1B, Llama-3.1-8B and Tiger-Nano.
fn shape(name: &str) -> Option<Architecture> {
    let (hidden, layers, heads, kv_heads, head_dim, ffn, vocab, tied) = match name {
        "1b" => (2048, 16, 32, 8, 64, 8192, 128_256, true),
        "8b" => (4096, 32, 32, 8, 128, 14_336, 128_256, false),
        "nano" => (256, 4, 4, 2, 64, 704, 2048, true),
        _ => return None,
    };
    let rope = Rope { theta: 500_000.0, scaling: RopeScaling::None };
    Some(Architecture {
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        ffn,
        vocab,
        norm_eps: 1e-5,
        rope,
        context_length: 131_072,
        tied,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
    })
}

fn measure(cpu: &Cpu, model: &Model, train: bool) -> Vec<Row> {
    let a = model.architecture();
    let table = (a.vocab * a.hidden) as f64;
    // Parameters that a token multiplies: all but an embedding table that is only looked up.
    let head = table;
    let inner = a.parameters() as f64 - if a.tied { table } else { 2.0 * table };
    let (prefill_s, decode_s) = time_sampling(cpu, model);
    let peak = limits::peak_flops(cpu, model.precision());
    let bandwidth = limits::read_bandwidth(cpu);
    let looked_up = if a.tied { 0.0 } else { table * if model.precision() == Precision::F32 { 4.0 } else { 2.0 } };
    let read = model.bytes() as f64 - looked_up;
    let mut rows = vec![
        Row {
            what: format!("prefill {PREFILL}"),
            tokens_per_s: PREFILL as f64 / prefill_s,
            reached: 2.0 * (inner * PREFILL as f64 + head) / prefill_s / 1e9,
            limit: peak,
            unit: "GFLOP/s",
        },
        Row {
            what: "decode, 1 stream".into(),
            tokens_per_s: DECODE as f64 / decode_s,
            reached: read * DECODE as f64 / decode_s / 1e9,
            limit: bandwidth,
            unit: "GB/s",
        },
    ];
    if train {
        for (keep, what) in [(Keep::All, "train 8 × 256"), (Keep::LayerInputs, "train, checkpointed")] {
            let seconds = time_training(cpu, model, keep);
            let tokens = (SEQUENCES * SEQUENCE) as f64;
            rows.push(Row {
                what: what.into(),
                tokens_per_s: tokens / seconds,
                reached: 4.0 * (inner + head) * tokens / seconds / 1e9,
                limit: peak,
                unit: "GFLOP/s",
            });
        }
    }
    rows
}

/// Seconds of one prefill of [`PREFILL`] tokens and of [`DECODE`] single tokens after [`DECODE_PROMPT`].
fn time_sampling(cpu: &Cpu, model: &Model) -> (f64, f64) {
    let pages: Vec<PageId> = (0..(PREFILL / PAGE_TOKENS) as u32).map(PageId).collect();
    let (mut kv, mut workspace, mut logits) = (Kv::new(model, pages.len()), Workspace::default(), Vec::new());
    let vocab = model.architecture().vocab as u32;
    let mut step = |start: usize, count: usize| {
        let tokens: Vec<u32> = (start..start + count).map(|i| (i as u32 * 7919) % vocab).collect();
        let segments = [Segment { rows: 0..count, start, pages: &pages, adapter: None }];
        let hidden = model.forward(cpu, &mut kv, &Step { tokens: &tokens, segments: &segments, outputs: &[count - 1] }, &mut workspace);
        model.logits(cpu, &hidden, &mut logits);
    };
    step(0, PREFILL);
    let started = Instant::now();
    step(0, PREFILL);
    let prefill = started.elapsed().as_secs_f64();
    step(0, DECODE_PROMPT);
    let started = Instant::now();
    for i in 0..DECODE {
        step(DECODE_PROMPT + i, 1);
    }
    (prefill, started.elapsed().as_secs_f64())
}

/// Seconds of forward, scores, backward and nothing else; AdamW on the adapter is a thousandth of it.
fn time_training(cpu: &Cpu, model: &Model, keep: Keep) -> f64 {
    let vocab = model.architecture().vocab as u32;
    let mut batch = TrainBatch::default();
    for s in 0..SEQUENCES {
        let first = s * SEQUENCE;
        batch.tokens.extend((0..SEQUENCE as u32).map(|i| (i * 7919 + s as u32 * 31) % vocab));
        batch.sequences.push(first..first + SEQUENCE);
        batch.targets.extend((0..SEQUENCE).map(|i| Target { row: first + i, token: (i as u32 * 17) % vocab }));
    }
    let adapter = Adapter::new(model.architecture(), RANK, 2.0 * RANK as f32, 1);
    let (mut gradients, mut workspace) = (AdapterGradients::zeros(&adapter), Workspace::default());
    let pass = TrainPass { model, cpu, batch: &batch, adapter: Some(&adapter), dropout: None };
    let coefficients = vec![-1e-3; batch.targets.len()];
    let started = Instant::now();
    let saved = pass.forward(keep, &mut workspace);
    let scores = model.score(cpu, &saved.hidden, &batch.targets, &mut workspace);
    pass.backward(saved, &HeadGradient { scores: &scores, coefficients: &coefficients, kl: None }, &mut gradients, &mut workspace);
    started.elapsed().as_secs_f64()
}

/// The median of each row over the rounds, by share of the limit of the same moment.
fn medians(mut rounds: Vec<Vec<Row>>) -> Vec<Row> {
    let count = rounds.first().map_or(0, Vec::len);
    let mut rows = Vec::new();
    for _ in 0..count {
        let mut column: Vec<Row> = rounds.iter_mut().map(|rows| rows.remove(0)).collect();
        column.sort_by(|x, y| (x.reached / x.limit).total_cmp(&(y.reached / y.limit)));
        rows.push(column.remove(column.len() / 2));
    }
    rows
}

/// Largest resident set so far, from the kernel.
fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}
