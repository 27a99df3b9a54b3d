//! The gated activation of the feed-forward block, forward and backward: y = silu(gate) · up. Knows no weights.

use crate::Cpu;
use crate::simd::{LANES, Simd, dispatch, sigmoid, silu};

use super::rows::{Shared, split};

/// Work of one element against a copy, for the split over threads (an exponential and a division).
const COST: usize = 8;

/// y\[T, F\] = silu(gate) · up, from rows of gate_up\[T, 2F\]: gate first, then up. `f` ≥ 1 is F.
///
/// # Panics
/// When the shapes disagree.
pub fn swiglu(cpu: &Cpu, gate_up: &[f32], f: usize, y: &mut [f32]) {
    assert!(f > 0 && y.len().is_multiple_of(f) && gate_up.len() == 2 * y.len(), "swiglu: gate_up is [T, 2F], y is [T, F]");
    let out = Shared::new(y);
    split(cpu, gate_up.len() / (2 * f), COST * f, &|rows| {
        for t in rows {
            let (gate, up) = gate_up[2 * t * f..2 * (t + 1) * f].split_at(f);
            // SAFETY: every row is written by one task.
            forward_row(cpu.isa(), gate, up, unsafe { out.slice(t * f..(t + 1) * f) });
        }
    });
}

/// gate_up\[T, 2F\] → the gradient of [`swiglu`] for dy\[T, F\], in its place: the widest rows of a layer, of which nobody needs two.
///
/// With σ = sigmoid(gate): dgate = dy · up · σ·(1 + gate·(1 − σ)), dup = dy · gate·σ.
///
/// # Panics
/// When the shapes disagree.
pub fn swiglu_backward(cpu: &Cpu, gate_up: &mut [f32], f: usize, dy: &[f32]) {
    let shapes = f > 0 && dy.len().is_multiple_of(f) && gate_up.len() == 2 * dy.len();
    assert!(shapes, "swiglu_backward: gate_up is [T, 2F], dy is [T, F]");
    let rows = Shared::new(gate_up);
    split(cpu, dy.len() / f, COST * f, &|range| {
        for t in range {
            // SAFETY: every row belongs to one task.
            let (gate, up) = unsafe { rows.slice(2 * t * f..2 * (t + 1) * f) }.split_at_mut(f);
            backward_row(cpu.isa(), &dy[t * f..(t + 1) * f], gate, up);
        }
    });
}

dispatch!(fn forward_row(gate: &[f32], up: &[f32], y: &mut [f32]) = forward_row_kernel);

#[inline(always)]
unsafe fn forward_row_kernel<S: Simd>(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((g, u), y) in gate.chunks(LANES).zip(up.chunks(LANES)).zip(y.chunks_mut(LANES)) {
        let n = g.len();
        // SAFETY: the caller's promise; n lanes of each chunk.
        unsafe { S::store_n(y.as_mut_ptr(), S::mul(silu::<S>(S::load_n(g.as_ptr(), n)), S::load_n(u.as_ptr(), n)), n) }
    }
}

dispatch!(fn backward_row(dy: &[f32], gate: &mut [f32], up: &mut [f32]) = backward_row_kernel);

#[inline(always)]
unsafe fn backward_row_kernel<S: Simd>(dy: &[f32], gate: &mut [f32], up: &mut [f32]) {
    for i in (0..gate.len()).step_by(LANES) {
        let n = LANES.min(gate.len() - i);
        // SAFETY: the caller's promise; all three have the same length and lanes i .. i + n are inside.
        unsafe {
            let one = S::splat(1.0);
            let g = S::max(S::splat(f32::MIN), S::load_n(gate.as_ptr().add(i), n));
            let (u, dy) = (S::load_n(up.as_ptr().add(i), n), S::load_n(dy.as_ptr().add(i), n));
            let sigma = sigmoid::<S>(g);
            let slope = S::mul(sigma, S::fma(g, S::sub(one, sigma), one));
            S::store_n(gate.as_mut_ptr().add(i), S::mul(S::mul(dy, u), slope), n);
            S::store_n(up.as_mut_ptr().add(i), S::mul(dy, S::mul(g, sigma)), n);
        }
    }
}
