//! The forward of attention: tiles of query rows against blocks of keys. Does not know what is done with the output.
//!
//! A task is one key head and some tokens of one segment. Its rows (token, head of the group) go in tiles of six through every block:
//! scores with sixteen keys in the lanes, softmax of the block, weighted values with the head's columns in the lanes, merge. The first
//! tile brings the block from memory: it fetches the pages ahead of its reading.

use super::kv::Storage;
use super::{AttentionOutput, AttentionShape, BLOCK_TOKENS, KvRead, KvShape, PAGE_TOKENS, PageId, Rows, Segment, check_segments};
use crate::Cpu;
use crate::ops::rows::{Shared, with_scratch};
use crate::simd::tile::{Broadcast, Element, TILE_ROWS, tile, with_rows};
use crate::simd::{LANES, Simd, dispatch, exp, log_sum_exp, prefetch};

/// Query rows of one task: enough to reuse a block of keys from the second-level cache, few enough to share out.
const TASK_ROWS: usize = 96;

/// o\[T, H·D\] = softmax(scale · q kᵀ) v over positions up to each row's own, lse\[T, H\] beside it. q's heads start at `q.column`.
///
/// # Panics
/// When the shapes disagree or a page is missing.
pub fn attention(cpu: &Cpu, shape: &AttentionShape, q: Rows, kv: KvRead, output: AttentionOutput) {
    let kv_shape = KvShape { kv_heads: shape.kv_heads, head_dim: shape.head_dim };
    check_segments(&kv_shape, kv.layer, kv.segments);
    assert!(shape.heads.is_multiple_of(shape.kv_heads), "attention: query heads are a multiple of key heads");
    match &kv.layer.storage {
        Storage::F32(data) => run_tasks(cpu, shape, q, Cache { data, scales: None, segments: kv.segments }, output),
        Storage::Bf16(data) => run_tasks(cpu, shape, q, Cache { data, scales: None, segments: kv.segments }, output),
        Storage::Int8 { values, scales } => {
            run_tasks(cpu, shape, q, Cache { data: values, scales: Some(scales), segments: kv.segments }, output);
        }
    }
}

/// The cache with its element type known.
struct Cache<'a, E> {
    data: &'a [E],
    /// Of integers.
    scales: Option<&'a [f32]>,
    segments: &'a [Segment<'a>],
}

/// Some tokens of one segment and one key head.
struct Task<'a, E> {
    /// Keys of the head in page p: `k[p · page_elements ..]`.
    k: &'a [E],
    /// Values of the head in page p: `v[p · page_elements ..]`.
    v: &'a [E],
    /// Scales of the head in page p, of integers: `scales[p · page_scales ..]`, sixteen of keys, sixteen of values.
    scales: Option<&'a [f32]>,
    pages: &'a [PageId],
    shape: KvShape,
    group: usize,
    /// Position of the task's first token.
    start: usize,
    /// (token, head of the group)
    rows: usize,
}

fn run_tasks<E: Element>(cpu: &Cpu, shape: &AttentionShape, q: Rows, cache: Cache<E>, output: AttentionOutput) {
    let kv_shape = KvShape { kv_heads: shape.kv_heads, head_dim: shape.head_dim };
    let (group, d) = (shape.group(), shape.head_dim);
    let task_tokens = (TASK_ROWS / group).max(1);
    let mut parts = Vec::new();
    for s in cache.segments {
        for first in (0..s.rows.len()).step_by(task_tokens) {
            parts.push((s, first..s.rows.len().min(first + task_tokens)));
        }
    }
    let width = shape.heads * d;
    let (o, lse) = (Shared::new(output.o), Shared::new(output.lse));
    cpu.run(parts.len() * shape.kv_heads, &|i| {
        let (segment, tokens) = &parts[i / shape.kv_heads];
        let head = i % shape.kv_heads;
        let keys = head * kv_shape.head_elements();
        let task = Task {
            k: &cache.data[keys..],
            v: &cache.data[keys + kv_shape.k_elements()..],
            scales: cache.scales.map(|scales| &scales[head * 2 * PAGE_TOKENS..]),
            pages: segment.pages,
            shape: kv_shape,
            group,
            start: segment.start + tokens.start,
            rows: tokens.len() * group,
        };
        let scratch = Scratch::layout(&task);
        with_scratch(scratch.len, |memory| {
            let first_row = segment.rows.start + tokens.start;
            let columns = head * group * d..(head + 1) * group * d;
            for t in 0..tokens.len() {
                let row = &q.row(first_row + t, width)[columns.clone()];
                scratch.pack_queries(memory, &task, t, row, shape.scale);
            }
            attend(cpu.isa(), &task, &scratch, memory);
            for t in 0..tokens.len() {
                let (row, heads) = (first_row + t, head * group..(head + 1) * group);
                let at = row * width + columns.start;
                // SAFETY: a token's heads belong to one task.
                let (o, lse) =
                    unsafe { (o.slice(at..at + columns.len()), lse.slice(row * shape.heads + heads.start..row * shape.heads + heads.end)) };
                scratch.finish(memory, &task, t, o, lse);
            }
        });
    });
}

