//! Speed of attention and adapters at the shapes of a 1B model (32 heads, 8 key heads, D 64, C 2048), as a share of the f32 peak that
//! is measured right beside each round, by processor time (so that other work on the machine counts less). `tests/ops` checks correctness.
//!
//! `cargo bench -p tiger-kernels --bench ops [-- threads] [part of a line's name]`
//!
//! To compare two states, keep the executable of each and run them in turns: the least time of a call is noisy in a run, not over many.

use std::time::Instant;

use tiger_kernels::Cpu;
use tiger_kernels::cpu::limits::peak_flops_once;
use tiger_kernels::ops::attention::{
    AttentionOutput, AttentionSaved, AttentionShape, KvLayer, KvRead, KvShape, KvType, PAGE_TOKENS, PageId, Segment, attention,
    attention_backward, kv_store,
};
use tiger_kernels::ops::linear::Precision;
use tiger_kernels::ops::lora::{LoraGradients, LoraPair, LoraRun, LoraSaved, lora_backward, lora_forward};
use tiger_kernels::ops::rows::{Rows, RowsMut};

const ROUNDS: usize = 15;
/// Seconds of one round.
const ROUND_SECONDS: f64 = 0.03;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn processor_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What to run.
struct Bench {
    cpu: Cpu,
    /// Lines whose name has this part.
    part: String,
}

/// What one call does.
#[derive(Clone, Copy)]
struct Work {
    flops: f64,
    /// Bytes read once, where that may be the bound; else 0.
    bytes: f64,
}

impl Bench {
    fn wants(&self, what: &str) -> bool {
        what.contains(&self.part)
    }
}

/// One line: median and least microseconds of a call, speed of the median, and the share of the peak per second of processor time.
fn line(bench: &Bench, what: &str, work: Work, mut run: impl FnMut()) {
    if !bench.wants(what) {
        return;
    }
    run();
    let begin = Instant::now();
    run();
    let calls = (ROUND_SECONDS / begin.elapsed().as_secs_f64()).ceil().clamp(1.0, 10_000.0);
    let (mut micros, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (wall, processor) = (Instant::now(), processor_seconds());
        let speed = peak_flops_once(&bench.cpu, Precision::F32);
        let peak = speed * wall.elapsed().as_secs_f64() / (processor_seconds() - processor);
        let (wall, processor) = (Instant::now(), processor_seconds());
        for _ in 0..calls as usize {
            run();
        }
        micros.push(1e6 * wall.elapsed().as_secs_f64() / calls);
        shares.push(work.flops * calls / 1e9 / (processor_seconds() - processor) / peak);
    }
    let (least, micros) = (micros.iter().copied().fold(f64::INFINITY, f64::min), median(micros));
    let bytes = if work.bytes > 0.0 { format!(" {:5.1} GB/s", work.bytes / micros / 1e3) } else { String::new() };
    let (speed, share) = (work.flops / micros / 1e3, 100.0 * median(shares));
    println!("{what:44} {micros:10.1} us (least {least:10.1}) {speed:6.1} GFLOP/s, {share:3.0} % of peak by processor time{bytes}");
}

/// Positions whose queries, keys and values are made at once.
const CHUNK: usize = 256;

