//! tiger-model.