/// Where a task's intermediate values stand in its memory.
struct Scratch {
    /// Scaled queries, per tile \[D\]\[rows of the tile\]
    q: usize,
    /// Output so far, \[rows\]\[D padded\]
    o: usize,
    /// Maximum so far, \[rows\]
    maximum: usize,
    /// Sum so far, \[rows\]
    sum: usize,
    /// Scores, then probabilities of one tile and block, \[6\]\[256\]
    scores: usize,
    /// Weighted values of one tile and block, \[6\]\[D padded\]
    block: usize,
    len: usize,
}

impl Scratch {
    fn layout<E>(task: &Task<E>) -> Scratch {
        let (rows, padded) = (task.rows, task.shape.padded_dim());
        let o = (rows * task.shape.head_dim).next_multiple_of(LANES);
        let maximum = o + rows * padded;
        let sum = maximum + rows;
        let scores = (sum + rows).next_multiple_of(LANES);
        let block = scores + TILE_ROWS * BLOCK_TOKENS;
        Scratch { q: 0, o, maximum, sum, scores, block, len: block + TILE_ROWS * padded }
    }

    /// Puts the group's heads of token `t` into their tiles and starts their rows.
    fn pack_queries<E>(&self, memory: &mut [f32], task: &Task<E>, t: usize, heads: &[f32], scale: f32) {
        let (d, padded) = (task.shape.head_dim, task.shape.padded_dim());
        for (h, head) in heads.chunks(d).enumerate() {
            let row = t * task.group + h;
            let first = row / TILE_ROWS * TILE_ROWS;
            let tile_rows = TILE_ROWS.min(task.rows - first);
            let tile = &mut memory[self.q + first * d..][..tile_rows * d];
            for (i, x) in head.iter().enumerate() {
                tile[i * tile_rows + row - first] = x * scale;
            }
            memory[self.o + row * padded..][..padded].fill(0.0);
            memory[self.maximum + row] = f32::MIN;
            memory[self.sum + row] = 0.0;
        }
    }

    fn finish<E>(&self, memory: &[f32], task: &Task<E>, t: usize, o: &mut [f32], lse: &mut [f32]) {
        let (d, padded) = (task.shape.head_dim, task.shape.padded_dim());
        for (h, (o, lse)) in o.chunks_mut(d).zip(lse).enumerate() {
            let row = t * task.group + h;
            let sum = memory[self.sum + row];
            *lse = log_sum_exp(memory[self.maximum + row], sum);
            for (o, x) in o.iter_mut().zip(&memory[self.o + row * padded..]) {
                *o = x / sum;
            }
        }
    }
}

dispatch!(fn attend<E: Element>(task: &Task<E>, scratch: &Scratch, memory: &mut [f32]) = attend_kernel);

