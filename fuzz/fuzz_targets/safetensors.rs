//! Feeds any bytes to the `safetensors` entry of tiger-formats.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiger_formats::fuzz::safetensors(data));
