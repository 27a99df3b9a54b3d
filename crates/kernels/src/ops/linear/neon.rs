//! The kernels for NEON: tiles of up to 5 rows by 16 columns: 20 accumulators, 4 weights and 5 pairs of activations are what the 32
//! registers hold; with six rows compilers write accumulators to the stack. Fewer rows take more columns, one row all 64, so that the
//! weights stream through in order. Activations are read in pairs and multiplied by lane: broadcasting them from memory would take a
//! turn of the multipliers on some cores.
//!
//! Weights stay packed as they are and are unfolded in registers: bf16 by a shift (even k) or a mask (odd k); `bfdot` would not need
//! that, but it rounds differently. Bytes become signed and are multiplied by `sdot` where the machine has it, else by widening
//! multiplications, whose sums of pairs stay below 2 · 128 · 127 < 2¹⁵: both are exact.

use super::block::{Ahead, Block, Tile};
use super::encode::Group;
use super::weight::{GROUP, PANEL};
use std::arch::aarch64::*;
use std::arch::asm;

/// Columns of a register.
const LANES: usize = 4;
/// Rows of the tallest tile.
const ROWS: usize = 5;
/// int8: steps (4 of K) of a group.
const GROUP_STEPS: usize = GROUP / 4;
/// int4: steps (8 of K) of a group.
const INT4_STEPS: usize = GROUP / 8;

/// Accumulators of a tile of R rows by C registers.
type Acc<const R: usize, const C: usize> = [[float32x4_t; C]; R];
/// Integer sums of a tile.
type Sums<const R: usize, const C: usize> = [[int32x4_t; C]; R];

/// Runs `$tile` over the block's tiles: heights 1 to 5, each with as many columns as the registers hold.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident, $features:literal, $tile:ident $(::<$dot:ty>)?) => {
        $(#[$doc])*
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(b: &Block) {
            for (index, row, height) in b.tiles(ROWS) {
                let width = match height {
                    1 => 64,
                    2 | 3 => 32,
                    _ => 16,
                };
                for col in (0..PANEL).step_by(width) {
                    let t = b.tile((index, row), (col, width), ROWS);
                    // SAFETY: the tiles partition the block, whose pointers are good for what it says.
                    unsafe {
                        match height {
                            1 => $tile::<$($dot,)? 1, 16>(b, &t),
                            2 => $tile::<$($dot,)? 2, 8>(b, &t),
                            3 => $tile::<$($dot,)? 3, 8>(b, &t),
                            4 => $tile::<$($dot,)? 4, 4>(b, &t),
                            _ => $tile::<$($dot,)? 5, 4>(b, &t),
                        }
                    }
                }
            }
        }
    };
}

block!(
    /// acc = fma(x, w, acc) over ascending k.
    f32_block,
    "neon",
    f32_tile
);
block!(
    /// Per pair of k: acc = fma(even, fma(odd, acc)).
    bf16_block,
    "neon",
    bf16_tile
);
block!(
    /// Per activation group: an exact integer sum, then acc = fma(sum, w_scale · x_scale, acc).
    int8_block,
    "neon",
    int8_tile::<Widening>
);
block!(
    /// As `int8_block`.
    int8_dot_block,
    "neon,dotprod",
    int8_tile::<Sdot>
);
block!(
    /// As int8, the two halves of each byte apart.
    int4_block,
    "neon",
    int4_tile::<Widening>
);
block!(
    /// As `int4_block`.
    int4_dot_block,
    "neon,dotprod",
    int4_tile::<Sdot>
);

#[target_feature(enable = "neon")]
#[inline]
unsafe fn start<const R: usize, const C: usize>(b: &Block, t: &Tile) -> Acc<R, C> {
    let mut acc = [[vdupq_n_f32(0.0); C]; R];
    if !b.fresh {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (c, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the tile lies in y.
                *acc = unsafe { vld1q_f32(b.y.add((t.row + r) * b.y_stride + t.col + c * LANES)) };
            }
        }
    }
    acc
}

#[target_feature(enable = "neon")]
#[inline]
unsafe fn finish<const R: usize, const C: usize>(b: &Block, t: &Tile, acc: &Acc<R, C>) {
    for (r, acc) in acc.iter().enumerate() {
        for (c, acc) in acc.iter().enumerate() {
            // SAFETY: the tile lies in y.
            unsafe { vst1q_f32(b.y.add((t.row + r) * b.y_stride + t.col + c * LANES), *acc) };
        }
    }
}

/// A line per 16 columns.
#[inline(always)]
fn lines<const C: usize>(ahead: &mut Ahead) {
    match C {
        4 => ahead.step::<1>(),
        8 => ahead.step::<2>(),
        _ => ahead.step::<4>(),
    }
}

