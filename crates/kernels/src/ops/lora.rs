//! lora (being written).
