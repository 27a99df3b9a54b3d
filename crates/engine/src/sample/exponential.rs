//! eˣ for x ≤ 0 over long rows, in plain Rust that compilers turn into vectors, with the same bits on every machine.
//! Only the sampler's weights use it; log-probs come from the kernels.

/// 1.5 · 2²³: adding it rounds a small f32 to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// Below it eˣ is not a normal f32: taken as 0.
const LOWEST: f32 = -87.0;

/// Elements whose weights are summed in f32 before the sum goes on in f64.
pub const BLOCK: usize = 256;

/// eˣ for x ≤ 0, relative error about 2e-7; 0 below −87 (−∞ too). Products and sums are rounded one by one: no machine may fuse them.
#[inline]
pub fn exp(x: f32) -> f32 {
    let clamped = if x > LOWEST { x } else { LOWEST };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts (Cody and Waite), so that n · ln 2 is exact enough.
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    // Taylor series of eʳ, |r| ≤ 0.35: the seventh power is below 1.3e-7.
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.666_666_7e-1 + r * (4.166_666_8e-2 + r * (8.333_334e-3 + r * 1.388_888_9e-3)))));
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let value = p * f32::from_bits(exponent << 23);
    if x > LOWEST { value } else { 0.0 }
}

/// Σ eˣ of one block with x = (z − maximum) · scale over z ≥ floor, in eight fixed lanes.
#[inline]
pub fn block_sum(block: &[f32], maximum: f32, scale: f32, floor: f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    let mut chunks = block.chunks_exact(8);
    for chunk in &mut chunks {
        for (lane, z) in lanes.iter_mut().zip(chunk) {
            *lane += if *z >= floor { exp((z - maximum) * scale) } else { 0.0 };
        }
    }
    for (lane, z) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += if *z >= floor { exp((z - maximum) * scale) } else { 0.0 };
    }
    lanes.iter().sum()
}
