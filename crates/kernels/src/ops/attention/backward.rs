//! The backward of attention: probabilities are computed again from q, k and the saved LSE. Does not know rotations or projections.
//!
//! Three passes, each shared out over outputs, so no sum depends on the threads: pack (queries and output gradients in tiles, keys and
//! values in the other orientation), dQ (a task is some rows, over ascending keys), dK and dV (a task is some pages, over ascending rows).
//! With S = scale·q kᵀ, P = e^(S − lse), Dᵢ = Σ dO·O: dV = Pᵀ dO, dS = P·(dO vᵀ − D), dQ = scale·dS k, dK = scale·dSᵀ q.

use super::kv::Storage;
use super::packed::{Head, Packed, TILES_PER_TASK};
use super::{AttentionSaved, AttentionShape, KvRead, KvShape, PAGE_TOKENS, check_segments};
use crate::Cpu;
use crate::ops::rows::{Rows, Shared, with_scratch};
use crate::simd::tile::{Broadcast, Element, TILE_ROWS, tile};
use crate::simd::{LANES, Simd, dispatch, exp};

/// Pages of one dK/dV task.
const PAGES_PER_TASK: usize = 4;

/// dqkv, laid out as `saved.qkv`'s matrix (same stride and column), = the gradients of q, k and v (written, not added).
///
/// # Panics
/// When the shapes disagree, a page is missing or a segment does not start at position 0.
pub fn attention_backward(cpu: &Cpu, shape: &AttentionShape, kv: KvRead, saved: AttentionSaved, dqkv: &mut [f32]) {
    let kv_shape = KvShape { kv_heads: shape.kv_heads, head_dim: shape.head_dim };
    check_segments(&kv_shape, kv.layer, kv.segments);
    assert!(shape.heads.is_multiple_of(shape.kv_heads), "attention: query heads are a multiple of key heads");
    assert!(saved.qkv.column + shape.qkv_columns() <= saved.qkv.stride, "attention_backward: q, k and v stand in the row");
    for s in kv.segments {
        assert!(s.start == 0, "attention_backward: a segment is a whole sequence");
        assert!(s.rows.end * saved.qkv.stride <= dqkv.len(), "attention_backward: dqkv has the rows");
    }
    match &kv.layer.storage {
        Storage::F32(data) => run(cpu, &Packed::new(cpu, shape, (data, None), kv.segments, saved), saved, dqkv),
        Storage::Bf16(data) => run(cpu, &Packed::new(cpu, shape, (data, None), kv.segments, saved), saved, dqkv),
        Storage::Int8 { values, scales } => {
            run(cpu, &Packed::new(cpu, shape, (values, Some(scales)), kv.segments, saved), saved, dqkv);
        }
    }
}

fn run<E: Element>(cpu: &Cpu, packed: &Packed<E>, saved: AttentionSaved, dqkv: &mut [f32]) {
    let (mut by_rows, mut by_pages) = (Vec::new(), Vec::new());
    for (i, head) in packed.heads.iter().enumerate() {
        // The longest rows first: they see the most keys, and a late long task would keep one thread waiting for another.
        by_rows.extend((0..head.tiles()).step_by(TILES_PER_TASK).rev().map(|first| (i, first)));
        by_pages.extend((0..head.pages()).step_by(PAGES_PER_TASK).map(|first| (i, first)));
    }
    let out = Shared::new(dqkv);
    let target = Target { out: &out, qkv: saved.qkv };
    cpu.run(by_rows.len(), &|task| {
        let (head, first) = (&packed.heads[by_rows[task].0], by_rows[task].1);
        query_gradients(packed, head, first..head.tiles().min(first + TILES_PER_TASK), &target, cpu);
    });
    cpu.run(by_pages.len(), &|task| {
        let (head, first) = (&packed.heads[by_pages[task].0], by_pages[task].1);
        for page in first..head.pages().min(first + PAGES_PER_TASK) {
            key_gradients(packed, head, page, saved, &target, cpu);
        }
    });
}

/// Where gradients go.
struct Target<'a> {
    out: &'a Shared<'a, f32>,
    qkv: Rows<'a>,
}

impl Target<'_> {
    /// `width` columns from `column` of row `t`.
    ///
    /// # Safety
    /// No other task holds them.
    #[expect(clippy::mut_from_ref, reason = "disjoint parts of one output, promised by the caller")]
    unsafe fn row(&self, t: usize, column: usize, width: usize) -> &mut [f32] {
        let first = t * self.qkv.stride + self.qkv.column + column;
        // SAFETY: the caller's promise.
        unsafe { self.out.slice(first..first + width) }
    }
}

