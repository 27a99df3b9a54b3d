//! What both gradient passes of attention read, laid out once: queries and output gradients in tiles of six rows, keys by row, values by
//! column, D = Σ dO·O. Does not compute gradients.

use std::ops::Range;

use super::owners::Owners;
use super::{AttentionSaved, AttentionShape, KvRead, KvShape, PAGE_TOKENS, Segment};
use crate::Cpu;
use crate::cpu::memory::zeros;
use crate::ops::rows::{Shared, split};
use crate::simd::tile::{Element, TILE_ROWS};

/// Tiles of rows that a task takes at once.
pub(super) const TILES_PER_TASK: usize = 8;

/// One key head of one segment. Its rows are (token, head of the group).
pub(super) struct Head<'a, E> {
    pub(super) kv_head: usize,
    /// The segment's first row in the batch.
    pub(super) first_row: usize,
    pub(super) rows: usize,
    /// Position of the segment's first row: a page border.
    pub(super) start: usize,
    segment: &'a Segment<'a>,
    /// Among the segments that have rows.
    segment_index: usize,
    /// The head's keys of page p: `k[p · page_elements ..]`; values alike.
    k: &'a [E],
    v: &'a [E],
    /// Of integers, the head's scales of page p: `scales[p · page_scales ..]`, of sixteen keys, then of sixteen values.
    scales: Option<&'a [f32]>,
    first_tile: usize,
}

impl<E> Head<'_, E> {
    pub(super) fn tiles(&self) -> usize {
        self.rows.div_ceil(TILE_ROWS)
    }
    /// Pages that the segment wrote; those before belong to others.
    pub(super) fn own_pages(&self) -> Range<usize> {
        self.start / PAGE_TOKENS..self.segment.end().div_ceil(PAGE_TOKENS)
    }
    /// The first tile with a row that sees the page.
    pub(super) fn first_tile_that_sees(&self, page: usize, group: usize) -> usize {
        (page * PAGE_TOKENS).saturating_sub(self.start) * group / TILE_ROWS
    }
    /// Positions of the page that have keys.
    pub(super) fn positions(&self, page: usize) -> usize {
        PAGE_TOKENS.min(self.segment.end() - page * PAGE_TOKENS)
    }
}

/// The packed operands of all heads of all segments.
pub(super) struct Packed<'a, E> {
    pub(super) shape: AttentionShape,
    /// Segments in order, key heads within.
    pub(super) heads: Vec<Head<'a, E>>,
    owners: Owners,
    /// Scaled q, per tile \[D\]\[6\], 0 in rows that a tile lacks
    q: Vec<f32>,
    /// dO, per tile \[D\]\[6\]
    d_o: Vec<f32>,
    /// (lse, Σ dO·O) of every row of every tile; lse is +∞ in rows that a tile lacks, so their probabilities are 0.
    terms: Vec<(f32, f32)>,
    /// Keys, per key head and page \[16\]\[D padded\], 0 behind the segment's end
    k_rows: Vec<f32>,
    /// Values, per key head and page \[D\]\[16\], 0 behind the segment's end
    v_columns: Vec<f32>,
}

impl<'a, E: Element> Packed<'a, E> {
    /// `data` are the cache's elements, and the scales of integers.
    pub(super) fn new(
        cpu: &Cpu,
        shape: &AttentionShape,
        (data, scales): (&'a [E], Option<&'a [f32]>),
        kv: KvRead<'a>,
        saved: AttentionSaved,
    ) -> Self {
        let kv_shape = KvShape { kv_heads: shape.kv_heads, head_dim: shape.head_dim };
        let mut heads: Vec<Head<E>> = Vec::new();
        let segments: Vec<&Segment> = kv.segments.iter().filter(|s| !s.rows.is_empty()).collect();
        let owners = Owners::new(&segments, kv.layer.pages());
        let mut tiles = 0;
        for (segment_index, segment) in segments.into_iter().enumerate() {
            for kv_head in 0..shape.kv_heads {
                let head = Head {
                    kv_head,
                    first_row: segment.rows.start,
                    rows: segment.rows.len() * shape.group(),
                    start: segment.start,
                    segment,
                    segment_index,
                    k: &data[kv_head * kv_shape.head_elements()..],
                    v: &data[kv_head * kv_shape.head_elements() + kv_shape.k_elements()..],
                    scales: scales.map(|scales| &scales[kv_head * 2 * PAGE_TOKENS..]),
                    first_tile: tiles,
                };
                tiles += head.tiles();
                heads.push(head);
            }
        }
        let (tile_elements, pages) = (shape.head_dim * TILE_ROWS, shape.kv_heads * owners.count);
        let mut packed = Packed {
            shape: *shape,
            heads,
            owners,
            q: zeros(tiles * tile_elements),
            d_o: zeros(tiles * tile_elements),
            terms: vec![(f32::INFINITY, 0.0); tiles * TILE_ROWS],
            k_rows: zeros(pages * kv_shape.v_elements()),
            v_columns: zeros(pages * kv_shape.k_elements()),
        };
        packed.fill(cpu, saved);
        packed
    }

