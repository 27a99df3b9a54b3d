//! Tests at the boundary of tiger-formats: one module for each kind of file.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

mod checkpoint;
mod config;
mod constraint;
mod digest;
mod generation;
mod gguf;
mod gguf_read;
mod merge;
mod packed;
mod peft;
mod safetensors;
mod support;
mod template;
mod tokenizer;