#[inline(always)]
unsafe fn attend_kernel<S: Simd, E: Element>(task: &Task<E>, scratch: &Scratch, memory: &mut [f32]) {
    let last = task.start + (task.rows - 1) / task.group;
    for block in 0..=last / BLOCK_TOKENS {
        for first in (0..task.rows).step_by(TILE_ROWS) {
            let rows = TILE_ROWS.min(task.rows - first);
            let keys = |row: usize| (task.start + (first + row) / task.group + 1).saturating_sub(block * BLOCK_TOKENS).min(BLOCK_TOKENS);
            if keys(rows - 1) == 0 {
                continue;
            }
            let mut counts = [0; TILE_ROWS];
            for (row, count) in counts.iter_mut().enumerate().take(rows) {
                *count = keys(row);
            }
            let at = At { first, rows, block, counts };
            // SAFETY: the caller's promise.
            unsafe {
                block_tile::<S, E>(task, scratch, memory, &at);
            }
        }
    }
}

/// One number for each row of a tile.
type PerRow = [f32; TILE_ROWS];

/// One tile in one block.
struct At {
    /// First row of the tile.
    first: usize,
    rows: usize,
    block: usize,
    /// Keys of the block that each row sees; ascending, 0 for rows whose token stands before the block.
    counts: [usize; TILE_ROWS],
}

#[inline(always)]
unsafe fn block_tile<S: Simd, E: Element>(task: &Task<E>, scratch: &Scratch, memory: &mut [f32], at: &At) {
    // SAFETY: the caller's promise; offsets as laid out.
    unsafe {
        with_rows!(at.rows, S, |R, C| score::<S, E, R, C>(task, scratch, memory, at));
        if let Some(scales) = task.scales {
            scale::<S, E>(task, (scales, 0), &mut memory[scratch.scores..], at);
        }
        let (maxima, sums) = softmax::<S>(&mut memory[scratch.scores..][..TILE_ROWS * BLOCK_TOKENS], at);
        if let Some(scales) = task.scales {
            scale::<S, E>(task, (scales, PAGE_TOKENS), &mut memory[scratch.scores..], at);
        }
        with_rows!(at.rows, S, |R, C| weigh::<S, E, R, C>(task, scratch, memory, at));
        merge::<S, E>(task, scratch, memory, at, (maxima, sums));
    }
}

/// Scores of the tile's rows with the block's keys.
#[inline(always)]
unsafe fn score<S: Simd, E: Element, const R: usize, const C: usize>(task: &Task<E>, scratch: &Scratch, memory: &mut [f32], at: &At) {
    let pages = at.counts[R - 1].div_ceil(PAGE_TOKENS);
    let mut done = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while done + C <= pages {
            score_pages::<S, E, R, C>(task, scratch, memory, at, done);
            done += C;
        }
        while done < pages {
            score_pages::<S, E, R, 1>(task, scratch, memory, at, done);
            done += 1;
        }
    }
}

/// [`score`] for the C pages of the block from `first` on.
#[inline(always)]
unsafe fn score_pages<S: Simd, E: Element, const R: usize, const C: usize>(
    task: &Task<E>,
    scratch: &Scratch,
    memory: &mut [f32],
    at: &At,
    first: usize,
) {
    let d = task.shape.head_dim;
    let base = memory.as_mut_ptr();
    let a = Broadcast { first: base.wrapping_add(scratch.q + at.first * d), row: 1, step: R };
    let pieces = |first: usize| std::array::from_fn(|c| task.piece(at, 0, first + c));
    let (b, next): ([_; C], [_; C]) = (pieces(first), pieces(first + ahead::<E, C>()));
    // SAFETY: pages were checked against the cache; the tile's memory is laid out for R rows of a block.
    unsafe {
        let mut acc = [[S::zero(); C]; R];
        if at.first == 0 {
            tile_ahead::<S, E, R, C>(&mut acc, d, a, (b, PAGE_TOKENS), next);
        } else {
            tile::<S, E, R, C>(&mut acc, d, a, b, PAGE_TOKENS);
        }
        for (r, row) in acc.iter().enumerate() {
            for (c, v) in row.iter().enumerate() {
                S::store(base.add(scratch.scores + r * BLOCK_TOKENS + (first + c) * PAGE_TOKENS), E::in_order::<S>(*v));
            }
        }
    }
}

/// Pieces (a head's keys or values of one page) between what is read and what is fetched: 4 KiB of heads of 64, more hardly matters.
/// At least the C that are read at once.
const fn ahead<E, const C: usize>() -> usize {
    let pieces = 4 / size_of::<E>();
    if pieces > C { pieces } else { C }
}

