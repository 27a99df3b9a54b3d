//! eˣ for x ≤ 0 in plain Rust, with the same bits on every machine.
//! Only the sampler's weights of single tokens use it; sums over long rows and log-probs come from the kernels.

/// 1.5 · 2²³: adding it rounds a small f32 to the nearest integer.
const ROUND: f32 = 12_582_912.0;

/// Below it eˣ is not a normal f32: taken as 0.
const LOWEST: f32 = -87.0;

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
