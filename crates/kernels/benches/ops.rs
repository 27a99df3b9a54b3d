//! Speed of attention and adapters at the shapes of a 1B model (32 heads, 8 key heads, D 64, C 2048), as a share of the f32 peak that
//! is measured right beside each round, by processor time (so that other work on the machine counts less). `tests/ops` checks correctness.
//!
//! `cargo bench -p tiger-kernels --bench ops [-- threads]`

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

const ROUNDS: usize = 7;
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

/// One line: microseconds of a call, GFLOP/s, and the share of the peak per second of processor time.
fn line(cpu: &Cpu, what: &str, flops: f64, mut run: impl FnMut()) {
    run();
    let begin = Instant::now();
    run();
    let calls = (ROUND_SECONDS / begin.elapsed().as_secs_f64()).ceil().clamp(1.0, 10_000.0);
    let (mut micros, mut shares) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (wall, processor) = (Instant::now(), processor_seconds());
        let speed = peak_flops_once(cpu, Precision::F32);
        let peak = speed * wall.elapsed().as_secs_f64() / (processor_seconds() - processor);
        let (wall, processor) = (Instant::now(), processor_seconds());
        for _ in 0..calls as usize {
            run();
        }
        micros.push(1e6 * wall.elapsed().as_secs_f64() / calls);
        shares.push(flops * calls / 1e9 / (processor_seconds() - processor) / peak);
    }
    let micros = median(micros);
    println!("{what:44} {micros:10.1} us {:8.1} GFLOP/s {:4.0} % of peak by processor time", flops / micros / 1e3, 100.0 * median(shares));
}

/// The last `rows` of `context` positions.
fn bench_attention(cpu: &Cpu, kv_type: KvType, context: usize, rows: usize) {
    let shape = AttentionShape { heads: 32, kv_heads: 8, head_dim: 64, scale: 0.125 };
    let (stride, pages) = (shape.qkv_columns(), context.div_ceil(PAGE_TOKENS));
    let mut layer = KvLayer::new(KvShape { kv_heads: 8, head_dim: 64 }, kv_type, pages);
    // A block table in no order.
    let table: Vec<PageId> = (0..pages).map(|i| PageId(((i * 7 + 3) % pages) as u32)).collect();
    let table = if pages.is_multiple_of(7) { (0..pages as u32).map(PageId).collect() } else { table };
    let qkv = values(context * stride);
    let whole = [Segment { rows: 0..context, start: 0, pages: &table }];
    let view = |column| Rows { data: &qkv, stride, column };
    kv_store(cpu, &mut layer, view(2048), view(2560), &whole);
    let segments = [Segment { rows: 0..rows, start: context - rows, pages: &table }];
    let (mut o, mut lse) = (vec![0.0; context * 2048], vec![0.0; context * 32]);
    // Query and key pairs that are seen.
    let pairs = (rows * (2 * context - rows + 1)) as f64 / 2.0;
    let flops = pairs * 32.0 * 64.0 * 4.0;
    line(cpu, &format!("attention {kv_type:?} {rows} rows of {context}"), flops, || {
        let output = AttentionOutput { o: &mut o, lse: &mut lse };
        attention(cpu, &shape, view(0), KvRead { layer: &layer, segments: &segments }, output);
    });
    if rows == context {
        let (d_o, mut dqkv) = (values(context * 2048), vec![0.0; qkv.len()]);
        // Five products of the forward's two: counted once each, though the two passes compute S and dP twice.
        line(cpu, &format!("attention backward {kv_type:?} {rows} rows"), 2.5 * flops, || {
            let saved = AttentionSaved { qkv: view(0), o: &o, lse: &lse, d_o: &d_o };
            attention_backward(cpu, &shape, KvRead { layer: &layer, segments: &whole }, saved, &mut dqkv);
        });
    }
}

fn bench_lora(cpu: &Cpu, [k, n, rank]: [usize; 3], rows: usize) {
    let padded = rank.next_multiple_of(16);
    let pair = LoraPair { k, n, rank, a: values(k * padded), b: values(rank * n) };
    let runs = [LoraRun { rows: 0..rows, pair: &pair, scale: 0.5 }];
    let (x, mut h, mut y) = (values(rows * k), vec![0.0; rows * padded], values(rows * n));
    let flops = 2.0 * (rows * rank * (k + n)) as f64;
    line(cpu, &format!("lora [{k}, {n}] rank {rank}, {rows} rows"), flops, || {
        let h = RowsMut { data: &mut h, stride: padded, column: 0 };
        lora_forward(cpu, &x, &runs, h, RowsMut { data: &mut y, stride: n, column: 0 });
    });
    if rows >= 128 {
        let (mut da, mut db, mut dx) = (vec![0.0; pair.a.len()], vec![0.0; pair.b.len()], vec![0.0; x.len()]);
        let dy = values(rows * n);
        line(cpu, &format!("lora backward [{k}, {n}] rank {rank}, {rows} rows"), 2.0 * flops, || {
            let saved = LoraSaved { x: &x, h: Rows { data: &h, stride: padded, column: 0 }, dy: Rows { data: &dy, stride: n, column: 0 } };
            lora_backward(cpu, &runs[0], saved, LoraGradients { da: &mut da, db: &mut db, dx: Some(&mut dx) });
        });
    }
}

fn main() {
    let threads = std::env::args().skip(1).find_map(|x| x.parse().ok()).unwrap_or(1);
    let cpu = Cpu::new(threads, None);
    println!("{:?}, {threads} threads", cpu.isa());
    for kv_type in [KvType::F32, KvType::Bf16, KvType::Int8] {
        for (context, rows) in [(512, 512), (2048, 2048), (2048, 1), (8192, 1)] {
            bench_attention(&cpu, kv_type, context, rows);
        }
    }
    for rows in [1, 8, 512] {
        bench_lora(&cpu, [2048, 2048, 16], rows);
    }
    bench_lora(&cpu, [2048, 8192, 16], 512);
    bench_lora(&cpu, [2048, 2048, 64], 512);
}
