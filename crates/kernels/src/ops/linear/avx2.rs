//! The kernels for AVX2 and FMA: tiles of up to 6 rows by 16 columns, 12 accumulators in the 16 registers.
//! One row takes all 64 columns at once, two rows 32, so that the weights stream through in order.
//!
//! Weights stay packed as they are and are unfolded in registers: bf16 by a shift (even k) or a mask (odd k), int8 into even and odd
//! bytes. `maddubs` would be the obvious int8 instruction, but it saturates; `madd` of 16-bit pairs is exact. For int4 `maddubs` is exact:
//! the eight pairs of a group stay below 8 · 2 · 15 · 127 < 2¹⁵, so that even their sum needs no more than 16 bits.

use super::block::{Ahead, Block, Tile};
use super::encode::Group;
use super::weight::{GROUP, PANEL};
use std::arch::x86_64::*;

/// Columns of a register.
const LANES: usize = 8;
/// Rows of the tallest tile.
const ROWS: usize = 6;
/// int8: steps (4 of K) of a group.
const GROUP_STEPS: usize = GROUP / 4;
/// int4: steps (8 of K) of a group.
const INT4_STEPS: usize = GROUP / 8;

/// Accumulators of a tile of R rows by C registers.
type Acc<const R: usize, const C: usize> = [[__m256; C]; R];

