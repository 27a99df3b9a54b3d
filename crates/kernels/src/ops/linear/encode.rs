//! Activations on their way into a multiplication: rounded to bf16 or quantised to int8, in the form that a kernel reads; and the
//! conversions that weights share. Does not know what they are multiplied with.
//!
//! A packed row depends on that row alone, and its numbers are the same on every instruction set.

use super::Precision;
use super::weight::{GROUP, zero_of};
use crate::cpu::memory::{Borrowed, LINE_BYTES, Split};
use crate::{Cpu, Isa};
use std::mem::MaybeUninit;

/// Groups below this largest magnitude are zero: 127 / magnitude would not be finite.
pub(super) const SMALLEST_MAGNITUDE: f32 = 1e-36;
/// Elements below which packing is not worth a second thread.
const SERIAL_ELEMENTS: usize = 32 * 1024;

/// How a packed row lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// f32 as it is.
    F32,
    /// f32 rounded to bf16: kernels without bf16 arithmetic.
    RoundedF32,
    /// bf16.
    Bf16,
    /// i8.
    I8,
    /// i16 in the order k, k + 2, k + 1, k + 3: kernels that multiply even and odd bytes apart.
    I16Swapped,
}

impl Form {
    /// The form that the kernel of `isa` reads.
    pub(super) fn of(isa: Isa, precision: Precision) -> Form {
        match (precision, isa) {
            (Precision::F32, _) => Form::F32,
            (Precision::Bf16, Isa::Avx512 | Isa::Amx) => Form::Bf16,
            (Precision::Bf16, _) => Form::RoundedF32,
            (Precision::Int8, Isa::Avx2) => Form::I16Swapped,
            (Precision::Int8 | Precision::Int4, _) => Form::I8,
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Form::F32 | Form::RoundedF32 => 4,
            Form::Bf16 | Form::I16Swapped => 2,
            Form::I8 => 1,
        }
    }
}

/// Of one row and group of K.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    /// Value of one step.
    pub(super) scale: f32,
    /// −z · Σ q, the start of an integer sum over weights stored as w + z.
    pub(super) start: i32,
}

/// Packed rows, in borrowed scratch memory.
pub(super) struct Activations<'a> {
    pub(super) form: Form,
    /// Bytes from row to row.
    pub(super) stride: usize,
    /// Groups of a row; 0 for floats.
    pub(super) groups: usize,
    rows: Borrowed<'a>,
    group_rows: Borrowed<'a>,
}

impl<'a> Activations<'a> {
    /// Bytes from row to row: an odd number of cache lines, so that the rows of a tile do not fall into the same cache sets.
    pub(super) fn stride(form: Form, padded_k: usize) -> usize {
        ((padded_k * form.bytes()).div_ceil(LINE_BYTES) | 1) * LINE_BYTES
    }

    /// Packs x `[rows, k]`, each row padded with zeros to `padded_k`.
    pub(super) fn pack(cpu: &'a Cpu, precision: Precision, x: &[f32], [k, padded_k]: [usize; 2]) -> Activations<'a> {
        let rows = x.len() / k;
        let form = Form::of(cpu.isa(), precision);
        let stride = Activations::stride(form, padded_k);
        let zero = zero_of(precision);
        let groups = if zero.is_some() { padded_k / GROUP } else { 0 };
        let scratch = cpu.scratch();
        let packed = Activations {
            form,
            stride,
            groups,
            rows: scratch.borrow(rows * stride),
            group_rows: scratch.borrow(rows * groups * size_of::<Group>()),
        };
        let (bytes, group_rows) = (Split::new(packed.rows.as_ptr()), Split::new(packed.group_rows.as_ptr().cast::<MaybeUninit<Group>>()));
        let tasks = if x.len() < SERIAL_ELEMENTS { 1 } else { (x.len() / SERIAL_ELEMENTS).min(rows) };
        cpu.run(tasks, &|task| {
            for row in rows * task / tasks..rows * (task + 1) / tasks {
                // SAFETY: each task has its own rows of the two buffers, sized above.
                let out = unsafe {
                    Row {
                        x: &x[row * k..][..k],
                        form,
                        out: bytes.get().add(row * stride),
                        padded_k,
                        zero: zero.unwrap_or(0),
                        groups: std::slice::from_raw_parts_mut(group_rows.get().add(row * groups), groups),
                    }
                };
                pack_row(cpu.isa(), out);
            }
        });
        packed
    }

    /// First byte of a row at `k`.
    pub(super) fn row(&self, row: usize, k: usize) -> *const u8 {
        self.rows.as_ptr().wrapping_add(row * self.stride + k * self.form.bytes())
    }

    /// Groups of a row from `k` on.
    pub(super) fn group(&self, row: usize, k: usize) -> *const Group {
        self.group_rows.as_ptr().cast::<Group>().wrapping_add(row * self.groups + k / GROUP)
    }
}

/// One row to pack.
struct Row<'a> {
    x: &'a [f32],
    form: Form,
    out: *mut u8,
    padded_k: usize,
    /// Stored value of a zero weight.
    zero: i32,
    groups: &'a mut [MaybeUninit<Group>],
}

