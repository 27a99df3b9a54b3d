//! The optimizer's step, the squared norm of a gradient and the check for overflow. Knows no schedule and no adapter.

use crate::Cpu;
use crate::simd::{LANES, Simd, dispatch};

use super::rows::{Shared, split};

/// AdamW with decoupled weight decay (Loshchilov and Hutter, 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Decay of the weights per step and unit of learning rate.
    pub weight_decay: f32,
    /// This step's number, from 1.
    pub step: u64,
}

/// A tensor and its moments, all of one length.
#[derive(Debug)]
pub struct Moments<'a> {
    /// The parameters.
    pub p: &'a mut [f32],
    /// First moment.
    pub m: &'a mut [f32],
    /// Second moment.
    pub v: &'a mut [f32],
}

/// One step on `state` with gradient `g · gradient_scale`.
///
/// # Panics
/// When the lengths differ or `step` is 0.
pub fn adamw(cpu: &Cpu, state: Moments, g: &[f32], gradient_scale: f32, options: &AdamW) {
    let n = g.len();
    let Moments { p, m, v } = state;
    assert!(p.len() == n && m.len() == n && v.len() == n, "adamw: parameters, moments and gradient have one length");
    assert!(options.step > 0, "adamw: steps count from 1");
    let factors = Factors::new(gradient_scale, options);
    let (p, m, v) = (Shared::new(p), Shared::new(m), Shared::new(v));
    split(cpu, n.div_ceil(LANES), 4 * LANES, &|blocks| {
        let range = blocks.start * LANES..(blocks.end * LANES).min(n);
        // SAFETY: every block is written by one task.
        let state = unsafe { [p.slice(range.clone()), m.slice(range.clone()), v.slice(range.clone())] };
        step_block(cpu.isa(), state, &g[range], &factors);
    });
}

/// What is the same for every element.
struct Factors {
    gradient_scale: f32,
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    keep: f32,
    step_size: f32,
    second_correction: f32,
}

impl Factors {
    fn new(gradient_scale: f32, o: &AdamW) -> Factors {
        // Powers by repeated squaring: the system's `powf` may change in its last bits.
        let correction = |beta: f32| 1.0 - power(f64::from(beta), o.step);
        Factors {
            gradient_scale,
            beta1: o.beta1,
            beta2: o.beta2,
            epsilon: o.epsilon,
            keep: 1.0 - o.lr * o.weight_decay,
            step_size: (f64::from(o.lr) / correction(o.beta1)) as f32,
            second_correction: (1.0 / correction(o.beta2)) as f32,
        }
    }
}

fn power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut square, mut rest) = (1.0, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= square;
        }
        square *= square;
        rest >>= 1;
    }
    result
}

dispatch!(fn step_block(state: [&mut [f32]; 3], g: &[f32], factors: &Factors) = step_block_kernel);

#[inline(always)]
unsafe fn step_block_kernel<S: Simd>(state: [&mut [f32]; 3], g: &[f32], f: &Factors) {
    let [p, m, v] = state;
    for i in (0..g.len()).step_by(LANES) {
        let n = LANES.min(g.len() - i);
        // SAFETY: the caller's promise; all four have the same length and lanes i .. i + n are inside.
        unsafe {
            let (pp, pm, pv) = (p.as_mut_ptr().add(i), m.as_mut_ptr().add(i), v.as_mut_ptr().add(i));
            let g = S::mul(S::load_n(g.as_ptr().add(i), n), S::splat(f.gradient_scale));
            let m = S::fma(S::load_n(pm, n), S::splat(f.beta1), S::mul(g, S::splat(1.0 - f.beta1)));
            let v = S::fma(S::load_n(pv, n), S::splat(f.beta2), S::mul(S::mul(g, g), S::splat(1.0 - f.beta2)));
            let root = S::add(S::sqrt(S::mul(v, S::splat(f.second_correction))), S::splat(f.epsilon));
            let kept = S::mul(S::load_n(pp, n), S::splat(f.keep));
            let p = S::fma(S::splat(-f.step_size), S::div(m, root), kept);
            S::store_n(pp, p, n);
            S::store_n(pm, m, n);
            S::store_n(pv, v, n);
        }
    }
}

/// Elements of one partial sum of [`sq_norm`]: fixed, so that the result does not depend on the threads.
const NORM_BLOCK: usize = 4096;

/// Σ g², partial sums of fixed blocks in f32 lanes, blocks added ascending in f64.
pub fn sq_norm(cpu: &Cpu, g: &[f32]) -> f64 {
    let mut partial = vec![0.0f64; g.len().div_ceil(NORM_BLOCK)];
    let count = partial.len();
    let out = Shared::new(&mut partial);
    split(cpu, count, NORM_BLOCK, &|blocks| {
        for b in blocks {
            let block = &g[b * NORM_BLOCK..((b + 1) * NORM_BLOCK).min(g.len())];
            // SAFETY: every element is written by one task.
            unsafe { out.set(b, f64::from(square_sum(cpu.isa(), block))) };
        }
    });
    partial.iter().sum()
}

dispatch!(fn square_sum(g: &[f32]) -> f32 = square_sum_kernel);

#[inline(always)]
unsafe fn square_sum_kernel<S: Simd>(g: &[f32]) -> f32 {
    // SAFETY: the caller's promise; lanes inside the chunks.
    unsafe {
        let mut sum = S::zero();
        for g in g.chunks(LANES) {
            let v = S::load_n(g.as_ptr(), g.len());
            sum = S::fma(v, v, sum);
        }
        S::sum(sum)
    }
}

/// Whether no element is NaN or infinite.
pub fn all_finite(cpu: &Cpu, x: &[f32]) -> bool {
    let bad = std::sync::atomic::AtomicBool::new(false);
    split(cpu, x.len().div_ceil(NORM_BLOCK), NORM_BLOCK, &|blocks| {
        let range = blocks.start * NORM_BLOCK..(blocks.end * NORM_BLOCK).min(x.len());
        // A maximum over the magnitudes' bits instead of an early exit, so that the compiler makes vectors of it.
        let largest = x[range].iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
        if largest >= f32::INFINITY.to_bits() {
            bad.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    !bad.into_inner()
}
