//! The Llama-family decoder: one forward for decode, prefill and training, and its backward for adapters.
//! Knows tensors and pages; no queue, no text, no file but through `formats`.

pub mod adapter;
pub mod batch;
pub mod kv;
pub mod packed;
mod random;
pub mod train;
pub mod weights;

pub use adapter::{Adapter, AdapterGradients, AdapterState, Moments, Record};
pub use batch::{Segment, Step, Workspace};
pub use kv::Kv;
pub use packed::{Loaded, MIN_PACKED_BYTES, PackedFiles};
pub use tiger_kernels::Cpu;
pub use tiger_kernels::ops::attention::{KvType, PAGE_TOKENS, PageId};
pub use tiger_kernels::ops::linear::Precision;
pub use tiger_kernels::ops::logprob::RowScore;
pub use train::{Dropout, HeadGradient, Keep, Saved, Target, TokenWeights, TrainBatch, TrainPass, TrainSegment};
pub use weights::{Model, ModelError};
