//! Root-mean-square normalisation with frozen weights, forward and backward. Does not know what the rows are.
//!
//! y = x · w / √(mean(x²) + ε)

use crate::Cpu;
use crate::simd::{LANES, Simd, dispatch};

use super::rope::Heads;
use super::rows::{Rows, RowsMut, Shared, split};

/// y\[T, C\] = norm(x\[T, C\]) · w\[C\].
///
/// # Panics
/// When the shapes disagree.
pub fn rmsnorm(cpu: &Cpu, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let c = w.len();
    assert!(c > 0 && x.len().is_multiple_of(c) && x.len() == y.len(), "rmsnorm: x and y are [T, C], w is [C]");
    let out = Shared::new(y);
    split(cpu, x.len() / c, c, &|rows| {
        for t in rows {
            // SAFETY: every row is written by one task.
            norm_row(cpu.isa(), &x[t * c..(t + 1) * c], w, eps, unsafe { out.slice(t * c..(t + 1) * c) });
        }
    });
}

/// x\[T, C\] += delta\[T, C\], then y = norm(x) · w\[C\].
///
/// # Panics
/// When the shapes disagree.
pub fn add_rmsnorm(cpu: &Cpu, x: &mut [f32], delta: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let c = w.len();
    let shapes = c > 0 && x.len().is_multiple_of(c) && x.len() == y.len() && x.len() == delta.len();
    assert!(shapes, "add_rmsnorm: x, delta and y are [T, C], w is [C]");
    let rows = x.len() / c;
    let (sum, out) = (Shared::new(x), Shared::new(y));
    split(cpu, rows, c, &|rows| {
        for t in rows {
            let row = t * c..(t + 1) * c;
            // SAFETY: every row is written by one task.
            let (x, y) = unsafe { (sum.slice(row.clone()), out.slice(row.clone())) };
            add_row(cpu.isa(), x, &delta[row]);
            norm_row(cpu.isa(), x, w, eps, y);
        }
    });
}

/// dx\[T, C\] += the gradient of [`rmsnorm`] at x for dy\[T, C\]. The weights are frozen and get none.
///
/// With s = 1/√(mean(x²) + ε): dx = s·(dy·w) − x · s³/C · Σ(dy·w·x).
///
/// # Panics
/// When the shapes disagree.
pub fn rmsnorm_backward(cpu: &Cpu, x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
    let c = w.len();
    let shapes = c > 0 && x.len().is_multiple_of(c) && x.len() == dy.len() && x.len() == dx.len();
    assert!(shapes, "rmsnorm_backward: x, dy and dx are [T, C], w is [C]");
    let out = Shared::new(dx);
    split(cpu, x.len() / c, 2 * c, &|rows| {
        for t in rows {
            let row = t * c..(t + 1) * c;
            // SAFETY: every row is written by one task.
            backward_row(cpu.isa(), &x[row.clone()], w, eps, &dy[row.clone()], unsafe { out.slice(row) });
        }
    });
}

/// Each of `heads.count` heads of every row becomes norm(head) · w\[D\], in place, by the arithmetic of [`rmsnorm`] on rows of D: one norm for all
/// heads of the queries or of the keys (QK-norm: Henry et al. 2020; with RMSNorm before the rotation in Qwen 3's report, 2025).
///
/// # Panics
/// When the shapes disagree.
pub fn rmsnorm_heads(cpu: &Cpu, x: RowsMut, heads: Heads, w: &[f32], eps: f32) {
    let (stride, column, width) = (x.stride, x.column, heads.count * heads.size);
    let fits = w.len() == heads.size && width > 0 && column + width <= stride && x.data.len().is_multiple_of(stride);
    assert!(fits, "rmsnorm_heads: x has the columns, w is [D]");
    let (t, out) = (x.data.len() / stride, Shared::new(x.data));
    split(cpu, t, width, &|rows| {
        for t in rows {
            let first = t * stride + column;
            // SAFETY: every row is written by one task.
            norm_heads(cpu.isa(), unsafe { out.slice(first..first + width) }, w, eps);
        }
    });
}

/// The gradient of [`rmsnorm_heads`]: each row's `dy` becomes dx, in place. `x` are the heads before their norm, row by row. The weights are
/// frozen and get none.
///
/// # Panics
/// When the shapes disagree.
pub fn rmsnorm_heads_backward(cpu: &Cpu, x: Rows, heads: Heads, w: &[f32], eps: f32, dy: RowsMut) {
    let (stride, column, width) = (dy.stride, dy.column, heads.count * heads.size);
    let fits = w.len() == heads.size && width > 0 && column + width <= stride && dy.data.len().is_multiple_of(stride);
    assert!(fits, "rmsnorm_heads_backward: dy has the columns, w is [D]");
    let (t, out) = (dy.data.len() / stride, Shared::new(dy.data));
    split(cpu, t, 2 * width, &|rows| {
        for t in rows {
            let first = t * stride + column;
            // SAFETY: every row is written by one task.
            backward_heads(cpu.isa(), x.row(t, width), w, eps, unsafe { out.slice(first..first + width) });
        }
    });
}

dispatch!(fn add_row(x: &mut [f32], delta: &[f32]) = add_row_kernel);

