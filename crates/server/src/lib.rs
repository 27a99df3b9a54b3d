//! tiger-server.
