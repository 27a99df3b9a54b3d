//! Speed of the linear kernels as shares of what the machine can do at that very moment: each round measures the peak, the kernel, and
//! the peak again, and the median of the rounds' shares is printed. Correctness is checked before timing.
//! A second share is by the processor time that each took: on a machine that is busy with other work, only that one means much.
//!
//! `cargo bench -p tiger-kernels --bench linear [-- precision] [threads]`

use std::time::Instant;
use tiger_kernels::Cpu;
use tiger_kernels::cpu::limits::{ReadBuffer, peak_flops_once, read_bandwidth_of};
use tiger_kernels::ops::linear::{Epilogue, Precision, Weight, linear, linear_backward_x};

const SHAPES: [[usize; 2]; 3] = [[2048, 2048], [8192, 2048], [2048, 8192]];
const ROWS: [usize; 7] = [1, 2, 4, 8, 32, 128, 512];
const ROUNDS: usize = 9;
/// Rows up to which memory, not arithmetic, is the limit.
const MEMORY_BOUND_ROWS: usize = 8;

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 2003) as f32 / 1001.0 - 1.0).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Largest difference from an f64 product, on a few outputs, over the size of the output.
fn check(x: &[f32], y: &[f32], rows: impl Fn(usize) -> Vec<f32>, [n, k]: [usize; 2], tolerance: f64) {
    for t in 0..x.len() / k {
        for i in [0, n / 3, n - 1] {
            let products = x[t * k..][..k].iter().zip(rows(i)).map(|(a, b)| f64::from(*a) * f64::from(b));
            let (sum, size) = (products.clone().sum::<f64>(), products.map(|p| p * p).sum::<f64>().sqrt());
            assert!((f64::from(y[t * n + i]) - sum).abs() < tolerance * size, "output {t}, {i}: {} is not {sum}", y[t * n + i]);
        }
    }
}

/// Seconds by the clock, and of processor time of all threads.
#[derive(Clone, Copy)]
struct Times {
    wall: f64,
    processor: f64,
}

impl Times {
    fn now() -> f64 {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec.
        unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
        time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
    }

    fn of<T>(f: impl FnOnce() -> T) -> (T, Times) {
        let (begin, processor) = (Instant::now(), Times::now());
        let value = f();
        (value, Times { wall: begin.elapsed().as_secs_f64(), processor: Times::now() - processor })
    }
}

struct Bench<'a> {
    cpu: &'a Cpu,
    buffer: ReadBuffer,
    /// Several copies, larger than the caches together, so that weights come from memory as in a model.
    weights: Vec<Weight>,
}

impl Bench<'_> {
    /// Prints one line: the median speed, and the median share of the peak beside it.
    fn line(&self, what: &str, rows: usize, mut run: impl FnMut(&Weight)) {
        let w = &self.weights[0];
        let flops = 2.0 * (rows * w.n() * w.k()) as f64 / 1e9;
        let calls = (20.0 / flops).ceil().clamp(1.0, 40.0) as usize;
        let memory = rows <= MEMORY_BOUND_ROWS;
        // Per second, and per second of processor time.
        let peak = || {
            let (speed, times) =
                Times::of(|| if memory { read_bandwidth_of(self.cpu, &self.buffer) } else { peak_flops_once(self.cpu, w.precision()) });
            [speed, speed * times.wall / times.processor]
        };
        let work = if memory { w.bytes() as f64 / 1e9 } else { flops };
        let (mut speeds, mut shares, mut processor_shares, mut seconds) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        run(&self.weights[0]);
        for _ in 0..ROUNDS {
            let before = peak();
            let ((), times) = Times::of(|| {
                for call in 0..calls {
                    run(&self.weights[call % self.weights.len()]);
                }
            });
            let after = peak();
            let [wall, processor] = [times.wall, times.processor].map(|t| work * calls as f64 / t);
            speeds.push(wall);
            shares.push(wall / ((before[0] + after[0]) / 2.0));
            processor_shares.push(processor / ((before[1] + after[1]) / 2.0));
            seconds.push(times.wall / calls as f64);
        }
        println!(
            "{:?} [{}, {}] {what} {rows:4} rows  {:8.1} {}  {:3.0} % of peak, {:3.0} % by processor time  {:9.1} us",
            w.precision(),
            w.n(),
            w.k(),
            median(speeds),
            if memory { "GB/s   " } else { "GFLOP/s" },
            100.0 * median(shares),
            100.0 * median(processor_shares),
            1e6 * median(seconds)
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let threads = arguments.iter().find_map(|a| a.parse().ok()).or(std::thread::available_parallelism().map(usize::from).ok());
    let cpu = Cpu::new(threads.unwrap_or(1), None);
    println!("{:?}, {} threads", cpu.isa(), cpu.threads());
    for precision in [Precision::Bf16, Precision::Int8, Precision::Int4, Precision::F32] {
        let name = format!("{precision:?}").to_lowercase();
        if arguments.iter().any(|a| a.parse::<usize>().is_err() && *a != name) {
            continue;
        }
        for [n, k] in SHAPES {
            let first = Weight::synthetic(&cpu, precision, n, k, 1, 0.02);
            let copies = (128usize << 20).div_ceil(first.bytes());
            let weights = std::iter::once(first).chain((1..copies as u64).map(|s| Weight::synthetic(&cpu, precision, n, k, s + 1, 0.02)));
            let bench = Bench { cpu: &cpu, buffer: ReadBuffer::new(&cpu), weights: weights.collect() };
            for rows in ROWS {
                let (x, mut y) = (values(rows * k), vec![0.0; rows * n]);
                linear(&cpu, &x, &bench.weights[0], &mut y, Epilogue::Store);
                check(
                    &x,
                    &y,
                    |i| row(&bench.weights[0], i),
                    [n, k],
                    match precision {
                        Precision::Int4 => 0.4,
                        Precision::Int8 => 0.1,
                        _ => 0.02,
                    },
                );
                bench.line("forward ", rows, |w| linear(&cpu, &x, w, &mut y, Epilogue::Store));
            }
            for rows in [32, 128, 512] {
                let (dy, mut dx) = (values(rows * n), vec![0.0; rows * k]);
                linear_backward_x(&cpu, &dy, &bench.weights[0], &mut dx, Epilogue::Store);
                let column = |i| (0..n).map(|r| row(&bench.weights[0], r)[i]).collect();
                check(&dy[..n], &dx[..k], column, [k, n], 0.03);
                bench.line("backward", rows, |w| linear_backward_x(&cpu, &dy, w, &mut dx, Epilogue::Store));
            }
        }
    }
}

fn row(w: &Weight, n: usize) -> Vec<f32> {
    let mut out = vec![0.0; w.k()];
    w.row(n, &mut out);
    out
}