/// Steps of a tile whose sixteen elements each fill whole cache lines, one per byte of an element.
const LINE_STEPS: usize = 4;

/// [`tile`] that meanwhile fetches as much from `ahead` as it reads from `b`, evenly: a burst would wait for the few misses that may be
/// outstanding, and the hardware's prefetcher does not know the next page.
#[inline(always)]
unsafe fn tile_ahead<S: Simd, E: Element, const R: usize, const C: usize>(
    acc: &mut [[S::V; C]; R],
    steps: usize,
    a: Broadcast,
    (b, b_step): ([*const E; C], usize),
    ahead: [*const E; C],
) {
    let from = |i: usize| (Broadcast { first: a.first.wrapping_add(i * a.step), ..a }, b.map(|b| b.wrapping_add(i * b_step)));
    let mut done = 0;
    // SAFETY: the caller's promise.
    unsafe {
        while done + LINE_STEPS <= steps {
            for piece in ahead {
                for line in 0..size_of::<E>() {
                    prefetch(piece.wrapping_add(done * LANES).cast::<u8>().wrapping_add(line * 64));
                }
            }
            let (a, b) = from(done);
            tile::<S, E, R, C>(acc, LINE_STEPS, a, b, b_step);
            done += LINE_STEPS;
        }
        let (a, b) = from(done);
        tile::<S, E, R, C>(acc, steps - done, a, b, b_step);
    }
}

impl<E: Element> Task<'_, E> {
    /// Memory is read in pieces: the keys of a block's pages, their values, the keys of the next block. Piece `i` of this order from
    /// the block's keys (`kind` 0) or values (1) on; behind the last, that again.
    #[inline(always)]
    fn piece(&self, at: &At, kind: usize, i: usize) -> *const E {
        let first = at.block * (BLOCK_TOKENS / PAGE_TOKENS);
        let pages = (BLOCK_TOKENS / PAGE_TOKENS).min(self.pages.len() - first);
        let (kind, i) = if i < pages { (kind, i) } else { (kind + 1, i - pages) };
        let page = first + if kind == 2 { BLOCK_TOKENS / PAGE_TOKENS } else { 0 } + i;
        let start = if kind == 1 { self.v } else { self.k };
        start.as_ptr().wrapping_add(self.pages[page.min(self.pages.len() - 1)].0 as usize * self.shape.page_elements())
    }
}

/// Multiplies what stands for each key (a score of the integers, or a probability) by its scale: that of the key, or `skip` behind it of
/// the value. Lanes behind a row's keys get what stands there and are not read.
#[inline(always)]
unsafe fn scale<S: Simd, E: Element>(task: &Task<E>, (scales, skip): (&[f32], usize), rows: &mut [f32], at: &At) {
    let pages = &task.pages[at.block * (BLOCK_TOKENS / PAGE_TOKENS)..];
    for r in 0..at.rows {
        let row = &mut rows[r * BLOCK_TOKENS..][..at.counts[r].next_multiple_of(LANES)];
        for (x, page) in row.chunks_exact_mut(LANES).zip(pages) {
            let scales = &scales[page.0 as usize * task.shape.page_scales() + skip..][..LANES];
            // SAFETY: the caller's promise; whole vectors.
            unsafe { S::store(x.as_mut_ptr(), S::mul(S::load(x.as_ptr()), S::load(scales.as_ptr()))) };
        }
    }
}

/// Scores to exponentials in place; each row's maximum and sum.
#[inline(always)]
unsafe fn softmax<S: Simd>(scores: &mut [f32], at: &At) -> (PerRow, PerRow) {
    let (mut maxima, mut sums) = ([f32::MIN; TILE_ROWS], [0.0; TILE_ROWS]);
    for r in 0..at.rows {
        let row = &mut scores[r * BLOCK_TOKENS..][..at.counts[r].next_multiple_of(LANES)];
        let valid = |i: usize| (at.counts[r] - i * LANES).min(LANES);
        // SAFETY: the caller's promise; whole vectors of the row.
        unsafe {
            let lowest = S::splat(f32::MIN);
            let mut maximum = lowest;
            for (i, x) in row.chunks_exact(LANES).enumerate() {
                let x = S::load(x.as_ptr());
                maximum = S::max(maximum, if valid(i) < LANES { S::first_n(x, lowest, valid(i)) } else { x });
            }
            maxima[r] = S::maximum(maximum);
            let (mut sum, maximum) = (S::zero(), S::splat(maxima[r]));
            for (i, x) in row.chunks_exact_mut(LANES).enumerate() {
                let e = exp::<S>(S::sub(S::load(x.as_ptr()), maximum));
                let e = if valid(i) < LANES { S::first_n(e, S::zero(), valid(i)) } else { e };
                sum = S::add(sum, e);
                S::store(x.as_mut_ptr(), e);
            }
            sums[r] = S::sum(sum);
        }
    }
    (maxima, sums)
}