impl Row<'_> {
    /// The output as `padded_k · per_k` elements.
    ///
    /// # Safety
    /// The output must have room for them.
    #[inline(always)]
    unsafe fn elements<T>(&mut self) -> &mut [MaybeUninit<T>] {
        // SAFETY: as promised; uninitialised elements are allowed.
        unsafe { std::slice::from_raw_parts_mut(self.out.cast(), self.padded_k) }
    }
}

fn pack_row(isa: Isa, row: Row<'_>) {
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Portable {
        // SAFETY: both other instruction sets have AVX2 and FMA.
        unsafe { pack_row_avx2(row) };
        return;
    }
    let _ = isa;
    pack_row_with(row);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn pack_row_avx2(row: Row<'_>) {
    pack_row_with(row);
}

/// One source for all instruction sets: rounding, comparing and multiplying give the same bits on each.
#[inline(always)]
fn pack_row_with(mut row: Row<'_>) {
    let x = row.x;
    match row.form {
        // SAFETY: the row has room for `padded_k` elements of its form, here and below.
        Form::F32 => write_all(unsafe { row.elements::<f32>() }, x, |v| v),
        // SAFETY: as above.
        Form::RoundedF32 => write_all(unsafe { row.elements::<f32>() }, x, |v| f32::from_bits(bf16_rounded(v))),
        // SAFETY: as above.
        Form::Bf16 => write_all(unsafe { row.elements::<u16>() }, x, bf16_bits),
        Form::I8 | Form::I16Swapped => quantise_row(row),
    }
}

#[inline(always)]
fn write_all<T: Default>(out: &mut [MaybeUninit<T>], x: &[f32], convert: impl Fn(f32) -> T) {
    let (body, padding) = out.split_at_mut(x.len());
    for (out, v) in body.iter_mut().zip(x) {
        out.write(convert(*v));
    }
    for out in padding {
        out.write(T::default());
    }
}

#[inline(always)]
fn quantise_row(row: Row<'_>) {
    let mut padded = [0.0; GROUP];
    for (g, group) in row.groups.iter_mut().enumerate() {
        let from = g * GROUP;
        let left = row.x.len().saturating_sub(from).min(GROUP);
        let values: &[f32; GROUP] = match row.x.get(from..).and_then(|x| x.first_chunk()) {
            Some(values) => values,
            None => {
                padded.fill(0.0);
                padded[..left].copy_from_slice(&row.x[row.x.len() - left..]);
                &padded
            }
        };
        let mut q = [0i16; GROUP];
        group.write(quantise(values, row.zero, &mut q));
        // SAFETY: group g lies at its place in a row of `padded_k` elements.
        unsafe {
            match row.form {
                Form::I8 => row.out.add(from).cast::<[i8; GROUP]>().write(q.map(|q| q as i8)),
                _ => {
                    for quad in q.as_chunks_mut::<4>().0 {
                        quad.swap(1, 2);
                    }
                    row.out.add(2 * from).cast::<[i16; GROUP]>().write(q);
                }
            }
        }
    }
}

/// Symmetric, ±127, nearest with ties to even. A value that is not finite makes the scale NaN, so that it is not hidden.
#[inline(always)]
fn quantise(values: &[f32; GROUP], zero: i32, q: &mut [i16; GROUP]) -> Group {
    let max = max_abs(values);
    if !max.is_finite() {
        return Group { scale: f32::NAN, start: 0 };
    }
    if max < SMALLEST_MAGNITUDE {
        return Group { scale: 0.0, start: 0 };
    }
    let inverse = 127.0 / max;
    let mut sum = 0;
    for (q, v) in q.iter_mut().zip(values) {
        // SAFETY: at most 127 and a rounding error in magnitude, and not NaN.
        let rounded: i32 = unsafe { (v * inverse).round_ties_even().to_int_unchecked() };
        *q = rounded as i16;
        sum += rounded;
    }
    Group { scale: max / 127.0, start: -zero * sum }
}

/// Largest magnitude; NaN counts as larger than infinity. By bits, so that the order of comparing does not matter.
#[inline(always)]
pub(crate) fn max_abs(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().fold(0, |max, v| max.max(v.to_bits() & 0x7fff_ffff)))
}

/// Bits of `v` rounded to bf16 (nearest, ties to even; NaN stays NaN), as an f32's.
#[inline(always)]
pub(super) fn bf16_rounded(v: f32) -> u32 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    (if v.is_nan() { bits | 0x0040_0000 } else { rounded }) & 0xffff_0000
}

/// `v` rounded to bf16.
#[inline(always)]
pub(super) fn bf16_bits(v: f32) -> u16 {
    (bf16_rounded(v) >> 16) as u16
}

/// The smallest bf16 at or above `v` ≥ 0; NaN and infinity stay.
pub(super) fn bf16_bits_up(v: f32) -> u16 {
    if v.is_finite() { (v.to_bits().wrapping_add(0xffff) >> 16) as u16 } else { bf16_bits(v) }
}

/// Value of bf16 bits.
#[inline(always)]
pub(super) fn bf16_value(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}
