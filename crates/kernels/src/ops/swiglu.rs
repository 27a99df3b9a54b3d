//! swiglu (being written).
