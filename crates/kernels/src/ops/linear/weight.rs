//! Packed weights: one layout serves one row, small batches, prefill and the backward pass.
//! Knows how numbers lie in memory, not how they are multiplied.
//!
//! N is cut into panels of 64 rows; inside a panel K runs outside and the 64 rows inside:
//! f32 `[N/64][K][64]` · bf16 `[N/64][K/2][64][2]` · int8 `[N/64][K/4][64][4]` as w + 128, with bf16 scales `[N/64][K/32][64]` ·
//! int4 `[N/64][K/8][64][4 bytes]` as w + 8, byte i holding k = i in its low and k = 4 + i in its high half, with
//! the same scales. N is padded with zero rows, K with zeros up to a multiple of 1, 2, 64 or 64.

use super::encode::{SMALLEST_MAGNITUDE, bf16_bits, bf16_bits_up, bf16_value, max_abs};
use super::{Precision, Raw, RawType};
use crate::cpu::memory::{HugeBuffer, Split};
use crate::{Cpu, Isa};
use std::mem::MaybeUninit;

/// Rows of N in a panel: four AVX-512 registers or eight AVX2 ones.
pub(super) const PANEL: usize = 64;
/// K per scale of integers, of weights and of activations. A scale is half a bit per weight. With int8 weights in groups of 128 and
/// activations in groups of 64, Tiger-Nano's distribution was half as far again from the unrounded one; outlier channels want small groups more.
pub(super) const GROUP: usize = 32;
/// K values that packing converts at a time.
const CHUNK: usize = 128;

/// A frozen weight `[N, K]`, packed for the multiplication.
pub struct Weight {
    precision: Precision,
    n: usize,
    k: usize,
    data: HugeBuffer,
    scales: HugeBuffer,
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weight({:?} [{}, {}])", self.precision, self.n, self.k)
    }
}

