//! The same packed weight in the other orientation, made block by block in a core's L2: panels of 64 k over ascending n, in the layout
//! of a forward panel, so that the backward pass is the forward kernel and no second copy of a weight exists.
//! Integer weights come out as bf16. Does not multiply.

use super::Precision;
use super::drive::{BLOCK_BYTES, Panels, Shape, Words};
use super::encode::{bf16_rounded, bf16_value};
use super::weight::{GROUP, PANEL, Weight, int4_shift, values_per_word};
use crate::{Cpu, Isa};

/// Pairs in a panel's width.
const PAIRS: usize = PANEL / 2;
/// bf16 words of a square of 64 n by 64 k, packed as `[k/2][n]` pairs of k or as `[n/2][k]` pairs of n.
type Square = [u32; PAIRS * PANEL];

/// A weight seen as Wᵀ `[K, N]`.
pub(super) struct Transposed<'a>(pub(super) &'a Weight);

impl Panels for Transposed<'_> {
    fn shape(&self) -> Shape {
        let precision = match self.0.precision() {
            Precision::F32 => Precision::F32,
            Precision::Bf16 | Precision::Int8 | Precision::Int4 => Precision::Bf16,
        };
        // Whole panels of the weight, whose rows beyond N are zero.
        Shape { precision, k: self.0.n(), padded_k: self.0.n().next_multiple_of(PANEL), n: self.0.k() }
    }

    fn room_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    fn at(&self, _panel: usize, _from: usize) -> *const u32 {
        std::ptr::null()
    }

    fn words(&self, cpu: &Cpu, panel: usize, from: usize, steps: usize, room: *mut u32) -> Words {
        let steps_per_panel = PANEL / values_per_word(self.shape().precision);
        debug_assert!(from.is_multiple_of(steps_per_panel) && steps.is_multiple_of(steps_per_panel));
        for i in 0..steps / steps_per_panel {
            let source = self.0.words(from / steps_per_panel + i);
            // SAFETY: `room` holds a block of `steps` steps, of which this is a part.
            let out = unsafe { room.add(i * steps_per_panel * PANEL) };
            match self.0.precision() {
                // SAFETY: 64 steps of 64 words.
                Precision::F32 => transpose_f32(source, panel, unsafe { &mut *out.cast::<[u32; PANEL * PANEL]>() }),
                precision => {
                    // SAFETY: 32 steps of 64 words.
                    let out = unsafe { &mut *out.cast::<Square>() };
                    let scales = self.0.scales(from / steps_per_panel + i);
                    square(cpu.isa(), precision, Source { words: source, scales, panel }, out);
                }
            }
        }
        Words { at: room, scales: std::ptr::null() }
    }
}

/// 64 n of a weight, and which 64 k of them are wanted.
struct Source<'a> {
    words: &'a [u32],
    scales: &'a [u16],
    panel: usize,
}

/// `[k][n]` → `[n][k]`; k beyond the weight's are zero.
fn transpose_f32(words: &[u32], panel: usize, out: &mut [u32; PANEL * PANEL]) {
    let words = &words[panel * PANEL * PANEL..];
    if words.len() < out.len() {
        out.fill(0);
    }
    // Bands of 16 n: whole cache lines on both sides.
    for band in (0..PANEL).step_by(16) {
        for (k, row) in words.as_chunks::<PANEL>().0.iter().take(PANEL).enumerate() {
            for n in band..band + 16 {
                out[n * PANEL + k] = row[n];
            }
        }
    }
}

fn square(isa: Isa, precision: Precision, source: Source<'_>, out: &mut Square) {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable {
        // SAFETY: both other instruction sets have AVX2.
        unsafe { square_avx2(precision, &source, out) };
        return;
    }
    let _ = isa;
    let mut copy = [0; PAIRS * PANEL];
    transpose(pairs(precision, &source, &mut copy), out);
}

/// The wanted square as pairs of k `[k/2][n]`: in place, or by way of `copy` if it must be dequantised or filled up.
#[inline(always)]
fn pairs<'a>(precision: Precision, source: &Source<'a>, copy: &'a mut Square) -> &'a Square {
    let from = source.panel * PANEL / values_per_word(precision) * PANEL;
    let words = &source.words[from..];
    match precision {
        Precision::Int8 => {
            groups::<{ GROUP / 4 * PANEL }>(words, source, copy, dequantise);
            return copy;
        }
        Precision::Int4 => {
            groups::<{ GROUP / 8 * PANEL }>(words, source, copy, dequantise_int4);
            return copy;
        }
        Precision::F32 | Precision::Bf16 => (),
    }
    match words.first_chunk() {
        Some(words) => words,
        None => {
            copy[..words.len()].copy_from_slice(words);
            copy[words.len()..].fill(0);
            copy
        }
    }
}