/// Σ probability · value over the block's keys, ascending.
#[inline(always)]
unsafe fn weigh<S: Simd, E: Element, const R: usize, const C: usize>(task: &Task<E>, scratch: &Scratch, memory: &mut [f32], at: &At) {
    let vectors = task.shape.padded_dim() / LANES;
    // The first tile streams the block from memory, page by page; for the others it is in cache, and sums stay in registers.
    let streamed = if at.first == 0 { at.counts[0] / PAGE_TOKENS } else { 0 };
    // SAFETY: the caller's promise.
    unsafe {
        for page in 0..streamed {
            weigh_page::<S, E, R, C>(task, scratch, memory, at, page);
        }
        let mut done = 0;
        while done + C <= vectors {
            weigh_columns::<S, E, R, C>(task, scratch, memory, at, (streamed * PAGE_TOKENS, done));
            done += C;
        }
        while done < vectors {
            weigh_columns::<S, E, R, 1>(task, scratch, memory, at, (streamed * PAGE_TOKENS, done));
            done += 1;
        }
    }
}

/// [`weigh`] for a page that all rows see whole; fetches ahead.
#[inline(always)]
unsafe fn weigh_page<S: Simd, E: Element, const R: usize, const C: usize>(
    task: &Task<E>,
    scratch: &Scratch,
    memory: &mut [f32],
    at: &At,
    page: usize,
) {
    let padded = task.shape.padded_dim();
    let base = memory.as_mut_ptr();
    let a = Broadcast { first: base.wrapping_add(scratch.scores + page * PAGE_TOKENS), row: BLOCK_TOKENS, step: 1 };
    let (piece, next) = (task.piece(at, 1, page), task.piece(at, 1, page + ahead::<E, C>()));
    // SAFETY: pages were checked against the cache; the tile's memory is laid out for R rows of a block.
    unsafe {
        let sums = base.add(scratch.block);
        let mut column = 0;
        while column + C * LANES <= padded {
            let mut acc = load_sums::<S, R, C>(sums.add(column), padded, page == 0);
            let b = beside(piece.add(column), LANES);
            tile_ahead::<S, E, R, C>(&mut acc, PAGE_TOKENS, a, (b, padded), beside(next.add(column * PAGE_TOKENS), LANES * PAGE_TOKENS));
            store_sums::<S, R, C>(sums.add(column), padded, &acc);
            column += C * LANES;
        }
        while column < padded {
            let mut acc = load_sums::<S, R, 1>(sums.add(column), padded, page == 0);
            tile_ahead::<S, E, R, 1>(&mut acc, PAGE_TOKENS, a, ([piece.add(column)], padded), [next.add(column * PAGE_TOKENS)]);
            store_sums::<S, R, 1>(sums.add(column), padded, &acc);
            column += LANES;
        }
    }
}

/// C places beside each other.
#[inline(always)]
fn beside<E, const C: usize>(first: *const E, step: usize) -> [*const E; C] {
    std::array::from_fn(|c| first.wrapping_add(c * step))
}

/// What R rows of C vectors have so far: `sums[r · padded ..]`, or 0.
#[inline(always)]
unsafe fn load_sums<S: Simd, const R: usize, const C: usize>(sums: *const f32, padded: usize, fresh: bool) -> [[S::V; C]; R] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut acc = [[S::zero(); C]; R];
        if !fresh {
            for (r, row) in acc.iter_mut().enumerate() {
                for (c, v) in row.iter_mut().enumerate() {
                    *v = S::load(sums.add(r * padded + c * LANES));
                }
            }
        }
        acc
    }
}

