//! rope (being written).