/// Dequantises the two groups of a square, each of `WORDS` words.
#[inline(always)]
fn groups<const WORDS: usize>(words: &[u32], source: &Source<'_>, out: &mut Square, of_group: impl Fn(&[u32], &[u16; PANEL], &mut [u32])) {
    let scales = &source.scales[source.panel * PANEL / GROUP * PANEL..];
    let groups = words.as_chunks::<WORDS>().0.iter().zip(scales.as_chunks().0);
    for ((words, scales), out) in groups.zip(out.as_chunks_mut::<{ GROUP / 2 * PANEL }>().0) {
        of_group(words, scales, out);
    }
}

/// Words of four k `[k/4][n]` to words of two `[k/2][n]`, bf16(q · scale).
#[inline(always)]
fn dequantise(words: &[u32], scales: &[u16; PANEL], out: &mut [u32]) {
    let mut values = [0.0; PANEL];
    for (value, bits) in values.iter_mut().zip(scales) {
        *value = bf16_value(*bits);
    }
    for (row, out) in words.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<{ 2 * PANEL }>().0) {
        let (first, second) = out.split_at_mut(PANEL);
        for n in 0..PANEL {
            let k = |i: u32| bf16_rounded(((row[n] >> (8 * i) & 0xff) as i32 - 128) as f32 * values[n]);
            first[n] = k(0) >> 16 | k(1);
            second[n] = k(2) >> 16 | k(3);
        }
    }
}

/// The same for words of eight k `[k/8][n]`.
#[inline(always)]
fn dequantise_int4(words: &[u32], scales: &[u16; PANEL], out: &mut [u32]) {
    let mut values = [0.0; PANEL];
    for (value, bits) in values.iter_mut().zip(scales) {
        *value = bf16_value(*bits);
    }
    for (row, out) in words.as_chunks::<PANEL>().0.iter().zip(out.as_chunks_mut::<{ 4 * PANEL }>().0) {
        for (pair, out) in out.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            for n in 0..PANEL {
                let k = |i: usize| bf16_rounded(((row[n] >> int4_shift(i) & 0xf) as i32 - 8) as f32 * values[n]);
                out[n] = k(2 * pair) >> 16 | k(2 * pair + 1);
            }
        }
    }
}

/// `[k/2][n]` pairs of k → `[n/2][k]` pairs of n.
fn transpose(pairs: &Square, out: &mut Square) {
    for (pair, row) in pairs.as_chunks::<PANEL>().0.iter().enumerate() {
        for (n, [a, b]) in row.as_chunks::<2>().0.iter().enumerate() {
            out[n * PANEL + 2 * pair] = a & 0xffff | b << 16;
            out[n * PANEL + 2 * pair + 1] = a >> 16 | b & 0xffff_0000;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn square_avx2(precision: Precision, source: &Source<'_>, out: &mut Square) {
    let mut copy = [0; PAIRS * PANEL];
    transpose_avx2(pairs(precision, source, &mut copy), out);
}

/// As `transpose`, 4 pairs of k by 4 pairs of n at a time: inside a 64-bit element (two words of neighbouring n) the halves change
/// places, then 4 × 4 such elements are transposed.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn transpose_avx2(pairs: &Square, out: &mut Square) {
    use std::arch::x86_64::*;
    let order = _mm256_set_epi8(
        15, 14, 11, 10, 13, 12, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0, 15, 14, 11, 10, 13, 12, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0, //
    );
    for pair in (0..PAIRS).step_by(4) {
        for n in (0..PAIRS).step_by(4) {
            let load = |i: usize| {
                // SAFETY: 8 words of row `pair + i` of 32.
                let row = unsafe { _mm256_loadu_si256(pairs.as_ptr().add((pair + i) * PANEL + 2 * n).cast()) };
                _mm256_shuffle_epi8(row, order)
            };
            let [a, b, c, d] = [load(0), load(1), load(2), load(3)];
            let (ab0, ab1) = (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
            let (cd0, cd1) = (_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
            let columns = [
                _mm256_permute2x128_si256::<0x20>(ab0, cd0),
                _mm256_permute2x128_si256::<0x20>(ab1, cd1),
                _mm256_permute2x128_si256::<0x31>(ab0, cd0),
                _mm256_permute2x128_si256::<0x31>(ab1, cd1),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                // SAFETY: 8 words of row `n + i` of 32.
                unsafe { _mm256_storeu_si256(out.as_mut_ptr().add((n + i) * PANEL + 2 * pair).cast(), column) };
            }
        }
    }
}
