//! The kernels for AVX2 and FMA: tiles of up to 6 rows by 16 columns, 12 accumulators in the 16 registers.
//! One row takes all 64 columns at once, two rows 32, so that the weights stream through in order. Many rows of int4 are another loop.
//!
//! Weights stay packed as they are and are unfolded in registers: bf16 by a shift (even k) or a mask (odd k), int8 into even and odd
//! bytes. `maddubs` would be the obvious int8 instruction, but it saturates; `madd` of 16-bit pairs is exact. For int4 `maddubs` is exact:
//! the eight pairs of a group stay below 8 · 2 · 15 · 127 < 2¹⁵, so that even their sum needs no more than 16 bits.

use super::block::{Ahead, Block, Tile};
use super::encode::Group;
use super::weight::{GROUP, PANEL};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

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
    int4_tiles,
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
            let scale = column_scales(scales.add(c * LANES));
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

/// Rows up to which int4 goes in tiles.
const FEW_ROWS: usize = 4;
/// Rows that meet unfolded int4: their broadcast words and running outputs fill half of L1.
const STATIONARY_ROWS: usize = 32;
/// Registers that hold unfolded int4: a group of eight columns.
const UNFOLDED: usize = 2 * INT4_STEPS;

/// As int8, the two halves of each byte apart.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn int4_block(b: &Block) {
    // SAFETY: the caller's promise.
    unsafe { if b.rows <= FEW_ROWS { int4_tiles(b) } else { int4_columns(b) } }
}

/// What many rows of int4 keep in L1.
#[repr(C, align(64))]
struct Tray {
    /// Running outputs.
    totals: [[f32; PANEL]; STATIONARY_ROWS],
    /// The current group of each row.
    rows: [SpreadRow; STATIONARY_ROWS],
}

/// One row's part of a group, each word broadcast, and so the start of its sums and its scale.
#[repr(C)]
struct SpreadRow {
    words: [__m256i; UNFOLDED],
    start: __m256i,
    scale: __m256,
}

/// The weights stay instead of the sums: a group of eight columns is unfolded into eight registers, which meet one row after the other. A
/// sum needs two registers, and the running outputs wait in L1, so unfolding is paid once for many rows. A row's words are broadcast to
/// memory once for the panel's eight registers of columns: a multiplication can read memory but not broadcast, and instructions are what
/// this loop runs out of.
#[target_feature(enable = "avx2,fma")]
unsafe fn int4_columns(b: &Block) {
    let mut tray = MaybeUninit::<Tray>::uninit();
    let tray = tray.as_mut_ptr();
    for (index, row, rows) in b.tiles(STATIONARY_ROWS) {
        let mut ahead = b.tile((index, row), (0, PANEL), STATIONARY_ROWS).ahead;
        // SAFETY: the tiles partition the block, whose pointers are good for what it says; the tray has room for a tile's rows, and what is
        // read of it has been written.
        unsafe {
            for r in 0..rows {
                let (y, total) = (b.y.add((row + r) * b.y_stride), (&raw mut (*tray).totals[r]).cast::<f32>());
                if b.fresh { total.write_bytes(0, PANEL) } else { total.copy_from_nonoverlapping(y, PANEL) }
            }
            for g in 0..b.steps / INT4_STEPS {
                spread(b, (g, row, rows), tray);
                for c in (0..PANEL).step_by(LANES) {
                    if c % (2 * LANES) == 0 {
                        ahead.step::<4>();
                    }
                    int4_group(tray, (rows, c), b.w.add(g * INT4_STEPS * PANEL + c), b.scales.add(g * PANEL + c));
                }
            }
            for r in 0..rows {
                b.y.add((row + r) * b.y_stride).copy_from_nonoverlapping((&raw const (*tray).totals[r]).cast(), PANEL);
            }
        }
    }
}

/// Broadcasts group `g` of `rows` rows from `row` on into the tray.
#[target_feature(enable = "avx2,fma")]
unsafe fn spread(b: &Block, (g, row, rows): (usize, usize, usize), tray: *mut Tray) {
    for r in 0..rows {
        // SAFETY: the block has the rows and the group, the tray the rows.
        unsafe {
            let x = b.x.add((row + r) * b.x_stride).cast::<i32>().add(g * UNFOLDED);
            let group = &*b.groups.add((row + r) * b.group_stride + g);
            let out = &raw mut (*tray).rows[r];
            for i in 0..UNFOLDED {
                (*out).words[i] = _mm256_set1_epi32(x.add(i).read());
            }
            (*out).start = _mm256_set1_epi32(group.start);
            (*out).scale = _mm256_set1_ps(group.scale);
        }
    }
}

/// One group of eight columns from column `c` on for the tray's rows.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn int4_group(tray: *mut Tray, (rows, c): (usize, usize), w: *const u32, scales: *const u16) {
    let (low, one) = (_mm256_set1_epi8(0x0f), _mm256_set1_epi16(1));
    // SAFETY: the group has four words and a scale of 64 columns, the tray `rows` rows.
    unsafe {
        let mut unfolded = [_mm256_setzero_si256(); UNFOLDED];
        for s in 0..INT4_STEPS {
            let word = _mm256_load_si256(w.add(s * PANEL).cast());
            unfolded[2 * s] = _mm256_and_si256(word, low);
            unfolded[2 * s + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(word), low);
        }
        let scales = column_scales(scales);
        for r in 0..rows {
            let (row, total) = (&(*tray).rows[r], (&raw mut (*tray).totals[r][c]).cast::<f32>());
            let dot = |i: usize| _mm256_maddubs_epi16(unfolded[i], row.words[i]);
            let pair = |i: usize| _mm256_add_epi16(dot(i), dot(i + 1));
            let sum = _mm256_add_epi16(_mm256_add_epi16(pair(0), pair(2)), _mm256_add_epi16(pair(4), pair(6)));
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(sum, one), row.start));
            _mm256_storeu_ps(total, _mm256_fmadd_ps(sum, _mm256_mul_ps(scales, row.scale), _mm256_loadu_ps(total)));
        }
    }
}

/// Scales of eight columns.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn column_scales(at: *const u16) -> __m256 {
    // SAFETY: eight scales.
    let bits = unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast())) };
    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
}