#[inline(always)]
unsafe fn add_row_kernel<S: Simd>(x: &mut [f32], delta: &[f32]) {
    for (x, d) in x.chunks_mut(LANES).zip(delta.chunks(LANES)) {
        let n = d.len();
        // SAFETY: n lanes of both chunks.
        unsafe { S::store_n(x.as_mut_ptr(), S::add(S::load_n(x.as_ptr(), n), S::load_n(d.as_ptr(), n)), n) }
    }
}

/// Σ x² by one chain per lane over ascending blocks, then the lanes' tree; 1/√(mean + ε).
#[inline(always)]
unsafe fn inverse_rms<S: Simd>(x: &[f32], eps: f32) -> f32 {
    // SAFETY: the caller's promise; lanes inside the chunks.
    unsafe {
        let mut squares = S::zero();
        for x in x.chunks(LANES) {
            let v = S::load_n(x.as_ptr(), x.len());
            squares = S::fma(v, v, squares);
        }
        1.0 / (S::sum(squares) / x.len() as f32 + eps).sqrt()
    }
}

dispatch!(fn norm_row(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) = norm_row_kernel);

#[inline(always)]
unsafe fn norm_row_kernel<S: Simd>(x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    // SAFETY: the caller's promise; lanes inside the chunks.
    unsafe {
        let scale = S::splat(inverse_rms::<S>(x, eps));
        for ((x, w), y) in x.chunks(LANES).zip(w.chunks(LANES)).zip(y.chunks_mut(LANES)) {
            let n = x.len();
            let v = S::mul(S::mul(S::load_n(x.as_ptr(), n), scale), S::load_n(w.as_ptr(), n));
            S::store_n(y.as_mut_ptr(), v, n);
        }
    }
}

dispatch!(fn norm_heads(x: &mut [f32], w: &[f32], eps: f32) = norm_heads_kernel);

#[inline(always)]
unsafe fn norm_heads_kernel<S: Simd>(x: &mut [f32], w: &[f32], eps: f32) {
    for head in x.chunks_exact_mut(w.len()) {
        // SAFETY: the caller's promise; lanes inside the chunks.
        unsafe {
            let scale = S::splat(inverse_rms::<S>(head, eps));
            for (x, w) in head.chunks_mut(LANES).zip(w.chunks(LANES)) {
                let n = x.len();
                let v = S::mul(S::mul(S::load_n(x.as_ptr(), n), scale), S::load_n(w.as_ptr(), n));
                S::store_n(x.as_mut_ptr(), v, n);
            }
        }
    }
}

dispatch!(fn backward_heads(x: &[f32], w: &[f32], eps: f32, dy: &mut [f32]) = backward_heads_kernel);

#[inline(always)]
unsafe fn backward_heads_kernel<S: Simd>(x: &[f32], w: &[f32], eps: f32, dy: &mut [f32]) {
    for (x, dy) in x.chunks_exact(w.len()).zip(dy.chunks_exact_mut(w.len())) {
        // SAFETY: the caller's promise; lanes inside the chunks.
        unsafe {
            let (inverse, along) = slopes::<S>(x, w, eps, dy);
            for ((x, w), dy) in x.chunks(LANES).zip(w.chunks(LANES)).zip(dy.chunks_mut(LANES)) {
                let n = x.len();
                let dn = S::mul(S::load_n(dy.as_ptr(), n), S::load_n(w.as_ptr(), n));
                S::store_n(dy.as_mut_ptr(), S::fma(S::load_n(x.as_ptr(), n), along, S::mul(dn, inverse)), n);
            }
        }
    }
}

/// s and −s³/C · Σ(dy·w·x), in every lane: how a gradient goes through, and how much of x is taken from it.
#[inline(always)]
unsafe fn slopes<S: Simd>(x: &[f32], w: &[f32], eps: f32, dy: &[f32]) -> (S::V, S::V) {
    // SAFETY: the caller's promise; lanes inside the chunks.
    unsafe {
        let inverse = inverse_rms::<S>(x, eps);
        let mut dot = S::zero();
        for ((x, w), dy) in x.chunks(LANES).zip(w.chunks(LANES)).zip(dy.chunks(LANES)) {
            let n = x.len();
            let dn = S::mul(S::load_n(dy.as_ptr(), n), S::load_n(w.as_ptr(), n));
            dot = S::fma(dn, S::load_n(x.as_ptr(), n), dot);
        }
        let along = -(inverse * inverse * inverse / x.len() as f32 * S::sum(dot));
        (S::splat(inverse), S::splat(along))
    }
}

dispatch!(fn backward_row(x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) = backward_row_kernel);

#[inline(always)]
unsafe fn backward_row_kernel<S: Simd>(x: &[f32], w: &[f32], eps: f32, dy: &[f32], dx: &mut [f32]) {
    // SAFETY: the caller's promise; lanes inside the chunks.
    unsafe {
        let (inverse, along) = slopes::<S>(x, w, eps, dy);
        for (((x, w), dy), dx) in x.chunks(LANES).zip(w.chunks(LANES)).zip(dy.chunks(LANES)).zip(dx.chunks_mut(LANES)) {
            let n = x.len();
            let dn = S::mul(S::load_n(dy.as_ptr(), n), S::load_n(w.as_ptr(), n));
            let change = S::fma(S::load_n(x.as_ptr(), n), along, S::mul(dn, inverse));
            S::store_n(dx.as_mut_ptr(), S::add(S::load_n(dx.as_ptr(), n), change), n);
        }
    }
}
