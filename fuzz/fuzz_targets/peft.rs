//! Feeds any bytes to the `peft` entry of tiger-formats.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tiger_formats::fuzz::peft(data));