/// The last `rows` of `context` positions.
fn bench_attention(bench: &Bench, kv_type: KvType, context: usize, rows: usize) {
    let cpu = &bench.cpu;
    let (forward, backward) =
        (format!("attention {kv_type:?} {rows} rows of {context}"), format!("attention backward {kv_type:?} {rows} rows"));
    if !bench.wants(&forward) && (rows < context || !bench.wants(&backward)) {
        return;
    }
    let (shape, kv_shape) = (AttentionShape { heads: 32, kv_heads: 8, head_dim: 64, scale: 0.125 }, KvShape { kv_heads: 8, head_dim: 64 });
    let (stride, pages) = (shape.qkv_columns(), context.div_ceil(PAGE_TOKENS));
    let mut layer = KvLayer::new(kv_shape, kv_type, pages);
    // A block table in no order.
    let table: Vec<PageId> = (0..pages).map(|i| PageId(((i * 7 + 3) % pages) as u32)).collect();
    let table = if pages.is_multiple_of(7) { (0..pages as u32).map(PageId).collect() } else { table };
    // The rows of a whole context differ, those of a decode are the same every few: they would take more memory than the cache.
    let qkv = values(rows.max(CHUNK) * stride);
    let view = |column| Rows { data: &qkv, stride, column };
    for start in (0..context).step_by(rows.max(CHUNK)) {
        let part = [Segment { rows: 0..rows.max(CHUNK), start, pages: &table }];
        kv_store(cpu, &mut layer, view(2048), view(2560), &part);
    }
    let segments = [Segment { rows: 0..rows, start: context - rows, pages: &table }];
    let (mut o, mut lse) = (vec![0.0; rows * 2048], vec![0.0; rows * 32]);
    // Query and key pairs that are seen.
    let pairs = (rows * (2 * context - rows + 1)) as f64 / 2.0;
    let flops = pairs * 32.0 * 64.0 * 4.0;
    let bytes = if rows == 1 { (pages * KvLayer::bytes_per_page(kv_shape, kv_type)) as f64 } else { 0.0 };
    line(bench, &forward, Work { flops, bytes }, || {
        let output = AttentionOutput { o: &mut o, lse: &mut lse };
        attention(cpu, &shape, view(0), KvRead { layer: &layer, segments: &segments }, output);
    });
    if rows == context {
        let (d_o, mut dqkv) = (values(context * 2048), vec![0.0; qkv.len()]);
        // Five products of the forward's two: counted once each, though the two passes compute S and dP twice.
        line(bench, &backward, Work { flops: 2.5 * flops, bytes: 0.0 }, || {
            let saved = AttentionSaved { qkv: view(0), o: &o, lse: &lse, d_o: &d_o };
            attention_backward(cpu, &shape, KvRead { layer: &layer, segments: &segments }, saved, &mut dqkv);
        });
    }
}

fn bench_lora(bench: &Bench, [k, n, rank]: [usize; 3], rows: usize) {
    let cpu = &bench.cpu;
    let padded = rank.next_multiple_of(16);
    let pair = LoraPair { k, n, rank, a: values(k * padded), b: values(rank * n) };
    let runs = [LoraRun { rows: 0..rows, pair: &pair, scale: 0.5 }];
    let (x, mut h, mut y) = (values(rows * k), vec![0.0; rows * padded], values(rows * n));
    let flops = 2.0 * (rows * rank * (k + n)) as f64;
    line(bench, &format!("lora [{k}, {n}] rank {rank}, {rows} rows"), Work { flops, bytes: 0.0 }, || {
        let h = RowsMut { data: &mut h, stride: padded, column: 0 };
        lora_forward(cpu, &x, &runs, h, RowsMut { data: &mut y, stride: n, column: 0 });
    });
    if rows >= 128 {
        let (mut da, mut db, mut dx) = (vec![0.0; pair.a.len()], vec![0.0; pair.b.len()], vec![0.0; x.len()]);
        let dy = values(rows * n);
        line(bench, &format!("lora backward [{k}, {n}] rank {rank}, {rows} rows"), Work { flops: 2.0 * flops, bytes: 0.0 }, || {
            let saved = LoraSaved { x: &x, h: Rows { data: &h, stride: padded, column: 0 }, dy: Rows { data: &dy, stride: n, column: 0 } };
            lora_backward(cpu, &runs[0], saved, LoraGradients { da: &mut da, db: &mut db, dx: Some(&mut dx) });
        });
    }
}

fn main() {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|x| x != "--bench").collect();
    let threads = arguments.iter().find_map(|x| x.parse().ok()).unwrap_or(1);
    let part = arguments.iter().find(|x| x.parse::<usize>().is_err()).cloned().unwrap_or_default();
    let bench = Bench { cpu: Cpu::new(threads, None), part };
    println!("{:?}, {threads} threads", bench.cpu.isa());
    for kv_type in [KvType::F32, KvType::Bf16, KvType::Int8] {
        for (context, rows) in [(512, 512), (2048, 2048), (2048, 1), (8192, 1), (32_768, 1)] {
            bench_attention(&bench, kv_type, context, rows);
        }
    }
    for rows in [1, 8, 512] {
        bench_lora(&bench, [2048, 2048, 16], rows);
    }
    bench_lora(&bench, [2048, 8192, 16], 512);
    bench_lora(&bench, [2048, 2048, 64], 512);
}