/// The inverse of [`load_sums`].
#[inline(always)]
unsafe fn store_sums<S: Simd, const R: usize, const C: usize>(sums: *mut f32, padded: usize, acc: &[[S::V; C]; R]) {
    for (r, row) in acc.iter().enumerate() {
        for (c, v) in row.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { S::store(sums.add(r * padded + c * LANES), *v) };
        }
    }
}

/// [`weigh`] for the keys from `start` on and the C vectors of columns from `vector` on. Keys that only some of the tile's rows see are
/// added row by row, so that a row never meets a key behind its own position (0 · NaN, and the sign of a zero).
#[inline(always)]
unsafe fn weigh_columns<S: Simd, E: Element, const R: usize, const C: usize>(
    task: &Task<E>,
    scratch: &Scratch,
    memory: &mut [f32],
    at: &At,
    (start, vector): (usize, usize),
) {
    let padded = task.shape.padded_dim();
    let pages = &task.pages[at.block * (BLOCK_TOKENS / PAGE_TOKENS)..];
    let base = memory.as_mut_ptr();
    // SAFETY: pages were checked against the cache; the tile's memory is laid out for R rows of a block.
    unsafe {
        let columns = |key: usize| {
            let page = pages[key / PAGE_TOKENS].0 as usize * task.shape.page_elements();
            beside(task.v.as_ptr().add(page + key % PAGE_TOKENS * padded + vector * LANES), LANES)
        };
        let (sums, probabilities) = (base.add(scratch.block + vector * LANES), base.add(scratch.scores));
        let mut acc = load_sums::<S, R, C>(sums, padded, start == 0);
        let shared = at.counts[0];
        for key in (start..shared).step_by(PAGE_TOKENS) {
            let a = Broadcast { first: probabilities.add(key), row: BLOCK_TOKENS, step: 1 };
            tile::<S, E, R, C>(&mut acc, PAGE_TOKENS.min(shared - key), a, columns(key), padded);
        }
        for (r, row) in acc.iter_mut().enumerate() {
            let mut one = [*row];
            for key in shared..at.counts[r] {
                let a = Broadcast { first: probabilities.add(r * BLOCK_TOKENS + key), row: 0, step: 0 };
                tile::<S, E, 1, C>(&mut one, 1, a, columns(key), padded);
            }
            *row = one[0];
        }
        store_sums::<S, R, C>(sums, padded, &acc);
    }
}

/// Adds the block to what the rows have so far, both rescaled to the larger maximum.
#[inline(always)]
unsafe fn merge<S: Simd, E: Element>(task: &Task<E>, scratch: &Scratch, memory: &mut [f32], at: &At, block: (PerRow, PerRow)) {
    let padded = task.shape.padded_dim();
    let (maxima, sums) = block;
    let mut scales = [[0.0f32; LANES]; 2];
    for r in 0..at.rows {
        let so_far = &mut memory[scratch.maximum + at.first + r];
        let maximum = if *so_far > maxima[r] { *so_far } else { maxima[r] };
        scales[0][r] = *so_far - maximum;
        scales[1][r] = maxima[r] - maximum;
        if at.counts[r] > 0 {
            *so_far = maximum;
        }
    }
    // SAFETY: the caller's promise; offsets as laid out.
    unsafe {
        for s in &mut scales {
            S::store(s.as_mut_ptr(), exp::<S>(S::load(s.as_ptr())));
        }
        for r in 0..at.rows {
            if at.counts[r] == 0 {
                continue;
            }
            let (old, new) = (scales[0][r], scales[1][r]);
            let sum = &mut memory[scratch.sum + at.first + r];
            *sum = sums[r] * new + *sum * old;
            let (old, new) = (S::splat(old), S::splat(new));
            let o = memory.as_mut_ptr().add(scratch.o + (at.first + r) * padded);
            let block = memory.as_ptr().add(scratch.block + r * padded);
            for i in (0..padded).step_by(LANES) {
                S::store(o.add(i), S::fma(E::in_order::<S>(S::load(block.add(i))), new, S::mul(S::load(o.add(i)), old)));
            }
        }
    }
}
