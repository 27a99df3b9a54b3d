//! tiger-store.
