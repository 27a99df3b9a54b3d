//! Causal attention over a paged key/value cache: one op for decode, chunked prefill and training, forward and backward.
//! Does not know who owns a page or which sequence a segment belongs to.
//!
//! A query row's arithmetic depends on its own position only: keys come in blocks of [`BLOCK_TOKENS`] at absolute positions, each block
//! has its own maximum, exponentials, sum and weighted values, and blocks merge ascending.

mod backward;
mod forward;
mod kv;
mod owners;
mod packed;

use std::ops::Range;

pub use backward::attention_backward;
pub use forward::attention;
pub use kv::{KvLayer, KvShape, KvType, kv_store};

use super::rows::Rows;

/// Positions of one page: the lanes of a vector, so that sixteen keys are scored at once.
pub const PAGE_TOKENS: usize = 16;

/// Keys of one block of the softmax, at absolute positions; changing it changes bits.
pub const BLOCK_TOKENS: usize = 256;

/// A page of the cache, the same in every layer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct PageId(pub u32);

/// Rows of the batch that are consecutive positions of one sequence.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// Rows of the batch.
    pub rows: Range<usize>,
    /// Absolute position of the first row.
    pub start: usize,
    /// Block table: page i holds positions 16·i .. 16·(i + 1); covers `start + rows.len()` positions.
    pub pages: &'a [PageId],
}

impl Segment<'_> {
    /// Position after the last row.
    fn end(&self) -> usize {
        self.start + self.rows.len()
    }
}

/// Heads of the queries and of the keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// H, a multiple of `kv_heads`
    pub heads: usize,
    /// Key/value heads; query head h reads key head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// D
    pub head_dim: usize,
    /// Factor of the scores, usually 1/√D.
    pub scale: f32,
}

impl AttentionShape {
    /// Query heads that share one key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Columns of q, k and v side by side in one row: (H + 2·Hkv)·D.
    pub fn qkv_columns(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// Keys and values to attend to.
#[derive(Clone, Copy, Debug)]
pub struct KvRead<'a> {
    /// The pages.
    pub layer: &'a KvLayer,
    /// Who reads which.
    pub segments: &'a [Segment<'a>],
}

/// Results of the forward; both are kept for the backward.
#[derive(Debug)]
pub struct AttentionOutput<'a> {
    /// \[T, H·D\]
    pub o: &'a mut [f32],
    /// \[T, H\], ln Σ e^score
    pub lse: &'a mut [f32],
}

/// What the backward needs of the forward.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSaved<'a> {
    /// Rotated q, then k, then v side by side from `qkv.column`: H·D, Hkv·D and Hkv·D columns. Only q is read: keys and values come
    /// from the pages, rounded as the forward saw them.
    pub qkv: Rows<'a>,
    /// \[T, H·D\] from [`attention`]
    pub o: &'a [f32],
    /// \[T, H\] from [`attention`]
    pub lse: &'a [f32],
    /// \[T, H·D\], gradient of o
    pub d_o: &'a [f32],
}

/// # Panics
/// When a segment does not fit its pages or the layer.
fn check_segments(shape: &KvShape, layer: &KvLayer, segments: &[Segment]) {
    assert!(layer.shape() == *shape, "attention: the cache has the heads of the model");
    for s in segments {
        let needed = s.end().div_ceil(PAGE_TOKENS);
        assert!(s.pages.len() >= needed, "attention: the block table covers the segment");
        assert!(s.pages[..needed].iter().all(|p| (p.0 as usize) < layer.pages()), "attention: pages of the cache");
    }
}