/// dQ of some tiles of one head.
fn query_gradients<E: Element>(packed: &Packed<E>, head: &Head<E>, tiles: std::ops::Range<usize>, target: &Target, cpu: &Cpu) {
    let (d, padded, group) = (packed.shape.head_dim, packed.kv_shape().padded_dim(), packed.shape.group());
    for t in tiles {
        with_scratch(TILE_ROWS * padded, |dq| {
            query_tile(cpu.isa(), packed, head, t, dq);
            for r in 0..TILE_ROWS.min(head.rows - t * TILE_ROWS) {
                let row = t * TILE_ROWS + r;
                let column = (head.kv_head * group + row % group) * d;
                // SAFETY: a row's head belongs to one task.
                let out = unsafe { target.row(head.first_row + row / group, column, d) };
                for (out, x) in out.iter_mut().zip(&dq[r * padded..]) {
                    *out = x * packed.shape.scale;
                }
            }
        });
    }
}

dispatch!(fn query_tile<E: Element>(packed: &Packed<E>, head: &Head<E>, t: usize, dq: &mut [f32]) = query_tile_kernel);

/// dq\[6\]\[D padded\] of tile `t`, without the scale.
#[inline(always)]
unsafe fn query_tile_kernel<S: Simd, E: Element>(packed: &Packed<E>, head: &Head<E>, t: usize, dq: &mut [f32]) {
    let padded = packed.kv_shape().padded_dim();
    let last_row = (head.rows - 1).min(t * TILE_ROWS + TILE_ROWS - 1);
    let keys = last_row / packed.shape.group() + 1;
    let (mut p, mut ds) = ([0.0; TILE_ROWS * PAGE_TOKENS], [0.0; TILE_ROWS * PAGE_TOKENS]);
    dq.fill(0.0);
    for page in 0..keys.div_ceil(PAGE_TOKENS) {
        let steps = PAGE_TOKENS.min(keys - page * PAGE_TOKENS);
        // SAFETY: the caller's promise; packed memory is laid out for whole tiles and pages.
        unsafe {
            probabilities::<S, E>(packed, head, t, page, (&mut p, &mut ds));
            let a = Broadcast { first: ds.as_ptr(), row: PAGE_TOKENS, step: 1 };
            for column in (0..padded).step_by(LANES) {
                let place = dq.as_mut_ptr().add(column);
                let mut acc = [[S::zero(); 1]; TILE_ROWS];
                for (r, acc) in acc.iter_mut().enumerate() {
                    acc[0] = S::load(place.add(r * padded));
                }
                let b = packed.key_rows(head, page).as_ptr().add(column);
                tile::<S, f32, TILE_ROWS, 1>(&mut acc, steps, a, [b], padded);
                for (r, acc) in acc.iter().enumerate() {
                    S::store(place.add(r * padded), acc[0]);
                }
            }
        }
    }
}

/// P and dS of tile `t` with a page's sixteen keys, each \[6\]\[16\]; 0 where a row does not see the key.
#[inline(always)]
unsafe fn probabilities<S: Simd, E: Element>(
    packed: &Packed<E>,
    head: &Head<E>,
    t: usize,
    page: usize,
    out: (&mut [f32; TILE_ROWS * PAGE_TOKENS], &mut [f32; TILE_ROWS * PAGE_TOKENS]),
) {
    let d = packed.shape.head_dim;
    // SAFETY: the caller's promise; packed memory is laid out for whole tiles and pages.
    unsafe {
        let tile_of = |data: &[f32]| Broadcast { first: data.as_ptr(), row: 1, step: TILE_ROWS };
        let (mut s, mut dp) = ([[S::zero(); 1]; TILE_ROWS], [[S::zero(); 1]; TILE_ROWS]);
        tile::<S, E, TILE_ROWS, 1>(&mut s, d, tile_of(packed.queries(head, t)), [packed.keys(head, page).as_ptr()], PAGE_TOKENS);
        tile::<S, f32, TILE_ROWS, 1>(
            &mut dp,
            d,
            tile_of(packed.gradients(head, t)),
            [packed.value_columns(head, page).as_ptr()],
            PAGE_TOKENS,
        );
        for r in 0..TILE_ROWS {
            let row = t * TILE_ROWS + r;
            let seen = (row / packed.shape.group() + 1).saturating_sub(page * PAGE_TOKENS).min(PAGE_TOKENS);
            let (lse, dot) = packed.row_terms(head, row);
            let score = E::in_order::<S>(s[r][0]);
            let score = match packed.key_scales(head, page) {
                Some(scales) => S::mul(score, S::load(scales.as_ptr())),
                None => score,
            };
            let p = S::first_n(exp::<S>(S::sub(score, S::splat(lse))), S::zero(), seen);
            let ds = S::first_n(S::mul(p, S::sub(dp[r][0], S::splat(dot))), S::zero(), seen);
            S::store(out.0.as_mut_ptr().add(r * PAGE_TOKENS), p);
            S::store(out.1.as_mut_ptr().add(r * PAGE_TOKENS), ds);
        }
    }
}