impl Weight {
    /// Packs `parts`, stacked along N, each row of `k` elements; threaded. Values are rounded to the nearest, ties to even. Memory: the
    /// packed size only, the parts are read straight into it.
    ///
    /// # Panics
    /// If `k` is 0, there is no row, or a part's bytes are not `rows · k` elements.
    pub fn pack(cpu: &Cpu, precision: Precision, k: usize, parts: &[Raw<'_>]) -> Weight {
        for part in parts {
            assert_eq!(part.bytes.len(), part.rows * k * part.dtype.bytes(), "a part's bytes are not rows · k elements");
        }
        let n = parts.iter().map(|part| part.rows).sum();
        fill(cpu, precision, [n, k], &|mut row, from, out| {
            for part in parts {
                if row < part.rows {
                    let size = part.dtype.bytes();
                    part.dtype.decode(&part.bytes[(row * k + from) * size..][..out.len() * size], out);
                    return;
                }
                row -= part.rows;
            }
        })
    }

    /// A weight of pseudo-random, nearly normal values of mean 0 and standard deviation `std`, for benches and tests: the same for any
    /// number of threads.
    pub fn synthetic(cpu: &Cpu, precision: Precision, n: usize, k: usize, seed: u64, std: f32) -> Weight {
        // Four uniform 16-bit numbers: variance 4 · 2³² / 12.
        let scale = std / (65_536.0 * (4.0f32 / 12.0).sqrt());
        fill(cpu, precision, [n, k], &|row, from, out| {
            for (i, out) in out.iter_mut().enumerate() {
                let h = mix(seed ^ mix((row * k + from + i) as u64));
                let sum = (h & 0xffff) + (h >> 16 & 0xffff) + (h >> 32 & 0xffff) + (h >> 48);
                *out = (sum as f32 - 131_070.0) * scale;
            }
        })
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Storage format.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of memory that the packed form takes, scales and padding included.
    pub fn bytes(&self) -> usize {
        self.data.bytes() + if has_scales(self.precision) { self.scales.bytes() } else { 0 }
    }

    /// Row `n` as the multiplication sees it (rounded or dequantised), into `out`: K values.
    ///
    /// # Panics
    /// If `n` is not below N or `out` is not K long.
    pub fn row(&self, n: usize, out: &mut [f32]) {
        assert!(n < self.n, "row {n} of a weight with {} rows", self.n);
        assert_eq!(out.len(), self.k, "out holds K values");
        let (panel, n) = (n / PANEL, n % PANEL);
        let words = self.words(panel);
        match self.precision {
            Precision::F32 => out.iter_mut().enumerate().for_each(|(k, out)| *out = f32::from_bits(words[k * PANEL + n])),
            Precision::Bf16 => out.iter_mut().enumerate().for_each(|(k, out)| {
                *out = bf16_value((words[k / 2 * PANEL + n] >> (16 * (k % 2))) as u16);
            }),
            Precision::Int8 => {
                let scales = self.scales(panel);
                out.iter_mut().enumerate().for_each(|(k, out)| {
                    let q = (words[k / 4 * PANEL + n] >> (8 * (k % 4)) & 0xff) as i32 - 128;
                    *out = q as f32 * bf16_value(scales[k / GROUP * PANEL + n]);
                });
            }
            Precision::Int4 => {
                let scales = self.scales(panel);
                out.iter_mut().enumerate().for_each(|(k, out)| {
                    let q = (words[k / 8 * PANEL + n] >> int4_shift(k % 8) & 0xf) as i32 - 8;
                    *out = q as f32 * bf16_value(scales[k / GROUP * PANEL + n]);
                });
            }
        }
    }

    /// K with its padding.
    pub(super) fn padded_k(&self) -> usize {
        padded_k(self.precision, self.k)
    }

    /// The 32-bit words (1, 2, 4 or 8 values of K) of a panel.
    pub(super) fn words(&self, panel: usize) -> &[u32] {
        let len = words_per_panel(self.precision, self.k);
        assert!(panel < self.n.div_ceil(PANEL));
        // SAFETY: `fill` wrote every word of every panel.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast::<u32>().add(panel * len), len) }
    }

    /// The scales of a panel, bf16 bits; empty for floats.
    pub(super) fn scales(&self, panel: usize) -> &[u16] {
        if !has_scales(self.precision) {
            return &[];
        }
        let len = self.padded_k() / GROUP * PANEL;
        assert!(panel < self.n.div_ceil(PANEL));
        // SAFETY: `fill` wrote every scale of every panel.
        unsafe { std::slice::from_raw_parts(self.scales.as_ptr().cast::<u16>().add(panel * len), len) }
    }
}

impl RawType {
    fn bytes(self) -> usize {
        match self {
            RawType::F32 => 4,
            RawType::F16 | RawType::Bf16 => 2,
        }
    }

    fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            RawType::F32 => {
                for (b, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
                    *out = f32::from_le_bytes(*b);
                }
            }
            RawType::F16 => {
                for (b, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
                    *out = half::f16::from_le_bytes(*b).to_f32();
                }
            }
            RawType::Bf16 => {
                for (b, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
                    *out = bf16_value(u16::from_le_bytes(*b));
                }
            }
        }
    }
}

