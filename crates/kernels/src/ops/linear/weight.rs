//! Packed weights: one layout serves one row, small batches, prefill and the backward pass.
//! Knows how numbers lie in memory, not how they are multiplied.
//!
//! N is cut into panels of 64 rows; inside a panel K runs outside and the 64 rows inside:
//! f32 `[N/64][K][64]` · bf16 `[N/64][K/2][64][2]` · int8 `[N/64][K/4][64][4]` as w + 128, with bf16 scales `[N/64][K/32][64]` ·
//! int4 `[N/64][K/8][64][4 bytes]` as w + 8, byte i holding k = i in its low and k = 4 + i in its high half, with
//! the same scales. N is padded with zero rows, K with zeros up to a multiple of 1, 32, 64 or 64.

use super::encode::{bf16_bits, bf16_value};
use super::integers::{round_int4, round_int8};
use super::{Precision, Raw, RawType};
use crate::cpu::memory::{HUGE_BYTES, HugeBuffer, Split};
use crate::simd::LANES;
use crate::{Cpu, Isa};
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

/// Rows of N in a panel: four AVX-512 registers or eight AVX2 ones.
pub(super) const PANEL: usize = 64;
/// K that bf16 is padded to.
const BF16_PADDING: usize = 32;
/// K per scale of integers, of weights and of activations. A scale is half a bit per weight. With int8 weights in groups of 128 and
/// activations in groups of 64, Tiger-Nano's distribution was half as far again from the unrounded one; outlier channels want small groups more.
pub(super) const GROUP: usize = 32;
/// To be raised whenever the same values pack to other bytes: other rounding, another search for scales, another layout.
const REVISION: u32 = 2;
/// Bytes that `Weight::read` asks for at a time: they stay in a core's own cache between being cleared, filled and looked at.
const READ_BYTES: usize = 256 << 10;
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

    /// How bytes lie in a weight's packed form and how values were rounded, in words: two programs that say the same pack to the same bytes.
    pub fn layout() -> String {
        let order = if cfg!(target_endian = "little") { "little" } else { "big" };
        format!("revision {REVISION}, panels of {PANEL} rows, groups of {GROUP}, {order} endian")
    }

    /// Bytes of the packed form of `[n, k]`, words then scales; `None` for a shape that no memory holds.
    pub fn packed_bytes(precision: Precision, [n, k]: [usize; 2]) -> Option<usize> {
        let panels = n.div_ceil(PANEL);
        // The largest number on the way.
        panels.checked_mul(k.checked_next_multiple_of(2 * GROUP)?)?.checked_mul(PANEL * size_of::<u32>())?;
        let [words, scales] = lengths(precision, [n, k]);
        (words * 4).checked_add(scales * 2)
    }

    /// The packed form, words and then scales, as they lie in memory.
    pub fn packed(&self) -> [&[u8]; 2] {
        let [words, scales] = lengths(self.precision, [self.n, self.k]);
        // SAFETY: `fill` or `read` wrote every word and scale.
        unsafe {
            [
                std::slice::from_raw_parts(self.data.as_ptr(), words * size_of::<u32>()),
                std::slice::from_raw_parts(self.scales.as_ptr(), scales * size_of::<u16>()),
            ]
        }
    }

    /// A weight from its packed form: `source(at, out)` fills `out` with the bytes from `at` on, called from all threads. Any bytes make a
    /// weight that is safe to use; that they are the right ones is the caller's to know.
    ///
    /// # Panics
    /// If `n` or `k` is 0 or no memory holds the weight.
    ///
    /// # Errors
    /// The first of `source`.
    pub fn read<E: Send>(
        cpu: &Cpu,
        precision: Precision,
        [n, k]: [usize; 2],
        source: &(impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync),
    ) -> Result<Weight, E> {
        assert!(n > 0 && k > 0, "a weight has at least one row and one column");
        let weight = Weight::uninitialised(precision, [n, k]);
        let [words, scales] = lengths(precision, [n, k]);
        let failed = Mutex::new(None);
        let mut from = 0;
        for (buffer, bytes) in [(&weight.data, words * size_of::<u32>()), (&weight.scales, scales * size_of::<u16>())] {
            let start = Split::new(buffer.as_ptr());
            // A task is a huge page, which one thread touches first.
            cpu.run(bytes.div_ceil(HUGE_BYTES), &|task| {
                for at in (task * HUGE_BYTES..bytes.min((task + 1) * HUGE_BYTES)).step_by(READ_BYTES) {
                    let length = READ_BYTES.min(bytes - at);
                    // SAFETY: each task has its own part of the buffer, which holds `bytes`; they are written before they are a slice.
                    let out = unsafe {
                        start.get().add(at).write_bytes(0, length);
                        std::slice::from_raw_parts_mut(start.get().add(at), length)
                    };
                    if let Err(error) = source(from + at, out) {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            });
            from += bytes;
        }
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(weight),
            Some(error) => Err(error),
        }
    }

    fn uninitialised(precision: Precision, [n, k]: [usize; 2]) -> Weight {
        let [words, scales] = lengths(precision, [n, k]);
        Weight { precision, n, k, data: HugeBuffer::new(words * size_of::<u32>()), scales: HugeBuffer::new(scales * size_of::<u16>()) }
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
        // SAFETY: `fill` or `read` wrote every word of every panel.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast::<u32>().add(panel * len), len) }
    }

    /// The scales of a panel, bf16 bits; empty for floats.
    pub(super) fn scales(&self, panel: usize) -> &[u16] {
        if !has_scales(self.precision) {
            return &[];
        }
        let len = scales_per_panel(self.precision, self.k);
        assert!(panel < self.n.div_ceil(PANEL));
        // SAFETY: `fill` or `read` wrote every scale of every panel.
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
        // A tile of AMX.
        Precision::Bf16 => k.next_multiple_of(BF16_PADDING),
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

fn scales_per_panel(precision: Precision, k: usize) -> usize {
    if has_scales(precision) { padded_k(precision, k) / GROUP * PANEL } else { 0 }
}

/// Words and scales of a whole weight.
fn lengths(precision: Precision, [n, k]: [usize; 2]) -> [usize; 2] {
    [words_per_panel(precision, k), scales_per_panel(precision, k)].map(|length| length * n.div_ceil(PANEL))
}

/// Where values come from: row, first k, out.
type Source<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// Allocates and packs, one task per panel.
fn fill(cpu: &Cpu, precision: Precision, [n, k]: [usize; 2], source: &Source<'_>) -> Weight {
    assert!(n > 0 && k > 0, "a weight has at least one row and one column");
    let panels = n.div_ceil(PANEL);
    let words = words_per_panel(precision, k);
    let scales = scales_per_panel(precision, k);
    let weight = Weight::uninitialised(precision, [n, k]);
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
        let rows = n.saturating_sub(panel * PANEL).min(PANEL);
        let source = |row: usize, from: usize, out: &mut [f32]| source(panel * PANEL + row, from, out);
        if has_scales(precision) {
            pack_integers(cpu.isa(), precision, [rows, k], &source, words, scales);
        } else {
            pack_floats(precision, [rows, k], &source, words);
        }
    });
    weight
}

