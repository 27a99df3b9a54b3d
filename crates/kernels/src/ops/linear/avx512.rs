//! The kernels for AVX-512 with BF16 and VNNI: tiles of up to 6 rows by all 64 columns, 24 accumulators and 4 weights in the 32
//! registers; the broadcast activation is a memory operand. Seven rows would spill. Integers have two accumulators for each
//! output, the group's and the chain's, so more than three rows go over half the columns at a time.
//!
//! `vdpbf16ps` is fma(even, fma(odd, acc)) per 32-bit lane, low half even k; `vpdpbusd` takes the unsigned bytes (weights) first and
//! does not saturate.

use super::block::{Block, Tile};
use super::encode::Group;
use super::weight::{GROUP, PANEL};
use std::arch::x86_64::*;
use std::mem::transmute;

/// Columns of a register.
const LANES: usize = 16;
/// Registers of a panel.
const REGISTERS: usize = PANEL / LANES;
/// Rows of the tallest tile.
const ROWS: usize = 6;
/// int8: steps (4 of K) of a group.
const GROUP_STEPS: usize = GROUP / 4;
/// int4: steps (8 of K) of a group.
const INT4_STEPS: usize = GROUP / 8;

/// Rows of the tallest tile of integers over all columns.
const WIDE_ROWS: usize = 3;

/// Accumulators of a tile of R rows by C registers.
type Acc<const R: usize, const C: usize> = [[__m512; C]; R];