/// splitmix64's finaliser.
fn mix(v: u64) -> u64 {
    let v = v.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let v = (v ^ v >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let v = (v ^ v >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    v ^ v >> 31
}

fn padded_k(precision: Precision, k: usize) -> usize {
    match precision {
        Precision::F32 => k,
        Precision::Bf16 => k.next_multiple_of(2),
        // Squares of 64 for the backward pass.
        Precision::Int8 | Precision::Int4 => k.next_multiple_of(2 * GROUP),
    }
}

/// Values of K in a 32-bit word.
pub(super) fn values_per_word(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 1,
        Precision::Bf16 => 2,
        Precision::Int8 => 4,
        Precision::Int4 => 8,
    }
}

/// The stored value of an integer weight of zero; None for floats.
pub(super) fn zero_of(precision: Precision) -> Option<i32> {
    match precision {
        Precision::F32 | Precision::Bf16 => None,
        Precision::Int8 => Some(128),
        Precision::Int4 => Some(8),
    }
}

fn has_scales(precision: Precision) -> bool {
    zero_of(precision).is_some()
}

/// Where the i-th of the eight values of an int4 word stands.
pub(super) const fn int4_shift(i: usize) -> usize {
    8 * (i % 4) + i / 4 * 4
}

fn words_per_panel(precision: Precision, k: usize) -> usize {
    padded_k(precision, k) / values_per_word(precision) * PANEL
}

/// Where values come from: row, first k, out.
type Source<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// Allocates and packs, one task per panel.
fn fill(cpu: &Cpu, precision: Precision, [n, k]: [usize; 2], source: &Source<'_>) -> Weight {
    assert!(n > 0 && k > 0, "a weight has at least one row and one column");
    let panels = n.div_ceil(PANEL);
    let words = words_per_panel(precision, k);
    let scales = if has_scales(precision) { padded_k(precision, k) / GROUP * PANEL } else { 0 };
    let weight = Weight { precision, n, k, data: HugeBuffer::new(panels * words * 4), scales: HugeBuffer::new(panels * scales * 2) };
    let data = Split::new(weight.data.as_ptr().cast::<MaybeUninit<u32>>());
    let scale_data = Split::new(weight.scales.as_ptr().cast::<MaybeUninit<u16>>());
    cpu.run(panels, &|panel| {
        // SAFETY: each task has its own panel of the two buffers, which hold `panels` of them.
        let (words, scales) = unsafe {
            (
                std::slice::from_raw_parts_mut(data.get().add(panel * words), words),
                std::slice::from_raw_parts_mut(scale_data.get().add(panel * scales), scales),
            )
        };
        let mut values = [0.0; CHUNK];
        for from in (0..k).step_by(CHUNK) {
            let len = CHUNK.min(k - from);
            for row in 0..PANEL {
                values.fill(0.0);
                if panel * PANEL + row < n {
                    source(panel * PANEL + row, from, &mut values[..len]);
                }
                match precision {
                    Precision::F32 => put_f32(&mut words[from * PANEL + row..], &values[..len]),
                    Precision::Bf16 => put_bf16(&mut words[from / 2 * PANEL + row..], &values[..len.next_multiple_of(2)]),
                    Precision::Int8 | Precision::Int4 => {
                        let groups = len.next_multiple_of(2 * GROUP) / GROUP;
                        for (g, values) in values.as_chunks().0.iter().take(groups).enumerate() {
                            let at = from + g * GROUP;
                            let words = &mut words[at / values_per_word(precision) * PANEL + row..];
                            let scale = put_integers(cpu.isa(), precision, words, values);
                            scales[at / GROUP * PANEL + row].write(scale);
                        }
                    }
                }
            }
        }
    });
    weight
}

fn put_f32(words: &mut [MaybeUninit<u32>], values: &[f32]) {
    for (word, v) in words.iter_mut().step_by(PANEL).zip(values) {
        word.write(v.to_bits());
    }
}

fn put_bf16(words: &mut [MaybeUninit<u32>], values: &[f32]) {
    for (word, [a, b]) in words.iter_mut().step_by(PANEL).zip(values.as_chunks::<2>().0) {
        word.write(u32::from(bf16_bits(*a)) | u32::from(bf16_bits(*b)) << 16);
    }
}

/// Rounds a group; returns the scale's bits.
fn put_integers(isa: Isa, precision: Precision, words: &mut [MaybeUninit<u32>], values: &[f32; GROUP]) -> u16 {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable {
        // SAFETY: both other instruction sets have AVX2 and FMA.
        return unsafe { put_integers_avx2(precision, words, values) };
    }
    let _ = isa;
    put_integers_with(precision, words, values)
}

/// The same source with vectors: without them rounding is a function call, and an 8B model takes minutes.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn put_integers_avx2(precision: Precision, words: &mut [MaybeUninit<u32>], values: &[f32; GROUP]) -> u16 {
    put_integers_with(precision, words, values)
}

#[inline(always)]
fn put_integers_with(precision: Precision, words: &mut [MaybeUninit<u32>], values: &[f32; GROUP]) -> u16 {
    if precision == Precision::Int8 { put_int8(words, values) } else { put_int4(words, values) }
}

/// Eight sums side by side, then those in order: one result for every vector width.
#[inline(always)]
fn sum(values: [f32; GROUP]) -> f32 {
    let mut sums = [0.0f32; 8];
    for values in values.as_chunks::<8>().0 {
        for (sum, v) in sums.iter_mut().zip(values) {
            *sum += v;
        }
    }
    sums.iter().sum()
}

