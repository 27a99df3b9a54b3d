//! SplitMix64 (Steele et al. 2014): first weights and dropout masks as functions of a seed. Not for sampling, not for secrets.

/// Distance of two states.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The draw after state `value`.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(GAMMA);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The next draw of a stream, in [0, 1).
pub(crate) fn uniform(state: &mut u64) -> f64 {
    let draw = mix(*state);
    *state = state.wrapping_add(GAMMA);
    (draw >> 11) as f64 / (1u64 << 53) as f64
}
