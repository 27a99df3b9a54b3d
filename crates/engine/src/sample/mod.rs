//! Sampling without tensors: the pages of sequences, shared prefixes, whose turn it is, how a token is drawn from a row of logits.
//! Never imports `train`; the two meet in `worker`.

pub mod draft;
pub mod exponential;
pub mod lane;
pub mod pace;
pub mod pages;
pub mod plan;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
