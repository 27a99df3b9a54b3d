//! Rotary position embedding, in place, in the convention of Hugging Face's Llama: a head's first half turns with its second half.
//! Does not know positions or frequency tables: it is given each row's cosines and sines.

use crate::Cpu;
use crate::simd::{LANES, Simd, dispatch};

use super::rows::{RowsMut, Shared, split};

/// Cosine and sine of every row's angles, each \[T, D/2\].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RopeRows {
    /// cos(position · frequency)
    pub cos: Vec<f32>,
    /// sin(position · frequency)
    pub sin: Vec<f32>,
}

/// Direction of the rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// By the angle.
    Forward,
    /// By minus the angle: the gradient of `Forward`.
    Backward,
}

/// Heads that lie next to each other in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// H
    pub count: usize,
    /// D, even
    pub size: usize,
}

/// Turns `heads.count · heads.size` columns of every row of `x` that `rows` has angles for:
/// (a, b) → (a·cos − b·sin, b·cos + a·sin), a from the head's first half, b from its second.
///
/// # Panics
/// When the shapes disagree or the head size is odd.
pub fn rope(cpu: &Cpu, x: RowsMut, heads: Heads, rows: &RopeRows, turn: Turn) {
    let half = heads.size / 2;
    assert!(heads.size.is_multiple_of(2) && half > 0, "rope: an even head size");
    assert!(rows.cos.len() == rows.sin.len() && rows.cos.len().is_multiple_of(half), "rope: cos and sin are [T, D/2]");
    let (t, width) = (rows.cos.len() / half, heads.count * heads.size);
    assert!(x.column + width <= x.stride && t * x.stride <= x.data.len(), "rope: x has the rows and columns");
    let (stride, column, out) = (x.stride, x.column, Shared::new(x.data));
    split(cpu, t, width, &|range| {
        for t in range {
            let first = t * stride + column;
            // SAFETY: every row is written by one task.
            let x = unsafe { out.slice(first..first + width) };
            let angles = t * half..(t + 1) * half;
            turn_row(cpu.isa(), x, &rows.cos[angles.clone()], &rows.sin[angles], turn);
        }
    });
}

dispatch!(fn turn_row(x: &mut [f32], cos: &[f32], sin: &[f32], turn: Turn) = turn_row_kernel);

#[inline(always)]
unsafe fn turn_row_kernel<S: Simd>(x: &mut [f32], cos: &[f32], sin: &[f32], turn: Turn) {
    let half = cos.len();
    for head in x.chunks_mut(2 * half) {
        let (a, b) = head.split_at_mut(half);
        for (((a, b), c), s) in a.chunks_mut(LANES).zip(b.chunks_mut(LANES)).zip(cos.chunks(LANES)).zip(sin.chunks(LANES)) {
            let n = c.len();
            // SAFETY: the caller's promise; n lanes of each chunk.
            unsafe {
                let (c, s) = (S::load_n(c.as_ptr(), n), S::load_n(s.as_ptr(), n));
                let s = if turn == Turn::Forward { s } else { S::neg(s) };
                let (va, vb) = (S::load_n(a.as_ptr(), n), S::load_n(b.as_ptr(), n));
                S::store_n(a.as_mut_ptr(), S::fma(va, c, S::neg(S::mul(vb, s))), n);
                S::store_n(b.as_mut_ptr(), S::fma(vb, c, S::mul(va, s)), n);
            }
        }
    }
}