    pub(super) fn kv_shape(&self) -> KvShape {
        KvShape { kv_heads: self.shape.kv_heads, head_dim: self.shape.head_dim }
    }

    fn fill(&mut self, cpu: &Cpu, saved: AttentionSaved) {
        let (shape, kv_shape, heads, owners) = (self.shape, self.kv_shape(), &self.heads, &self.owners);
        let rows = [Shared::new(&mut self.q), Shared::new(&mut self.d_o)];
        let terms = Shared::new(&mut self.terms);
        let pages = [Shared::new(&mut self.k_rows), Shared::new(&mut self.v_columns)];
        let largest = heads.iter().map(|head| head.rows * shape.head_dim).max().unwrap_or(0);
        split(cpu, heads.len(), 4 * largest, &|range| {
            for head in &heads[range] {
                let tile = shape.head_dim * TILE_ROWS;
                let tiles = head.first_tile * tile..(head.first_tile + head.tiles()) * tile;
                let first = head.first_tile * TILE_ROWS;
                // SAFETY: each head has its own tiles and pages.
                let (q, d_o, terms) =
                    unsafe { (rows[0].slice(tiles.clone()), rows[1].slice(tiles), terms.slice(first..first + head.rows)) };
                fill_rows(&shape, head, saved, [q, d_o], terms);
                for page in head.own_pages() {
                    let place = place(owners, head, page);
                    let at = [kv_shape.v_elements(), kv_shape.k_elements()].map(|n| place * n..(place + 1) * n);
                    // SAFETY: as above; a page has one owner.
                    let (k, v) = unsafe { (pages[0].slice(at[0].clone()), pages[1].slice(at[1].clone())) };
                    fill_page(&kv_shape, head, page, k, v);
                }
            }
        });
    }

    /// The heads that read some of these pages besides their owner, in the batch's order, and which.
    pub(super) fn readers(&self, owner: &Head<E>, pages: &Range<usize>) -> impl Iterator<Item = (&Head<'a, E>, Range<usize>)> {
        let (pages, kv_head) = (pages.clone(), owner.kv_head);
        self.owners.readers[owner.segment_index].iter().filter_map(move |(segment, read)| {
            let read = read.start.max(pages.start)..read.end.min(pages.end);
            (!read.is_empty()).then(|| (&self.heads[segment * self.shape.kv_heads + kv_head], read))
        })
    }

    /// Scaled q of tile `t`, \[D\]\[6\].
    #[inline(always)]
    pub(super) fn queries(&self, head: &Head<E>, t: usize) -> &[f32] {
        let n = self.shape.head_dim * TILE_ROWS;
        &self.q[(head.first_tile + t) * n..][..n]
    }

    /// dO of tile `t`, \[D\]\[6\].
    #[inline(always)]
    pub(super) fn gradients(&self, head: &Head<E>, t: usize) -> &[f32] {
        let n = self.shape.head_dim * TILE_ROWS;
        &self.d_o[(head.first_tile + t) * n..][..n]
    }

    /// lse and Σ dO·O of a row.
    #[inline(always)]
    pub(super) fn row_terms(&self, head: &Head<E>, row: usize) -> (f32, f32) {
        self.terms[head.first_tile * TILE_ROWS + row]
    }

