//! vectors (being written).
