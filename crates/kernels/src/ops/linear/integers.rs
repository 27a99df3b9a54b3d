//! Weights rounded to integers with one scale per row and group of K: sixteen rows side by side in the lanes of a vector, so that no sum
//! runs across lanes and a row's result depends on that row alone. Does not know where values come from.
//!
//! A lane whose group holds a value that is not finite, or none to speak of, runs along on zeros and gets its scale afterwards.

use std::mem::MaybeUninit;

use super::encode::{SMALLEST_MAGNITUDE, bf16_bits, bf16_bits_up, bf16_value};
use super::weight::{GROUP, PANEL};
use crate::simd::{LANES, Simd, dispatch};

/// A group of sixteen rows: `[GROUP][LANES]`.
pub(super) type Values = [f32; GROUP * LANES];

/// x + MAGIC has x in its lowest bits, rounded to the nearest with ties to even: 1.5 · 2²³, where floats lie 1 apart.
const MAGIC: f32 = 12_582_912.0;

/// Scales above the smallest one that are tried for int8, each the next bf16: 2 to this power.
const INT8_SEARCH_BITS: i32 = 3;
/// Guesses for int4, and their distance in units of the last place of the largest value; the middle one is the usual scale.
const INT4_GUESSES: i32 = 17;
const INT4_STEP: f32 = 0.1;
const INT4_FIRST: f32 = 8.0 - (INT4_GUESSES / 2) as f32 * INT4_STEP;
/// Bits of a float that hold which guess it belongs to: 2⁻¹⁸ of the value, so that the best guess is a maximum without a comparison.
const INT4_GUESS_BITS: i32 = 5;

dispatch!(
    /// −127 to 127, stored as w + 128: eight words of four values a row, `PANEL` apart; a row's scale in bf16. Of the smallest scale that
    /// reaches the largest magnitude and the next few, the one that leaves the smallest squared error: where 32 values fall between the steps
    /// is chance, and some scale near by has luck. A value that is not finite makes the scale so, and with it every output.
    pub(super) fn round_int8(values: &Values, words: &mut [MaybeUninit<u32>], scales: &mut [MaybeUninit<u16>]) = int8_kernel
);
dispatch!(
    /// −8 to 7, stored as w + 8: four words of eight values a row, `PANEL` apart; a row's scale in bf16. For each of several guesses the values
    /// are rounded, and the scale that fits them best in the sense of least squares is Σ v q / Σ q²; of all, the one that leaves the smallest
    /// error. The largest magnitude usually goes to −8, so scales have a sign. A value that is not finite makes the scale so, and with it
    /// every output.
    pub(super) fn round_int4(values: &Values, words: &mut [MaybeUninit<u32>], scales: &mut [MaybeUninit<u16>]) = int4_kernel
);

/// Of each lane: the value of largest magnitude with its sign, NaN where a value is not finite.
#[inline(always)]
unsafe fn extremes<S: Simd>(values: &Values) -> [f32; LANES] {
    let mut extremes = [0.0; LANES];
    // SAFETY: the caller's promise; sixteen elements each.
    unsafe {
        let (mut highest, mut lowest, mut poison) = (S::zero(), S::zero(), S::zero());
        for v in values.as_chunks::<LANES>().0 {
            let v = S::load(v.as_ptr());
            highest = S::max(highest, v);
            lowest = S::min(lowest, v);
            // 0, or NaN from an infinity or NaN on.
            poison = S::fma(v, S::zero(), poison);
        }
        let mut low = [0.0; LANES];
        let mut poisons = [0.0; LANES];
        S::store(extremes.as_mut_ptr(), highest);
        S::store(low.as_mut_ptr(), lowest);
        S::store(poisons.as_mut_ptr(), poison);
        for ((high, low), poison) in extremes.iter_mut().zip(low).zip(poisons) {
            *high = if poison.is_nan() {
                f32::NAN
            } else if *high >= -low {
                *high
            } else {
                low
            };
        }
    }
    extremes
}

/// `key` of a float's upper bits, with `guess` in the lower ones: orders like the float.
#[inline(always)]
unsafe fn with_guess<S: Simd, const BITS: i32>(value: S::V, guess: i32) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { S::from_bits(S::add_i(S::shl_i::<BITS>(S::shr_i::<BITS>(S::bits(value))), S::splat_i(guess))) }
}

