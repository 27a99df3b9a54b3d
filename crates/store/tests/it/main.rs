//! The store's tests, one module a topic, in one binary.

#![expect(clippy::unwrap_used, reason = "tests and their helpers: a failed step is a failed test")]

mod accounts;
mod blobs;
mod chats;
mod common;
mod controls;
mod crash;
mod keys;
mod locks;
mod models;
mod random;
mod revisions;
mod samples;
mod trains;
