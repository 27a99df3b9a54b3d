//! Speed of packing a bf16 matrix that lies in memory: millions of weights a second, and what that makes of the shapes of Llama-3.2-1B and
//! Llama-3.1-8B. Without the time of reading the checkpoint.
//!
//! `cargo bench -p tiger-kernels --bench pack [-- threads]`

use std::time::Instant;
use tiger_kernels::Cpu;
use tiger_kernels::ops::linear::{Precision, Raw, RawType, Weight};

const SHAPE: [usize; 2] = [8192, 2048];
const ROUNDS: usize = 5;
/// Weights of the linear maps of the two models, in thousands of millions.
const WEIGHTS_1B: f64 = 1.236;
const WEIGHTS_8B: f64 = 8.030;

fn main() {
    let threads = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    let cpu = Cpu::new(threads, None);
    let [n, k] = SHAPE;
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let bytes: Vec<u8> =
        (0..n * k).flat_map(|_| half::bf16::from_f32((uniform() + uniform() + uniform() + uniform()) * 0.03).to_le_bytes()).collect();
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8, Precision::Int4] {
        let mut best = f64::INFINITY;
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let weight = Weight::pack(&cpu, precision, k, &[Raw { dtype: RawType::Bf16, bytes: &bytes, rows: n }]);
            best = best.min(begin.elapsed().as_secs_f64());
            std::hint::black_box(weight);
        }
        let speed = (n * k) as f64 / best / 1e9;
        println!(
            "{precision:?}, {threads} threads: {:.0} million weights/s; 1B {:.2} s, 8B {:.1} s",
            speed * 1e3,
            WEIGHTS_1B / speed,
            WEIGHTS_8B / speed
        );
    }
}