/// The guess of a key.
#[inline(always)]
unsafe fn guess_of<S: Simd, const BITS: i32>(key: S::V) -> S::I {
    // SAFETY: the caller's promise.
    unsafe {
        let key = S::bits(key);
        S::sub_i(key, S::shl_i::<BITS>(S::shr_i::<BITS>(key)))
    }
}

/// Words of `PER` values each, from the rounded values `t(k)` in their form with `MAGIC`; `order` lists a word's values from the highest bits on.
#[inline(always)]
unsafe fn write_words<S: Simd, const BITS: i32>(
    words: &mut [MaybeUninit<u32>],
    order: &[usize],
    zero: f32,
    mut t: impl FnMut(usize) -> S::V,
) {
    let count = GROUP / order.len();
    assert!(words.len() >= (count - 1) * PANEL + LANES, "a group's words end inside their panel");
    // SAFETY: the caller's promise; sixteen words at a time, inside the length checked above.
    unsafe {
        let lowest = S::bits(S::splat(MAGIC - zero));
        for i in 0..count {
            let mut word = S::splat_i(0);
            for j in order {
                word = S::add_i(S::shl_i::<BITS>(word), S::sub_i(S::bits(t(i * order.len() + j)), lowest));
            }
            S::store(words.as_mut_ptr().add(i * PANEL).cast(), S::from_bits(word));
        }
    }
}

#[inline(always)]
unsafe fn int8_kernel<S: Simd>(values: &Values, words: &mut [MaybeUninit<u32>], scales: &mut [MaybeUninit<u16>]) {
    // SAFETY: the caller's promise; sixteen elements each.
    unsafe {
        let smallest = extremes::<S>(values).map(|extreme| bf16_bits_up(extreme.abs() / 127.0));
        let usable = |bits: u16| (SMALLEST_MAGNITUDE..f32::INFINITY).contains(&bf16_value(bits));
        let start = smallest.map(|bits| if usable(bits) { bf16_value(bits) } else { 1.0 });
        let first = S::load(start.as_ptr());
        let scale_of = |steps: S::I| S::from_bits(S::add_i(S::bits(first), S::shl_i::<16>(steps)));
        let (one, magic) = (S::splat(1.0), S::splat(MAGIC));
        let mut best = S::splat(f32::INFINITY);
        for guess in 0..1 << INT8_SEARCH_BITS {
            let scale = scale_of(S::splat_i(guess));
            let inverse = S::div(one, scale);
            // Two chains: one would wait for itself.
            let mut errors = [S::zero(); 2];
            for (k, v) in values.as_chunks::<LANES>().0.iter().enumerate() {
                let x = S::mul(S::load(v.as_ptr()), inverse);
                let d = S::sub(x, S::sub(S::add(x, magic), magic));
                errors[k % 2] = S::fma(d, d, errors[k % 2]);
            }
            let step = S::div(scale, first);
            let error = S::mul(S::add(errors[0], errors[1]), S::mul(step, step));
            best = S::min(with_guess::<S, INT8_SEARCH_BITS>(error, guess), best);
        }
        let scale = scale_of(guess_of::<S, INT8_SEARCH_BITS>(best));
        let inverse = S::div(one, scale);
        let (low, high) = (S::splat(MAGIC - 127.0), S::splat(MAGIC + 127.0));
        write_words::<S, 8>(words, &[3, 2, 1, 0], 128.0, |k| {
            let x = S::mul(S::load(values.as_ptr().add(k * LANES)), inverse);
            S::min(S::max(S::add(x, magic), low), high)
        });
        let mut chosen = [0.0; LANES];
        S::store(chosen.as_mut_ptr(), scale);
        for ((out, chosen), smallest) in scales.iter_mut().zip(chosen).zip(smallest) {
            out.write(if usable(smallest) { bf16_bits(chosen) } else { smallest });
        }
    }
}

/// Steps in the extreme value that a guess stands for.
#[inline(always)]
unsafe fn int4_steps<S: Simd>(guess: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { S::fma(guess, S::splat(INT4_STEP), S::splat(INT4_FIRST)) }
}

