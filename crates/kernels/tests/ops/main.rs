//! Every op but the linear maps against plain f64 arithmetic, its gradient against differences of that arithmetic,
//! and the exactness rule: the same bits on every instruction set, for any number of threads and rows.

mod adamw;
mod attention;
mod attention_backward;
mod logprob;
mod lora;
mod rows;
mod simd;
mod support;
mod weights;
