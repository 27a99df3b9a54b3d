//! The `tiger` binary.
fn main() {}