/// Runs `$tile` over the block's tiles: heights 1 to 6, each with as many columns as the registers hold.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident, $tile:ident) => {
        $(#[$doc])*
        #[target_feature(enable = "avx2,fma")]
        pub(super) unsafe fn $name(b: &Block) {
            for (index, row, height) in b.tiles(ROWS) {
                let width = match height {
                    1 => 64,
                    2 => 32,
                    _ => 16,
                };
                for col in (0..PANEL).step_by(width) {
                    let t = b.tile((index, row), (col, width), ROWS);
                    // SAFETY: the tiles partition the block, whose pointers are good for what it says.
                    unsafe {
                        match height {
                            1 => $tile::<1, 8>(b, &t),
                            2 => $tile::<2, 4>(b, &t),
                            3 => $tile::<3, 2>(b, &t),
                            4 => $tile::<4, 2>(b, &t),
                            5 => $tile::<5, 2>(b, &t),
                            _ => $tile::<6, 2>(b, &t),
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
    f32_tile
);
block!(
    /// Per pair of k: acc = fma(even, fma(odd, acc)).
    bf16_block,
    bf16_tile
);
block!(
    /// Per activation group: an exact integer sum, then acc = fma(sum, w_scale · x_scale, acc).
    int8_block,
    int8_tile
);
block!(
    /// As int8, the two halves of each byte apart.
    int4_block,
    int4_tile
);

#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn start<const R: usize, const C: usize>(b: &Block, t: &Tile) -> Acc<R, C> {
    let mut acc = [[_mm256_setzero_ps(); C]; R];
    if !b.fresh {
        for (r, acc) in acc.iter_mut().enumerate() {
            for (c, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the tile lies in y.
                *acc = unsafe { _mm256_loadu_ps(b.y.add((t.row + r) * b.y_stride + t.col + c * LANES)) };
            }
        }
    }
    acc
}

#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn finish<const R: usize, const C: usize>(b: &Block, t: &Tile, acc: &Acc<R, C>) {
    for (r, acc) in acc.iter().enumerate() {
        for (c, acc) in acc.iter().enumerate() {
            // SAFETY: the tile lies in y.
            unsafe { _mm256_storeu_ps(b.y.add((t.row + r) * b.y_stride + t.col + c * LANES), *acc) };
        }
    }
}

/// A line per 16 columns.
#[inline(always)]
fn lines<const C: usize>(ahead: &mut Ahead) {
    match C {
        2 => ahead.step::<1>(),
        4 => ahead.step::<2>(),
        _ => ahead.step::<4>(),
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block, and the loop makes `steps` steps of 64 words of w and one value of x.
    unsafe {
        let mut acc = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<f32>(), b.x_stride / size_of::<f32>());
        let mut w = b.w.add(t.col).cast::<f32>();
        let mut ahead = t.ahead;
        for _ in 0..b.steps {
            multiply(&mut acc, x, stride, |c| _mm256_load_ps(w.add(c * LANES)));
            lines::<C>(&mut ahead);
            x = x.add(1);
            w = w.add(PANEL);
        }
        finish::<R, C>(b, t, &acc);
    }
}

/// Eight words, read again at every call: a compiler that keeps them from the odd k to the even k has no registers left for the
/// accumulators and writes those to the stack, at half the speed.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn reread(at: *const u32) -> __m256i {
    // SAFETY: the caller's pointer is good for eight words and aligned.
    unsafe { at.cast::<__m256i>().read_volatile() }
}

/// acc += x · v(c) for the value at `x` of each row. Tall tiles keep the weights and read one activation after the other, flat ones
/// the other way round: whatever there are fewer of.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn multiply<const R: usize, const C: usize>(acc: &mut Acc<R, C>, x: *const f32, stride: usize, v: impl Fn(usize) -> __m256) {
    if R < C {
        let mut a = [_mm256_setzero_ps(); R];
        for (r, a) in a.iter_mut().enumerate() {
            // SAFETY: R rows of x, `stride` apart.
            *a = unsafe { _mm256_broadcast_ss(&*x.add(r * stride)) };
        }
        for c in 0..C {
            let v = v(c);
            for (acc, a) in acc.iter_mut().zip(a) {
                acc[c] = _mm256_fmadd_ps(v, a, acc[c]);
            }
        }
        return;
    }
    let mut columns = [_mm256_setzero_ps(); C];
    for (c, column) in columns.iter_mut().enumerate() {
        *column = v(c);
    }
    for (r, acc) in acc.iter_mut().enumerate() {
        // SAFETY: R rows of x, `stride` apart.
        let a = unsafe { _mm256_broadcast_ss(&*x.add(r * stride)) };
        for (acc, v) in acc.iter_mut().zip(columns) {
            *acc = _mm256_fmadd_ps(v, a, *acc);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn bf16_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block, and the loop makes `steps` steps of 64 words of w and two values of x.
    unsafe {
        let mut acc = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<f32>(), b.x_stride / size_of::<f32>());
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        let odd = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        for _ in 0..b.steps {
            multiply(&mut acc, x.add(1), stride, |c| _mm256_castsi256_ps(_mm256_and_si256(reread(w.add(c * LANES)), odd)));
            multiply(&mut acc, x, stride, |c| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(reread(w.add(c * LANES)))));
            lines::<C>(&mut ahead);
            x = x.add(2);
            w = w.add(PANEL);
        }
        finish::<R, C>(b, t, &acc);
    }
}

/// As `multiply`, for words of integers: sum = step(sum, v(c), word of x).
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn multiply_words<const R: usize, const C: usize>(
    sum: &mut [[__m256i; C]; R],
    (x, stride): (*const i32, usize),
    v: impl Fn(usize) -> __m256i,
    step: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    // SAFETY: R rows of x, `stride` apart.
    let word = |r: usize| _mm256_set1_epi32(unsafe { x.add(r * stride).read() });
    if R < C {
        let mut a = [_mm256_setzero_si256(); R];
        for (r, a) in a.iter_mut().enumerate() {
            *a = word(r);
        }
        for c in 0..C {
            let v = v(c);
            for (sum, a) in sum.iter_mut().zip(a) {
                sum[c] = step(sum[c], v, a);
            }
        }
        return;
    }
    let mut columns = [_mm256_setzero_si256(); C];
    for (c, column) in columns.iter_mut().enumerate() {
        *column = v(c);
    }
    for (r, sum) in sum.iter_mut().enumerate() {
        let a = word(r);
        for (sum, v) in sum.iter_mut().zip(columns) {
            *sum = step(*sum, v, a);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn int8_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block; per group the inner loop makes `GROUP_STEPS` steps of 64 words of w and four values of x.
    unsafe {
        let mut total = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<i32>(), b.x_stride / size_of::<i32>());
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        let low = _mm256_set1_epi16(0xff);
        for g in 0..b.steps / GROUP_STEPS {
            let groups = b.groups.add(t.row * b.group_stride + g);
            let mut sum = [[_mm256_setzero_si256(); C]; R];
            for (r, sum) in sum.iter_mut().enumerate() {
                *sum = [_mm256_set1_epi32((*groups.add(r * b.group_stride)).start); C];
            }
            for _ in 0..GROUP_STEPS {
                let pairs = |sum, v, a| _mm256_add_epi32(sum, _mm256_madd_epi16(v, a));
                multiply_words(&mut sum, (x, stride), |c| _mm256_and_si256(reread(w.add(c * LANES)), low), pairs);
                multiply_words(&mut sum, (x.add(1), stride), |c| _mm256_srli_epi16::<8>(reread(w.add(c * LANES))), pairs);
                lines::<C>(&mut ahead);
                x = x.add(2);
                w = w.add(PANEL);
            }
            let scales = b.scales.add(g * PANEL + t.col);
            scaled(b, groups, scales, &mut total, |r, c| sum[r][c]);
        }
        finish::<R, C>(b, t, &total);
    }
}

/// total = fma(sum, w_scale · x_scale, total), for the group that `groups` and `scales` point at.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn scaled<const R: usize, const C: usize>(
    b: &Block,
    groups: *const Group,
    scales: *const u16,
    total: &mut Acc<R, C>,
    sum: impl Fn(usize, usize) -> __m256i,
) {
    for c in 0..C {
        // SAFETY: eight scales for each register of columns, and a group of each row.
        unsafe {
            let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(scales.add(c * LANES).cast()));
            let scale = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits));
            for (r, total) in total.iter_mut().enumerate() {
                let scale = _mm256_mul_ps(scale, _mm256_set1_ps((*groups.add(r * b.group_stride)).scale));
                total[c] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum(r, c)), scale, total[c]);
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn int4_tile<const R: usize, const C: usize>(b: &Block, t: &Tile) {
    // SAFETY: the tile lies in the block; per group the inner loop makes `INT4_STEPS` steps of 64 words of w and eight values of x.
    unsafe {
        let mut total = start::<R, C>(b, t);
        let (mut x, stride) = (b.x.add(t.row * b.x_stride).cast::<i32>(), b.x_stride / size_of::<i32>());
        let mut w = b.w.add(t.col);
        let mut ahead = t.ahead;
        let (low, one) = (_mm256_set1_epi8(0x0f), _mm256_set1_epi16(1));
        for g in 0..b.steps / INT4_STEPS {
            let groups = b.groups.add(t.row * b.group_stride + g);
            let mut sum = [[_mm256_setzero_si256(); C]; R];
            for _ in 0..INT4_STEPS {
                let bytes = |sum, v, a| _mm256_add_epi16(sum, _mm256_maddubs_epi16(v, a));
                multiply_words(&mut sum, (x, stride), |c| _mm256_and_si256(reread(w.add(c * LANES)), low), bytes);
                let high = |c: usize| _mm256_and_si256(_mm256_srli_epi16::<4>(reread(w.add(c * LANES))), low);
                multiply_words(&mut sum, (x.add(1), stride), high, bytes);
                lines::<C>(&mut ahead);
                x = x.add(2);
                w = w.add(PANEL);
            }
            scaled(b, groups, b.scales.add(g * PANEL + t.col), &mut total, |r, c| {
                _mm256_add_epi32(_mm256_madd_epi16(sum[r][c], one), _mm256_set1_epi32((*groups.add(r * b.group_stride)).start))
            });
        }
        finish::<R, C>(b, t, &total);
    }
}