/// acc += x(r)\[LANE\] · v(c). Tall tiles keep the weights and read one activation after the other, flat ones the other way round:
/// whatever there are fewer of.
#[target_feature(enable = "neon")]
#[inline]
fn multiply<const LANE: i32, const R: usize, const C: usize>(
    acc: &mut Acc<R, C>,
    x: impl Fn(usize) -> float32x2_t,
    v: impl Fn(usize) -> float32x4_t,
) {
    if R < C {
        let mut a = [vdup_n_f32(0.0); R];
        for (r, a) in a.iter_mut().enumerate() {
            *a = x(r);
        }
        for c in 0..C {
            let v = v(c);
            for (acc, a) in acc.iter_mut().zip(a) {
                acc[c] = vfmaq_lane_f32::<LANE>(acc[c], v, a);
            }
        }
        return;
    }
    let mut columns = [vdupq_n_f32(0.0); C];
    for (c, column) in columns.iter_mut().enumerate() {
        *column = v(c);
    }
    for (r, acc) in acc.iter_mut().enumerate() {
        let a = x(r);
        for (acc, v) in acc.iter_mut().zip(columns) {
            *acc = vfmaq_lane_f32::<LANE>(*acc, v, a);
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn f32_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block, and the loop and what it leaves make `steps` steps of 64 words of w and one value of x.
    unsafe {
        let mut acc = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<f32>(), b.x_stride / size_of::<f32>());
        let mut w = b.w.add(t.col).cast::<f32>();
        let mut ahead = t.ahead;
        for _ in 0..b.steps / 2 {
            multiply::<0, R, C>(&mut acc, |r| vld1_f32(x.add(r * stride)), |c| vld1q_f32(w.add(c * LANES)));
            multiply::<1, R, C>(&mut acc, |r| vld1_f32(x.add(r * stride)), |c| vld1q_f32(w.add(PANEL + c * LANES)));
            lines::<C>(&mut ahead);
            lines::<C>(&mut ahead);
            x = x.add(2);
            w = w.add(2 * PANEL);
        }
        if b.steps % 2 == 1 {
            multiply::<0, R, C>(&mut acc, |r| vld1_dup_f32(x.add(r * stride)), |c| vld1q_f32(w.add(c * LANES)));
        }
        finish::<R, C>(b, t, &acc);
    }
}

#[target_feature(enable = "neon")]
unsafe fn bf16_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block, and the loop makes `steps` steps of 64 words of w and two values of x.
    unsafe {
        let mut acc = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<f32>(), b.x_stride / size_of::<f32>());
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        let upper = vdupq_n_u32(0xffff_0000);
        for _ in 0..b.steps {
            let odd = |c: usize| vreinterpretq_f32_u32(vandq_u32(reread(w.add(c * LANES)), upper));
            let even = |c: usize| vreinterpretq_f32_u32(vshlq_n_u32::<16>(reread(w.add(c * LANES))));
            multiply::<1, R, C>(&mut acc, |r| vld1_f32(x.add(r * stride)), odd);
            multiply::<0, R, C>(&mut acc, |r| vld1_f32(x.add(r * stride)), even);
            lines::<C>(&mut ahead);
            x = x.add(2);
            w = w.add(PANEL);
        }
        finish::<R, C>(b, t, &acc);
    }
}

/// Four words, read again at every call: a compiler that keeps them from the odd k to the even k has no registers left for the
/// accumulators and writes those to the stack.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn reread(at: *const u32) -> uint32x4_t {
    // SAFETY: the caller's pointer is good for four words and aligned.
    unsafe { at.cast::<uint32x4_t>().read_volatile() }
}

/// How bytes are multiplied.
trait Dot {
    /// sum\[i\] + Σ over j < 4 of w\[4 i + j\] · x\[4 WORD + j\], exactly.
    ///
    /// # Safety
    /// To be called from a function compiled for the instructions.
    unsafe fn dot<const WORD: i32>(sum: int32x4_t, w: int8x16_t, x: int8x8_t) -> int32x4_t;
}

/// One instruction, of the machines that have it.
struct Sdot;

/// What every AArch64 has.
struct Widening;

impl Dot for Sdot {
    #[inline(always)]
    unsafe fn dot<const WORD: i32>(sum: int32x4_t, w: int8x16_t, x: int8x8_t) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe { sdot::<WORD>(sum, w, x) }
    }
}

/// `sdot` by element; the compiler's own name for it is not stable yet.
#[target_feature(enable = "neon,dotprod")]
#[inline]
pub(crate) fn sdot<const WORD: i32>(mut sum: int32x4_t, w: int8x16_t, x: int8x8_t) -> int32x4_t {
    // SAFETY: arithmetic in registers.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {w:v}.16b, {x:v}.4b[{word}]",
            sum = inout(vreg) sum,
            w = in(vreg) w,
            x = in(vreg) x,
            word = const WORD,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

impl Dot for Widening {
    #[inline(always)]
    unsafe fn dot<const WORD: i32>(sum: int32x4_t, w: int8x16_t, x: int8x8_t) -> int32x4_t {
        // SAFETY: NEON is part of AArch64.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_lane_s32::<WORD>(vreinterpret_s32_s8(x)));
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            vpadalq_s16(sum, vpaddq_s16(low, vmull_high_s8(w, x)))
        }
    }
}

