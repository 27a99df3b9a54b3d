//! Reproducible choices from a seed: orders and seeds of requests. Not for keys.

/// SplitMix64 (Steele et al. 2014).
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// From a seed; near seeds give unrelated streams.
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64 { state: seed }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A seed made from several numbers.
pub fn mixed(parts: &[u64]) -> u64 {
    parts.iter().fold(0, |seed, part| SplitMix64::new(seed ^ part).next_u64())
}

/// The numbers below `len` in a random order (Fisher–Yates; the bias of the remainder is below len / 2^64).
pub fn order(len: usize, seed: u64) -> Vec<usize> {
    let mut random = SplitMix64::new(seed);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, (random.next_u64() % (last as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_order_has_every_number_once_and_depends_on_the_seed() {
        let mut first = super::order(100, 1);
        assert_ne!(first, super::order(100, 2));
        assert_eq!(first, super::order(100, 1));
        first.sort_unstable();
        assert_eq!(first, (0..100).collect::<Vec<_>>());
        assert!(super::order(0, 1).is_empty());
    }
}
