//! Random tensors, devices, tolerances and differences.

use tiger_kernels::{Cpu, Isa};

/// A reproducible stream of numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    /// Between −1 and 1.
    pub fn unit(&mut self) -> f32 {
        ((self.bits() >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }
    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
    pub fn scaled(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| scale * self.unit()).collect()
    }
    pub fn shuffled(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}

/// The instruction sets that this machine has.
pub fn isas() -> Vec<Isa> {
    match Isa::detect() {
        Isa::Amx => vec![Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Amx],
        Isa::Avx512 => vec![Isa::Portable, Isa::Avx2, Isa::Avx512],
        Isa::Avx2 => vec![Isa::Portable, Isa::Avx2],
        Isa::NeonDot => vec![Isa::Portable, Isa::Neon, Isa::NeonDot],
        Isa::Neon => vec![Isa::Portable, Isa::Neon],
        Isa::Portable => vec![Isa::Portable],
    }
}

/// Every instruction set and one to three threads.
pub fn devices() -> Vec<Cpu> {
    let mut all = Vec::new();
    for isa in isas() {
        for threads in 1..=3 {
            all.push(Cpu::new(threads, Some(isa)));
        }
    }
    all
}

pub fn fast() -> Cpu {
    Cpu::new(2, None)
}

/// Runs `op` on every device and asserts that all give the same bits; returns them.
#[track_caller]
pub fn same_everywhere(op: impl Fn(&Cpu) -> Vec<f32>) -> Vec<f32> {
    let devices = devices();
    let expected = op(&devices[0]);
    for cpu in &devices[1..] {
        assert_same(&op(cpu), &expected, &format!("{:?}, {} threads", cpu.isa(), cpu.threads()));
    }
    expected
}

#[track_caller]
pub fn assert_same(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!(g.to_bits() == e.to_bits() || (g.is_nan() && e.is_nan()), "{what}: element {i} is {g:e}, expected the bits of {e:e}");
    }
}

/// Asserts |got − expected| ≤ tolerance · (1 + |expected|).
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}: lengths");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*g) - e).abs();
        assert!(error <= tolerance * (1.0 + e.abs()), "{what}: element {i} is {g:e}, expected {e:e}, error {error:e}");
    }
}

pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// d loss / d x by central differences in f64.
pub fn differences(x: &[f64], loss: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-5;
    let mut at = x.to_vec();
    (0..x.len())
        .map(|i| {
            at[i] = x[i] + STEP;
            let above = loss(&at);
            at[i] = x[i] - STEP;
            let below = loss(&at);
            at[i] = x[i];
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// Σ a·b
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
