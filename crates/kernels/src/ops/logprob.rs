//! logprob (being written).