/// Scales above the smallest one that are tried for int8, each the next bf16.
const INT8_SEARCH_STEPS: u16 = 8;

/// −127 to 127; returns the scale. Of the smallest scale that reaches the largest magnitude and the next few, the one that leaves the
/// smallest squared error: where 32 values fall between the steps is chance, and some scale near by has luck. A value that is not finite
/// makes the scale so, and with it every output.
#[inline(always)]
fn put_int8(words: &mut [MaybeUninit<u32>], values: &[f32; GROUP]) -> u16 {
    let smallest = bf16_bits_up(max_abs(values) / 127.0);
    let scale_of = |i: u16| bf16_value(smallest.saturating_add(i));
    let quantised = |v: f32, inverse: f32| (v * inverse).round_ties_even().clamp(-127.0, 127.0);
    let (mut best, mut least) = (smallest, f32::INFINITY);
    if scale_of(0) >= SMALLEST_MAGNITUDE && scale_of(INT8_SEARCH_STEPS).is_finite() {
        for i in 0..INT8_SEARCH_STEPS {
            let (scale, inverse) = (scale_of(i), 1.0 / scale_of(i));
            let error = sum(values.map(|v| (v * inverse - quantised(v, inverse)).powi(2))) * scale * scale;
            if error < least {
                (best, least) = (smallest + i, error);
            }
        }
    }
    let scale = bf16_value(best);
    let inverse = if scale >= SMALLEST_MAGNITUDE { 1.0 / scale } else { 0.0 };
    for (word, v) in words.iter_mut().step_by(PANEL).zip(values.as_chunks::<4>().0) {
        let [a, b, c, d] = v.map(|v| (quantised(v, inverse) as i32 + 128) as u32);
        word.write(a | b << 8 | c << 16 | d << 24);
    }
    best
}

/// Steps of the search for an int4 scale to each side of the usual one, and their size in units of the last place of the largest value.
const INT4_SEARCH_STEPS: i32 = 8;
const INT4_SEARCH_STEP: f32 = 0.1;

/// −8 to 7; returns the scale. For each of several guesses the values are rounded, and the scale that fits them best in the sense of least
/// squares is Σ v q / Σ q²; of all, the one that leaves the smallest error. The largest magnitude usually goes to −8, so scales have a
/// sign. A value that is not finite makes the scale so, and with it every output.
#[inline(always)]
fn put_int4(words: &mut [MaybeUninit<u32>], values: &[f32; GROUP]) -> u16 {
    let max = max_abs(values);
    let extreme = values.iter().copied().fold(0.0, |e: f32, v| if v.abs() > e.abs() { v } else { e });
    let (mut best, mut best_gain, mut best_q) = (0.0f32, 0.0f32, [8u32; GROUP]);
    if !max.is_finite() {
        best = f32::NAN;
    } else if max >= SMALLEST_MAGNITUDE {
        let scaled = values.map(|v| v / max);
        for i in -INT4_SEARCH_STEPS..=INT4_SEARCH_STEPS {
            let inverse = -(8.0 + INT4_SEARCH_STEP * i as f32) / extreme;
            let q = values.map(|v| (v * inverse).round_ties_even().clamp(-8.0, 7.0));
            let mut products = q;
            products.iter_mut().zip(&scaled).for_each(|(q, v)| *q *= v);
            let (dot, square) = (sum(products), sum(q.map(|q| q * q)));
            // Σ v² − Σ (v − s q)² for the best s, over max².
            let gain = dot * dot / square;
            if gain > best_gain {
                (best, best_gain) = (dot / square * max, gain);
                best_q = q.map(|q| (q as i32 + 8) as u32);
            }
        }
    }
    for (word, q) in words.iter_mut().step_by(PANEL).zip(best_q.as_chunks::<8>().0) {
        word.write(q.iter().enumerate().fold(0, |word, (i, q)| word | q << int4_shift(i)));
    }
    bf16_bits(best)
}

const _: () = assert!(CHUNK.is_multiple_of(2 * GROUP));