/// As `multiply`, for bytes: sum += x(r)'s four of WORD · v(c)'s.
///
/// # Safety
/// As [`Dot::dot`].
#[inline(always)]
unsafe fn multiply_bytes<D: Dot, const WORD: i32, const R: usize, const C: usize>(
    sum: &mut Sums<R, C>,
    x: impl Fn(usize) -> int8x8_t,
    v: impl Fn(usize) -> int8x16_t,
) {
    // SAFETY: the caller's promise.
    unsafe {
        if R < C {
            let mut a = [vdup_n_s8(0); R];
            for (r, a) in a.iter_mut().enumerate() {
                *a = x(r);
            }
            for c in 0..C {
                let v = v(c);
                for (sum, a) in sum.iter_mut().zip(a) {
                    sum[c] = D::dot::<WORD>(sum[c], v, a);
                }
            }
            return;
        }
        let mut columns = [vdupq_n_s8(0); C];
        for (c, column) in columns.iter_mut().enumerate() {
            *column = v(c);
        }
        for (r, sum) in sum.iter_mut().enumerate() {
            let a = x(r);
            for (sum, v) in sum.iter_mut().zip(columns) {
                *sum = D::dot::<WORD>(*sum, v, a);
            }
        }
    }
}

/// Weights less 128 by a flipped bit: the sums then start at 0 and not at the groups' start.
#[inline(always)]
unsafe fn int8_tile<D: Dot, const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block; per group the inner loop makes `GROUP_STEPS` steps of 64 words of w and four values of x. The
    // caller is compiled for `D`.
    unsafe {
        let mut total = start::<R, C>(b, t);
        let mut x = b.x.add(t.row * b.x_stride).cast::<i8>();
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        let flip = vdupq_n_u8(0x80);
        for g in 0..b.steps / GROUP_STEPS {
            let mut sum = [[vdupq_n_s32(0); C]; R];
            for _ in 0..GROUP_STEPS / 2 {
                let eight = |r: usize| vld1_s8(x.add(r * b.x_stride));
                let signed = |at: *const u32| vreinterpretq_s8_u8(veorq_u8(vld1q_u8(at.cast()), flip));
                multiply_bytes::<D, 0, R, C>(&mut sum, eight, |c| signed(w.add(c * LANES)));
                multiply_bytes::<D, 1, R, C>(&mut sum, eight, |c| signed(w.add(PANEL + c * LANES)));
                lines::<C>(&mut ahead);
                lines::<C>(&mut ahead);
                x = x.add(8);
                w = w.add(2 * PANEL);
            }
            scaled(b, b.groups.add(t.row * b.group_stride + g), b.scales.add(g * PANEL + t.col), &sum, &mut total);
        }
        finish::<R, C>(b, t, &total);
    }
}

#[inline(always)]
unsafe fn int4_tile<D: Dot, const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block; per group the inner loop makes `INT4_STEPS` steps of 64 words of w and eight values of x. The
    // caller is compiled for `D`.
    unsafe {
        let mut total = start::<R, C>(b, t);
        let mut x = b.x.add(t.row * b.x_stride).cast::<i8>();
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        let half = vdupq_n_u8(0x0f);
        for g in 0..b.steps / INT4_STEPS {
            let groups = b.groups.add(t.row * b.group_stride + g);
            let mut sum = [[vdupq_n_s32(0); C]; R];
            for (r, sum) in sum.iter_mut().enumerate() {
                *sum = [vdupq_n_s32((*groups.add(r * b.group_stride)).start); C];
            }
            for _ in 0..INT4_STEPS {
                let eight = |r: usize| vld1_s8(x.add(r * b.x_stride));
                let low = |c: usize| vreinterpretq_s8_u8(vandq_u8(vreinterpretq_u8_u32(reread(w.add(c * LANES))), half));
                let high = |c: usize| vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_u32(reread(w.add(c * LANES)))));
                multiply_bytes::<D, 0, R, C>(&mut sum, eight, low);
                multiply_bytes::<D, 1, R, C>(&mut sum, eight, high);
                lines::<C>(&mut ahead);
                x = x.add(8);
                w = w.add(PANEL);
            }
            scaled(b, groups, b.scales.add(g * PANEL + t.col), &sum, &mut total);
        }
        finish::<R, C>(b, t, &total);
    }
}

/// total = fma(sum, w_scale · x_scale, total), for the group that `groups` and `scales` point at.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scaled<const R: usize, const C: usize>(
    b: &Block,
    groups: *const Group,
    scales: *const u16,
    sum: &Sums<R, C>,
    total: &mut Acc<R, C>,
) {
    for c in 0..C {
        // SAFETY: four scales for each register of columns, and a group of each row.
        unsafe {
            let scale = vreinterpretq_f32_u32(vshlq_n_u32::<16>(vmovl_u16(vld1_u16(scales.add(c * LANES)))));
            for (r, total) in total.iter_mut().enumerate() {
                let scale = vmulq_n_f32(scale, (*groups.add(r * b.group_stride)).scale);
                total[c] = vfmaq_f32(total[c], vcvtq_f32_s32(sum[r][c]), scale);
            }
        }
    }
}
