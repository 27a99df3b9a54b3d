//! adamw (being written).
