//! tiger-client.
