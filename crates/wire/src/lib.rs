//! tiger-wire.
