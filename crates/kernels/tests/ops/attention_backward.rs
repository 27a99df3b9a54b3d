//! Attention backward (being written).
