//! Feeds any bytes to the `gguf` entry of tiger-formats.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiger_formats::fuzz::gguf(data));
