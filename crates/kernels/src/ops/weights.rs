//! Weights of a softmax summed block by block, for drawing from a long row without sorting it. Draws nothing.

use crate::Isa;
use crate::simd::{LANES, Simd, dispatch, exp};

/// Elements of one sum.
pub const WEIGHT_BLOCK: usize = 256;

/// e⁻⁸⁷: smaller weights count as 0, as the smallest that is a normal f32 with room to spare.
const SMALLEST: f32 = 1.645_812e-38;

/// sums\[i\] = Σ e^((z − maximum) · scale) over the i-th [`WEIGHT_BLOCK`] of `row`, relative error about 1e-6; −∞ counts nothing.
///
/// # Panics
/// When there is not one sum for each block.
pub fn weight_sums(isa: Isa, row: &[f32], maximum: f32, scale: f32, sums: &mut [f32]) {
    assert_eq!(sums.len(), row.len().div_ceil(WEIGHT_BLOCK), "one sum for each block");
    run(isa, row, maximum, scale, sums);
}

dispatch!(fn run(row: &[f32], maximum: f32, scale: f32, sums: &mut [f32]) = kernel);

#[inline(always)]
unsafe fn kernel<S: Simd>(row: &[f32], maximum: f32, scale: f32, sums: &mut [f32]) {
    for (block, sum) in row.chunks(WEIGHT_BLOCK).zip(sums) {
        // SAFETY: the caller's promise; no lane behind the block's end is touched.
        unsafe {
            let (maximum, scale, smallest) = (S::splat(maximum), S::splat(scale), S::splat(SMALLEST));
            let mut total = S::zero();
            for z in block.chunks(LANES) {
                let e = exp::<S>(S::mul(S::sub(S::load_n(z.as_ptr(), z.len()), maximum), scale));
                let e = S::max(S::sub(e, smallest), S::zero());
                total = S::add(total, S::first_n(e, S::zero(), z.len()));
            }
            *sum = S::sum(total);
        }
    }
}