/// Fills a panel of which the first `rows` rows exist.
fn pack_floats(precision: Precision, [rows, k]: [usize; 2], source: &Source<'_>, words: &mut [MaybeUninit<u32>]) {
    let mut values = [0.0; CHUNK];
    for from in (0..k).step_by(CHUNK) {
        let len = CHUNK.min(k - from);
        for row in 0..PANEL {
            values.fill(0.0);
            if row < rows {
                source(row, from, &mut values[..len]);
            }
            match precision {
                Precision::F32 => put_f32(&mut words[from * PANEL + row..], &values[..len]),
                _ => put_bf16(&mut words[from / 2 * PANEL + row..], &values[..len.next_multiple_of(BF16_PADDING)]),
            }
        }
    }
}

/// The same for integers, sixteen rows at a time.
fn pack_integers(
    isa: Isa,
    precision: Precision,
    [rows, k]: [usize; 2],
    source: &Source<'_>,
    words: &mut [MaybeUninit<u32>],
    scales: &mut [MaybeUninit<u16>],
) {
    let mut values = [[0.0; CHUNK]; LANES];
    let mut group = [0.0; GROUP * LANES];
    for (first, from) in (0..PANEL).step_by(LANES).flat_map(|first| (0..k).step_by(CHUNK).map(move |from| (first, from))) {
        let len = CHUNK.min(k - from);
        for (row, values) in values.iter_mut().enumerate() {
            if first + row < rows {
                source(first + row, from, &mut values[..len]);
                values[len..].fill(0.0);
            } else {
                values.fill(0.0);
            }
        }
        for at in (0..len.next_multiple_of(2 * GROUP)).step_by(GROUP) {
            for (k, lanes) in group.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                for (lane, values) in lanes.iter_mut().zip(&values) {
                    *lane = values[at + k];
                }
            }
            let words = &mut words[(from + at) / values_per_word(precision) * PANEL + first..];
            let scales = &mut scales[(from + at) / GROUP * PANEL + first..][..LANES];
            let round = if precision == Precision::Int8 { round_int8 } else { round_int4 };
            round(isa, &group, words, scales);
        }
    }
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

const _: () = assert!(CHUNK.is_multiple_of(2 * GROUP) && CHUNK.is_multiple_of(BF16_PADDING) && PANEL.is_multiple_of(LANES));
