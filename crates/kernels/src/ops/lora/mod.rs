//! Low-rank adapters: y += scale · (x A) B for rows grouped by adapter, forward and backward. Does not know which adapter is whose.
//!
//! Every sum is one fused chain: over ascending K for x A, over ascending r for h B, over ascending rows for dA and dB.

mod backward;
mod forward;
mod product;

use std::ops::Range;

pub use backward::lora_backward;
pub use forward::lora_forward;

use super::rows::Rows;
use crate::simd::LANES;

/// One adapter of one linear map. R' is the rank padded to a multiple of 16 ([`LoraPair::padded_rank`]).
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// K, inputs
    pub k: usize,
    /// N, outputs
    pub n: usize,
    /// R
    pub rank: usize,
    /// \[K\]\[R'\], zero in the padding
    pub a: Vec<f32>,
    /// \[R\]\[N\]
    pub b: Vec<f32>,
}

impl LoraPair {
    /// The rank as it is stored, a multiple of 16.
    pub fn padded_rank(&self) -> usize {
        self.rank.next_multiple_of(LANES)
    }

    /// # Panics
    /// When the factors do not have the shape that the numbers say.
    fn check(&self) {
        assert!(self.k > 0 && self.n > 0 && self.rank > 0, "lora: no dimension is zero");
        assert!(self.a.len() == self.k * self.padded_rank() && self.b.len() == self.rank * self.n, "lora: A is [K, R'], B is [R, N]");
    }
}

/// Consecutive rows that use one adapter.
#[derive(Debug, Clone)]
pub struct LoraRun<'a> {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Their adapter.
    pub pair: &'a LoraPair,
    /// α / R, or what the adapter's file says.
    pub scale: f32,
}

/// What the backward needs of the forward.
#[derive(Debug, Clone, Copy)]
pub struct LoraSaved<'a> {
    /// \[T, K\]
    pub x: &'a [f32],
    /// x A, as [`lora_forward`] left it
    pub h: Rows<'a>,
    /// Gradient of y, the same columns as y's
    pub dy: Rows<'a>,
}

/// Where the backward adds.
#[derive(Debug)]
pub struct LoraGradients<'a> {
    /// Layout of [`LoraPair::a`]; the padding stays 0.
    pub da: &'a mut [f32],
    /// Layout of [`LoraPair::b`]
    pub db: &'a mut [f32],
    /// \[T, K\]; None at the lowest adapted layer, where nobody needs it
    pub dx: Option<&'a mut [f32]>,
}
