//! Files from outside, all untrusted, turned into types that cannot be wrong.
//! Knows no device, no HTTP, no database.

pub mod architecture;

pub use architecture::{Architecture, Rope, RopeScaling};
