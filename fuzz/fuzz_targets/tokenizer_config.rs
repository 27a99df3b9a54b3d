//! Feeds any bytes to the `tokenizer_config` entry of tiger-formats.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiger_formats::fuzz::tokenizer_config(data));
