//! The arithmetic: every op of the decoder, forward and backward, on a CPU.
//! Reads no files, knows no model, no sequence and no queue.
//!
//! Letters: B batch, T tokens, C channels, H heads, D head size, F ffn, V vocab, R rank, K reduced and N produced dimension of a linear map.
//! All activations are f32, row-major. An output element's value depends on its own row, the weights and absolute positions only:
//! never on the number of rows, threads or the place in the batch (ARCHITECTURE.md, invariant 10).

pub mod cpu;
pub mod ops;
pub mod simd;

pub use cpu::{Cpu, Isa};
