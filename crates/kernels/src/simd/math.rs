//! exp, sigmoid, silu on vectors and ln on scalars, written once from fused multiply-adds.
//! Own text instead of the system's library, whose last bits change between versions.

use super::Simd;

/// 1.5 · 2²³: adding it rounds a small f32 to the nearest integer, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;

/// eˣ, about 1 ulp. −∞ and below −104 give 0, above 88.73 gives +∞, NaN stays NaN.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, then eʳ by its minimax polynomial and 2ⁿ in two steps (so that denormal results are rounded once).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        // The variable stands second: both min and max return their second argument when one is NaN.
        let x = S::min(S::splat(89.0), S::max(S::splat(-104.0), x));
        let shifted = S::fma(x, S::splat(std::f32::consts::LOG2_E), S::splat(ROUND));
        let n = S::sub(shifted, S::splat(ROUND));
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = S::fma(p, r, S::splat(c));
        }
        let p = S::fma(p, S::mul(r, r), S::add(r, S::splat(1.0)));
        let n = S::sub_i(S::bits(shifted), S::splat_i(ROUND.to_bits().cast_signed()));
        let half = S::shr_i::<1>(n);
        let rest = S::sub_i(n, half);
        S::mul(S::mul(p, power_of_two::<S>(half)), power_of_two::<S>(rest))
    }
}

/// 2ⁿ for −126 ≤ n ≤ 127.
#[inline(always)]
unsafe fn power_of_two<S: Simd>(n: S::I) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { S::from_bits(S::shl_i::<23>(S::add_i(n, S::splat_i(127)))) }
}

/// 1 / (1 + e⁻ˣ).
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, exp::<S>(S::neg(x))))
    }
}

/// x / (1 + e⁻ˣ); −∞ gives −0.
///
/// # Safety
/// As [`Simd`].
#[inline(always)]
pub unsafe fn silu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let x = S::max(S::splat(f32::MIN), x);
        S::div(x, S::add(S::splat(1.0), exp::<S>(S::neg(x))))
    }
}

/// Natural logarithm of a positive finite number in f64 (error below 1e-15 + 1e-15·|ln x|); 0 gives −∞, negative and NaN give NaN, +∞ itself.
///
/// ln(m·2ᵉ) = e·ln 2 + 2·artanh((m − 1)/(m + 1)) with √½ ≤ m < √2.
pub fn ln(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return f64::NEG_INFINITY;
    }
    if x.is_infinite() {
        return x;
    }
    // Denormal numbers are lifted first, so that the exponent's field is right.
    let (x, lift) = if x < f64::MIN_POSITIVE { (x * 18_014_398_509_481_984.0, 54) } else { (x, 0) };
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) as i32) - 1023 - lift;
    let mut m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        exponent += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 0.0;
    for odd in (0..11).rev() {
        series = series * square + 1.0 / f64::from(2 * odd + 1);
    }
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// ln Σ eˣ from the maximum and Σ e^(x − maximum).
pub fn log_sum_exp(maximum: f32, sum: f32) -> f32 {
    (f64::from(maximum) + ln(f64::from(sum))) as f32
}