/// Runs `$tile` over the block's tiles: heights 1 to 6, over all columns up to `$wide_rows` of them and above in two halves.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident, $tile:ident, $wide_rows:expr) => {
        $(#[$doc])*
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni")]
        pub(super) unsafe fn $name(b: &Block) {
            for (index, row, height) in b.tiles(ROWS) {
                let halves = if height > $wide_rows { 2 } else { 1 };
                for col in (0..PANEL).step_by(PANEL / halves) {
                    let t = b.tile((index, row), (col, PANEL / halves), ROWS);
                    // SAFETY: the tiles partition the block, whose pointers are good for what it says.
                    unsafe {
                        match (height, halves) {
                            (1, _) => $tile::<1, REGISTERS>(b, &t),
                            (2, _) => $tile::<2, REGISTERS>(b, &t),
                            (3, _) => $tile::<3, REGISTERS>(b, &t),
                            (4, 1) => $tile::<4, REGISTERS>(b, &t),
                            (5, 1) => $tile::<5, REGISTERS>(b, &t),
                            (_, 1) => $tile::<6, REGISTERS>(b, &t),
                            (4, _) => $tile::<4, { REGISTERS / 2 }>(b, &t),
                            (5, _) => $tile::<5, { REGISTERS / 2 }>(b, &t),
                            _ => $tile::<6, { REGISTERS / 2 }>(b, &t),
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
    f32_tile,
    ROWS
);
block!(
    /// Per pair of k: acc = fma(even, fma(odd, acc)).
    bf16_block,
    bf16_tile,
    ROWS
);
block!(
    /// Per activation group: an exact integer sum, then acc = fma(sum, w_scale · x_scale, acc).
    int8_block,
    int8_tile,
    WIDE_ROWS
);
block!(
    /// As int8, the two halves of each byte apart.
    int4_block,
    int4_tile,
    WIDE_ROWS
);

#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn start<const R: usize, const C: usize>(b: &Block, t: &Tile) -> Acc<R, C> {
    let mut acc = [[_mm512_setzero_ps(); C]; R];
    if !b.fresh {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (c, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the tile lies in y.
                *acc = unsafe { _mm512_loadu_ps(b.y.add((t.row + r) * b.y_stride + t.col + c * LANES)) };
            }
        }
    }
    acc
}

#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn finish<const R: usize, const C: usize>(b: &Block, t: &Tile, acc: &Acc<R, C>) {
    for (r, acc) in acc.iter().enumerate() {
        for (c, acc) in acc.iter().enumerate() {
            // SAFETY: the tile lies in y.
            unsafe { _mm512_storeu_ps(b.y.add((t.row + r) * b.y_stride + t.col + c * LANES), *acc) };
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn f32_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block, and the loop makes `steps` steps of 64 words of w and one value of x.
    unsafe {
        let mut acc = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<f32>(), b.x_stride / size_of::<f32>());
        let mut w = b.w.add(t.col).cast::<f32>();
        let mut ahead = t.ahead;
        for _ in 0..b.steps {
            let mut v = [_mm512_setzero_ps(); C];
            for (c, v) in v.iter_mut().enumerate() {
                *v = _mm512_load_ps(w.add(c * LANES));
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let a = _mm512_set1_ps(x.add(r * stride).read());
                for (acc, v) in acc.iter_mut().zip(v) {
                    *acc = _mm512_fmadd_ps(v, a, *acc);
                }
            }
            ahead.step::<C>();
            x = x.add(1);
            w = w.add(PANEL);
        }
        finish::<R, C>(b, t, &acc);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block, and the loop makes `steps` steps of 64 words of w and one word (a pair) of x. `__m512i` and
    // `__m512bh` are the same 64 bytes.
    unsafe {
        let mut acc = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<i32>(), b.x_stride / size_of::<i32>());
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        for _ in 0..b.steps {
            let mut v = [_mm512_setzero_si512(); C];
            for (c, v) in v.iter_mut().enumerate() {
                *v = _mm512_load_si512(w.add(c * LANES).cast());
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let a = _mm512_set1_epi32(x.add(r * stride).read());
                for (acc, v) in acc.iter_mut().zip(v) {
                    *acc = _mm512_dpbf16_ps(*acc, transmute::<__m512i, __m512bh>(v), transmute::<__m512i, __m512bh>(a));
                }
            }
            ahead.step::<C>();
            x = x.add(1);
            w = w.add(PANEL);
        }
        finish::<R, C>(b, t, &acc);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn int8_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block; per group the inner loop makes `GROUP_STEPS` steps of 64 words of w and one word (four values)
    // of x.
    unsafe {
        let mut total = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<i32>(), b.x_stride / size_of::<i32>());
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        for g in 0..b.steps / GROUP_STEPS {
            let groups = b.groups.add(t.row * b.group_stride + g);
            let mut sum = [[_mm512_setzero_si512(); C]; R];
            for (r, sum) in sum.iter_mut().enumerate() {
                *sum = [_mm512_set1_epi32((*groups.add(r * b.group_stride)).start); C];
            }
            for _ in 0..GROUP_STEPS {
                let mut v = [_mm512_setzero_si512(); C];
                for (c, v) in v.iter_mut().enumerate() {
                    *v = _mm512_load_si512(w.add(c * LANES).cast());
                }
                for (r, sum) in sum.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(x.add(r * stride).read());
                    for (sum, v) in sum.iter_mut().zip(v) {
                        *sum = _mm512_dpbusd_epi32(*sum, v, a);
                    }
                }
                ahead.step::<C>();
                x = x.add(1);
                w = w.add(PANEL);
            }
            scaled(b, groups, b.scales.add(g * PANEL + t.col), &sum, &mut total);
        }
        finish::<R, C>(b, t, &total);
    }
}

/// total = fma(sum, w_scale · x_scale, total), for the group that `groups` and `scales` point at.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn scaled<const R: usize, const C: usize>(
    b: &Block,
    groups: *const Group,
    scales: *const u16,
    sum: &[[__m512i; C]; R],
    total: &mut Acc<R, C>,
) {
    for c in 0..C {
        // SAFETY: C registers of the panel's scales, and a group of each row.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(scales.add(c * LANES).cast()));
            let scale = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits));
            for (r, sum) in sum.iter().enumerate() {
                let scale = _mm512_mul_ps(scale, _mm512_set1_ps((*groups.add(r * b.group_stride)).scale));
                total[r][c] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[c]), scale, total[r][c]);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn int4_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block; per group the inner loop makes `INT4_STEPS` steps of 64 words of w and two words (eight
    // values) of x.
    unsafe {
        let mut total = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<i32>(), b.x_stride / size_of::<i32>());
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        let low = _mm512_set1_epi8(0x0f);
        for g in 0..b.steps / INT4_STEPS {
            let groups = b.groups.add(t.row * b.group_stride + g);
            let mut sum = [[_mm512_setzero_si512(); C]; R];
            for (r, sum) in sum.iter_mut().enumerate() {
                *sum = [_mm512_set1_epi32((*groups.add(r * b.group_stride)).start); C];
            }
            for _ in 0..INT4_STEPS {
                let mut v = [_mm512_setzero_si512(); C];
                for (c, v) in v.iter_mut().enumerate() {
                    *v = _mm512_load_si512(w.add(c * LANES).cast());
                }
                for half in 0..2 {
                    let bytes = v.map(|v| _mm512_and_si512(if half == 0 { v } else { _mm512_srli_epi16::<4>(v) }, low));
                    for (r, sum) in sum.iter_mut().enumerate() {
                        let a = _mm512_set1_epi32(x.add(r * stride + half).read());
                        for (sum, v) in sum.iter_mut().zip(bytes) {
                            *sum = _mm512_dpbusd_epi32(*sum, v, a);
                        }
                    }
                }
                ahead.step::<C>();
                x = x.add(2);
                w = w.add(PANEL);
            }
            scaled(b, groups, b.scales.add(g * PANEL + t.col), &sum, &mut total);
        }
        finish::<R, C>(b, t, &total);
    }
}
