//! Tests at the boundary of tiger-formats: one module for each kind of file.

mod checkpoint;
mod config;
mod constraint;
mod digest;
mod generation;
mod peft;
mod safetensors;
mod support;
mod template;
mod tokenizer;
