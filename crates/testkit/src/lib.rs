//! tiger-testkit.