/// MAGIC + q for a value in units of the extreme one. Functions, because a closure is not inlined and would lose the instruction set.
#[inline(always)]
unsafe fn int4_rounded<S: Simd>(x: S::V, steps: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { S::min(S::max(S::fma(x, steps, S::splat(MAGIC)), S::splat(MAGIC - 8.0)), S::splat(MAGIC + 7.0)) }
}

/// Σ x q and Σ q².
#[inline(always)]
unsafe fn int4_sums<S: Simd>(scaled: &Values, steps: S::V) -> (S::V, S::V) {
    // SAFETY: the caller's promise; sixteen elements each.
    unsafe {
        // Two chains each: one would wait for itself.
        let (mut dots, mut squares) = ([S::zero(); 2], [S::zero(); 2]);
        for [a, b] in scaled.as_chunks::<LANES>().0.as_chunks::<2>().0 {
            for (i, x) in [a, b].into_iter().enumerate() {
                let x = S::load(x.as_ptr());
                let q = S::sub(int4_rounded::<S>(x, steps), S::splat(MAGIC));
                dots[i] = S::fma(q, x, dots[i]);
                squares[i] = S::fma(q, q, squares[i]);
            }
        }
        (S::add(dots[0], dots[1]), S::add(squares[0], squares[1]))
    }
}

