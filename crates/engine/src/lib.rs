//! tiger-engine.
