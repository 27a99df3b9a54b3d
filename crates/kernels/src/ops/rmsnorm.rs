//! rmsnorm (being written).