    /// The cache's keys of a page, \[D\]\[16\].
    #[inline(always)]
    pub(super) fn keys(&self, head: &'a Head<E>, page: usize) -> &'a [E] {
        let n = self.kv_shape().page_elements();
        &head.k[head.segment.pages[page].0 as usize * n..][..self.kv_shape().k_elements()]
    }

    /// Scales of the cache's keys of a page, if they are integers: sixteen.
    #[inline(always)]
    pub(super) fn key_scales(&self, head: &Head<'a, E>, page: usize) -> Option<&'a [f32]> {
        let at = head.segment.pages[page].0 as usize * self.kv_shape().page_scales();
        head.scales.map(|scales| &scales[at..at + PAGE_TOKENS])
    }

    /// Keys of a page, \[16\]\[D padded\].
    #[inline(always)]
    pub(super) fn key_rows(&self, head: &Head<E>, page: usize) -> &[f32] {
        let n = self.kv_shape().v_elements();
        &self.k_rows[place(&self.owners, head, page) * n..][..n]
    }

    /// Values of a page, \[D\]\[16\].
    #[inline(always)]
    pub(super) fn value_columns(&self, head: &Head<E>, page: usize) -> &[f32] {
        let n = self.kv_shape().k_elements();
        &self.v_columns[place(&self.owners, head, page) * n..][..n]
    }

    /// dO, then q, of the rows from `first` that a task takes, each \[rows\]\[D padded\]; the padding is left alone.
    pub(super) fn copy_rows(&self, head: &Head<E>, first: usize, saved: AttentionSaved, out: &mut [f32]) {
        let (d, padded, group) = (self.shape.head_dim, self.kv_shape().padded_dim(), self.shape.group());
        let count = TILES_PER_TASK * TILE_ROWS;
        let (d_o, q) = out.split_at_mut(count * padded);
        for (i, row) in (first..head.rows.min(first + count)).enumerate() {
            let (token, column) = (head.first_row + row / group, (head.kv_head * group + row % group) * d);
            d_o[i * padded..][..d].copy_from_slice(&saved.d_o[token * self.shape.heads * d + column..][..d]);
            q[i * padded..][..d].copy_from_slice(&saved.qkv.row(token, column + d)[column..]);
        }
    }
}

/// Where a page of a head stands in `k_rows` and `v_columns`.
#[inline(always)]
fn place<E>(owners: &Owners, head: &Head<E>, page: usize) -> usize {
    head.kv_head * owners.count + owners.places[head.segment_index][page]
}

fn fill_rows<E>(shape: &AttentionShape, head: &Head<E>, saved: AttentionSaved, out: [&mut [f32]; 2], terms: &mut [(f32, f32)]) {
    let (d, group) = (shape.head_dim, shape.group());
    let [q, d_o] = out;
    for (row, term) in terms.iter_mut().enumerate() {
        let (token, h) = (head.first_row + row / group, head.kv_head * group + row % group);
        let at = (token * shape.heads + h) * d;
        let (gradient, query) = (&saved.d_o[at..at + d], &saved.qkv.row(token, (h + 1) * d)[h * d..]);
        let place = row / TILE_ROWS * TILE_ROWS * d + row % TILE_ROWS;
        for i in 0..d {
            q[place + i * TILE_ROWS] = query[i] * shape.scale;
            d_o[place + i * TILE_ROWS] = gradient[i];
        }
        let dot = gradient.iter().zip(&saved.o[at..at + d]).fold(0.0f64, |sum, (a, b)| sum + f64::from(*a) * f64::from(*b));
        *term = (saved.lse[token * shape.heads + h], dot as f32);
    }
}

fn fill_page<E: Element>(shape: &KvShape, head: &Head<E>, page: usize, k_rows: &mut [f32], v_columns: &mut [f32]) {
    let (d, padded) = (shape.head_dim, shape.padded_dim());
    let at = head.segment.pages[page].0 as usize * shape.page_elements();
    let (k, v) = (&head.k[at..at + shape.k_elements()], &head.v[at..at + shape.v_elements()]);
    let scales = head.scales.map(|scales| &scales[head.segment.pages[page].0 as usize * shape.page_scales()..]);
    for j in 0..head.positions(page) {
        let (k_scale, v_scale) = scales.map_or((1.0, 1.0), |scales| (scales[j], scales[PAGE_TOKENS + j]));
        for i in 0..d {
            k_rows[j * padded + i] = k[i * PAGE_TOKENS + j].to_f32() * k_scale;
            v_columns[i * PAGE_TOKENS + j] = v[j * padded + i].to_f32() * v_scale;
        }
    }
}