#[inline(always)]
unsafe fn int4_kernel<S: Simd>(values: &Values, words: &mut [MaybeUninit<u32>], scales: &mut [MaybeUninit<u16>]) {
    // SAFETY: the caller's promise; sixteen elements each.
    unsafe {
        let extremes = extremes::<S>(values);
        let usable = |extreme: f32| extreme.abs() >= SMALLEST_MAGNITUDE;
        // In units in which the extreme value is −1.
        let inverse = extremes.map(|extreme| if usable(extreme) { -1.0 / extreme } else { 0.0 });
        let inverse = S::load(inverse.as_ptr());
        let mut scaled = *values;
        for v in scaled.as_chunks_mut::<LANES>().0 {
            S::store(v.as_mut_ptr(), S::mul(S::load(v.as_ptr()), inverse));
        }
        let mut best = S::zero();
        for guess in 0..INT4_GUESSES {
            let (dot, square) = int4_sums::<S>(&scaled, int4_steps::<S>(S::splat(guess as f32)));
            // Σ x² − Σ (x − s q)² for the best s.
            let gain = S::div(S::mul(dot, dot), square);
            best = S::max(with_guess::<S, INT4_GUESS_BITS>(gain, guess), best);
        }
        // The number of the guess as a float, by MAGIC.
        let magic = S::splat(MAGIC);
        let guess = S::sub(S::from_bits(S::add_i(guess_of::<S, INT4_GUESS_BITS>(best), S::bits(magic))), magic);
        let steps = int4_steps::<S>(guess);
        write_words::<S, 4>(words, &[7, 3, 6, 2, 5, 1, 4, 0], 8.0, |k| int4_rounded::<S>(S::load(scaled.as_ptr().add(k * LANES)), steps));
        let (dot, square) = int4_sums::<S>(&scaled, steps);
        let mut scale = [0.0; LANES];
        S::store(scale.as_mut_ptr(), S::div(dot, square));
        for ((out, scale), extreme) in scales.iter_mut().zip(scale).zip(extremes) {
            let zero_or_nan = if extreme.is_nan() { f32::NAN } else { 0.0 };
            out.write(bf16_bits(if usable(extreme) { -scale * extreme } else { zero_or_nan }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// The chosen scale may be worse than the best by what f32 sums and the bits that a guess takes can hide.
    const TOLERANCE: f64 = 1e-4;

    type Round = fn(Isa, &Values, &mut [MaybeUninit<u32>], &mut [MaybeUninit<u16>]);

    /// Rows of normal values; the last ones are zeros, tiny, huge, and with an infinity and a NaN.
    fn values(seed: u32) -> Values {
        let mut state = seed;
        let mut uniform = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
        };
        let mut values = [0.0; GROUP * LANES];
        for (i, v) in values.iter_mut().enumerate() {
            let (k, lane) = (i / LANES, i % LANES);
            let normal = uniform() + uniform() + uniform() + uniform();
            *v = match lane {
                11 => 0.0,
                12 => normal * 1e-37,
                13 => normal * 1e38,
                14 if k == 7 => f32::NEG_INFINITY,
                15 if k == 31 => f32::NAN,
                _ => normal * 0.02,
            };
        }
        values
    }

    /// Rounds and reads back: scales as floats, integers `[GROUP][LANES]`.
    fn round(round: Round, per_word: usize, values: &Values) -> ([f32; LANES], Vec<i32>) {
        let mut words = [MaybeUninit::new(0u32); 8 * PANEL];
        let mut scales = [MaybeUninit::new(0u16); LANES];
        round(Isa::detect(), values, &mut words, &mut scales);
        // SAFETY: written above.
        let word = |at: usize| unsafe { words[at].assume_init() };
        let q = (0..GROUP * LANES).map(|i| {
            let (k, lane) = (i / LANES, i % LANES);
            let (word, i) = (word(k / per_word * PANEL + lane), k % per_word);
            if per_word == 4 { (word >> (8 * i) & 255) as i32 - 128 } else { (word >> (8 * (i % 4) + i / 4 * 4) & 15) as i32 - 8 }
        });
        // SAFETY: as above.
        (scales.map(|scale| bf16_value(unsafe { scale.assume_init() })), q.collect())
    }

    fn lane(values: &[f32], lane: usize) -> Vec<f64> {
        values[lane..].iter().step_by(LANES).map(|v| f64::from(*v)).collect()
    }

    fn error(values: &[f64], q: impl Iterator<Item = f64>, scale: f64) -> f64 {
        values.iter().zip(q).map(|(v, q)| (v - q * scale).powi(2)).sum()
    }

    #[test]
    fn no_candidate_leaves_less_error() {
        for seed in 0..200 {
            let values = values(seed);
            let (scales, q) = round(round_int8, 4, &values);
            let (scales4, q4) = round(round_int4, 8, &values);
            for l in (0..11).chain([13]) {
                let v = lane(&values, l);
                let max = v.iter().fold(0.0f64, |max, v| max.max(v.abs()));
                let of = |q: &[i32]| q[l..].iter().step_by(LANES).map(|q| f64::from(*q)).collect::<Vec<f64>>();
                let smallest = bf16_bits_up(max as f32 / 127.0);
                let candidates = (0..8).map(|i| f64::from(bf16_value(smallest + i)));
                let best = candidates.map(|s| error(&v, v.iter().map(|v| (v / s).round_ties_even()), s)).fold(f64::INFINITY, f64::min);
                let got = error(&v, of(&q).into_iter(), f64::from(scales[l]));
                assert!(got <= best * (1.0 + TOLERANCE), "int8, seed {seed}, lane {l}: {got:e}, best {best:e}");
                let extreme = v.iter().fold(0.0f64, |e, v| if v.abs() > e.abs() { *v } else { e });
                let candidates = (0..INT4_GUESSES).map(|i| {
                    let step = -extreme / f64::from(INT4_FIRST + i as f32 * INT4_STEP);
                    let q: Vec<f64> = v.iter().map(|v| (v / step).round_ties_even().clamp(-8.0, 7.0)).collect();
                    let scale = v.iter().zip(&q).map(|(v, q)| v * q).sum::<f64>() / q.iter().map(|q| q * q).sum::<f64>();
                    error(&v, q.into_iter(), scale)
                });
                // The scale in bf16 costs a little more.
                let best = candidates.fold(f64::INFINITY, f64::min);
                let size: f64 = v.iter().map(|v| v * v).sum();
                let got = error(&v, of(&q4).into_iter(), f64::from(scales4[l]));
                assert!(
                    got <= best * (1.0 + TOLERANCE) + size * (0.5f64 / 128.0).powi(2),
                    "int4, seed {seed}, lane {l}: {got:e}, best {best:e}"
                );
            }
            for (scales, q) in [(scales, q), (scales4, q4)] {
                assert!(scales[11] == 0.0 && scales[12].abs() < 1e-36 && !scales[14].is_finite() && scales[15].is_nan());
                assert!(lane(&q.iter().map(|q| *q as f32).collect::<Vec<_>>(), 11).iter().all(|q| *q == 0.0));
            }
        }
    }
}