/// dK and dV of one page of one head.
fn key_gradients<E: Element>(packed: &Packed<E>, head: &Head<E>, page: usize, saved: AttentionSaved, target: &Target, cpu: &Cpu) {
    let (d, padded, shape) = (packed.shape.head_dim, packed.kv_shape().padded_dim(), &packed.shape);
    let (k_column, v_column) = (shape.heads * d, (shape.heads + shape.kv_heads) * d);
    // P and dS of one task's rows, then dK and dV, then the rows' q and dO beside zeros.
    let rows = TILES_PER_TASK * TILE_ROWS;
    with_scratch(2 * rows * PAGE_TOKENS + 2 * PAGE_TOKENS * padded + 2 * rows * padded, |memory| {
        let (probabilities, rest) = memory.split_at_mut(2 * rows * PAGE_TOKENS);
        let (sums, operands) = rest.split_at_mut(2 * PAGE_TOKENS * padded);
        sums.fill(0.0);
        operands.fill(0.0);
        let first = page * PAGE_TOKENS * shape.group() / TILE_ROWS;
        for first in (first..head.tiles()).step_by(TILES_PER_TASK) {
            let tiles = first..head.tiles().min(first + TILES_PER_TASK);
            packed.copy_rows(head, first * TILE_ROWS, saved, operands);
            page_step(cpu.isa(), packed, (head, page, tiles), probabilities, operands, sums);
        }
        let (dv, dk) = sums.split_at(PAGE_TOKENS * padded);
        for j in 0..PAGE_TOKENS.min(head.rows / shape.group() - page * PAGE_TOKENS) {
            let row = head.first_row + page * PAGE_TOKENS + j;
            // SAFETY: a position's head belongs to one task.
            let (k, v) = unsafe { (target.row(row, k_column + head.kv_head * d, d), target.row(row, v_column + head.kv_head * d, d)) };
            for (out, x) in k.iter_mut().zip(&dk[j * padded..]) {
                *out = x * shape.scale;
            }
            v.copy_from_slice(&dv[j * padded..][..d]);
        }
    });
}

dispatch!(
    fn page_step<E: Element>(
        packed: &Packed<E>,
        at: (&Head<E>, usize, std::ops::Range<usize>),
        probabilities: &mut [f32],
        operands: &[f32],
        sums: &mut [f32],
    ) = page_step_kernel
);

/// Adds some tiles of rows to the page's dV and dK (`sums`, each \[16\]\[D padded\]); `operands` are the rows' dO, then q.
#[inline(always)]
unsafe fn page_step_kernel<S: Simd, E: Element>(
    packed: &Packed<E>,
    at: (&Head<E>, usize, std::ops::Range<usize>),
    probabilities: &mut [f32],
    operands: &[f32],
    sums: &mut [f32],
) {
    let (head, page, tiles) = at;
    let padded = packed.kv_shape().padded_dim();
    let half = TILES_PER_TASK * TILE_ROWS * PAGE_TOKENS;
    let rows = (tiles.len() * TILE_ROWS).min(head.rows - tiles.start * TILE_ROWS);
    let (p, ds) = probabilities.split_at_mut(half);
    let (dv, dk) = sums.split_at_mut(PAGE_TOKENS * padded);
    let (d_o, q) = operands.split_at(TILES_PER_TASK * TILE_ROWS * padded);
    // SAFETY: the caller's promise; the parts above are laid out for whole tiles.
    unsafe {
        for (i, t) in tiles.enumerate() {
            let of = |x: *mut f32| &mut *x.add(i * TILE_ROWS * PAGE_TOKENS).cast::<[f32; TILE_ROWS * PAGE_TOKENS]>();
            self::probabilities::<S, E>(packed, head, t, page, (of(p.as_mut_ptr()), of(ds.as_mut_ptr())));
        }
        for column in (0..padded).step_by(LANES) {
            for (weights, operand, sums) in [(&*p, d_o, &mut *dv), (&*ds, q, &mut *dk)] {
                let b = operand.as_ptr().add(column);
                add_keys::<S, 6>(0, rows, weights, (b, padded), sums.as_mut_ptr().add(column));
                add_keys::<S, 6>(6, rows, weights, (b, padded), sums.as_mut_ptr().add(column));
                add_keys::<S, 4>(12, rows, weights, (b, padded), sums.as_mut_ptr().add(column));
            }
        }
    }
}

/// sums\[first .. first + R\] += weightsᵀ · operand, for one vector of columns.
#[inline(always)]
unsafe fn add_keys<S: Simd, const R: usize>(first: usize, rows: usize, weights: &[f32], operand: (*const f32, usize), sums: *mut f32) {
    let (b, padded) = operand;
    // SAFETY: the caller's promise.
    unsafe {
        let place = sums.add(first * padded);
        let mut acc = [[S::zero(); 1]; R];
        for (r, acc) in acc.iter_mut().enumerate() {
            acc[0] = S::load(place.add(r * padded));
        }
        let a = Broadcast { first: weights.as_ptr().add(first), row: 1, step: PAGE_TOKENS };
        tile::<S, f32, R, 1>(&mut acc, rows, a, [b], padded);
        for (r, acc) in acc.iter().enumerate() {
            S::store(place.add(r * padded), acc[0]);
        }
    }
}
