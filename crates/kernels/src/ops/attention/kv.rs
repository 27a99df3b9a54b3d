//! One layer's pages of keys and values, and storing new positions into them. Does not know who owns a page.

use std::ops::Range;

use crate::Cpu;
use crate::cpu::memory::zeros;
use crate::ops::linear::max_abs;
use crate::ops::rows::{Rows, Shared, split};
use crate::simd::LANES;
use crate::simd::tile::Float;

use super::{PAGE_TOKENS, PageId, Segment, check_segments};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Exact.
    F32,
    /// Rounded to nearest even; half the memory.
    Bf16,
    /// 8-bit integers with one f32 scale per position and head, for keys and for values: a bit more than a quarter.
    Int8,
}

/// Heads of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    /// Hkv
    pub kv_heads: usize,
    /// D, even
    pub head_dim: usize,
}

impl KvShape {
    /// D padded to whole vectors.
    pub(super) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }
    /// Elements of one head's keys in one page: \[D\]\[16\].
    pub(super) fn k_elements(&self) -> usize {
        self.head_dim * PAGE_TOKENS
    }
    /// Elements of one head's values in one page: \[16\]\[D padded\].
    pub(super) fn v_elements(&self) -> usize {
        PAGE_TOKENS * self.padded_dim()
    }
    /// Elements of one head in one page, its keys, then its values.
    pub(super) fn head_elements(&self) -> usize {
        self.k_elements() + self.v_elements()
    }
    /// Elements of one page.
    pub(super) fn page_elements(&self) -> usize {
        self.kv_heads * self.head_elements()
    }
    /// Scales of one page of integers: per head those of its sixteen keys, then of its sixteen values.
    pub(super) fn page_scales(&self) -> usize {
        self.kv_heads * 2 * PAGE_TOKENS
    }
}

/// Elements as they lie in memory.
#[derive(Debug)]
pub(super) enum Storage {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
    Int8 { values: Vec<i8>, scales: Vec<f32> },
}

/// One layer's pages: per page and head the keys \[D\]\[16\] (sixteen positions side by side), then the values \[16\]\[D padded to 16\], for
/// memory is read faster in few long pieces; integers have their scales \[Hkv\]\[keys, values\]\[16\] in memory of their own.
/// The memory comes zeroed from the operating system, so pages never written cost none.
#[derive(Debug)]
pub struct KvLayer {
    shape: KvShape,
    pages: usize,
    pub(super) storage: Storage,
}

impl KvLayer {
    /// Empty pages.
    ///
    /// # Panics
    /// When the head size is odd or zero.
    pub fn new(shape: KvShape, kv_type: KvType, pages: usize) -> KvLayer {
        assert!(shape.head_dim >= 2 && shape.head_dim.is_multiple_of(2) && shape.kv_heads > 0, "kv cache: an even head size");
        let elements = pages * shape.page_elements();
        let storage = match kv_type {
            KvType::F32 => Storage::F32(zeros(elements)),
            KvType::Bf16 => Storage::Bf16(zeros(elements)),
            KvType::Int8 => Storage::Int8 { values: zeros(elements), scales: zeros(pages * shape.page_scales()) },
        };
        KvLayer { shape, pages, storage }
    }

    /// Bytes that one page of one layer takes.
    pub fn bytes_per_page(shape: KvShape, kv_type: KvType) -> usize {
        match kv_type {
            KvType::F32 => 4 * shape.page_elements(),
            KvType::Bf16 => 2 * shape.page_elements(),
            KvType::Int8 => shape.page_elements() + 4 * shape.page_scales(),
        }
    }

    /// Heads.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Pages.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// How elements are kept.
    pub fn kv_type(&self) -> KvType {
        match self.storage {
            Storage::F32(_) => KvType::F32,
            Storage::Bf16(_) => KvType::Bf16,
            Storage::Int8 { .. } => KvType::Int8,
        }
    }

    /// Copies all of one page over another.
    ///
    /// # Panics
    /// When either is not a page of the layer.
    pub fn copy_page(&mut self, from: PageId, to: PageId) {
        let (n, scales_n) = (self.shape.page_elements(), self.shape.page_scales());
        match &mut self.storage {
            Storage::F32(data) => copy_part(data, n, from, to),
            Storage::Bf16(data) => copy_part(data, n, from, to),
            Storage::Int8 { values, scales } => {
                copy_part(values, n, from, to);
                copy_part(scales, scales_n, from, to);
            }
        }
    }
}

/// Writes the (rotated) keys and the values of every segment's rows into its pages. Row t's keys are `k.row(t)`, \[Hkv·D\], values alike.
///
/// # Panics
/// When the shapes disagree or a page is missing. Two segments must not write the same page.
pub fn kv_store(cpu: &Cpu, layer: &mut KvLayer, k: Rows, v: Rows, segments: &[Segment]) {
    let shape = layer.shape;
    check_segments(&shape, layer, segments);
    for segment in segments {
        match &mut layer.storage {
            Storage::F32(data) => store_floats(cpu, Shared::new(data), shape, [k, v], segment),
            Storage::Bf16(data) => store_floats(cpu, Shared::new(data), shape, [k, v], segment),
            Storage::Int8 { values, scales } => {
                let (values, scales) = (Shared::new(values), Shared::new(scales));
                each_page(cpu, &shape, segment, &|page, positions| {
                    let at = page.0 as usize * shape.page_elements();
                    let scales_at = page.0 as usize * shape.page_scales();
                    // SAFETY: a page is written by one task.
                    let (data, scales) =
                        unsafe { (values.slice(at..at + shape.page_elements()), scales.slice(scales_at..scales_at + shape.page_scales())) };
                    for position in positions {
                        store_integers(
                            &shape,
                            [k, v].map(|x| x.row(segment.row_of(position), shape.kv_heads * shape.head_dim)),
                            position,
                            data,
                            scales,
                        );
                    }
                });
            }
        }
    }
}

impl Segment<'_> {
    /// Row of the batch that holds a position.
    fn row_of(&self, position: usize) -> usize {
        self.rows.start + position - self.start
    }
}

fn copy_part<T: Copy>(data: &mut [T], n: usize, from: PageId, to: PageId) {
    let from = from.0 as usize * n;
    data.copy_within(from..from + n, to.0 as usize * n);
}

/// Calls `task(page, positions of the segment in it)`, each page once; threaded when that pays.
fn each_page(cpu: &Cpu, shape: &KvShape, segment: &Segment, task: &(dyn Fn(PageId, Range<usize>) + Sync)) {
    let (first, end) = (segment.start, segment.start + segment.rows.len());
    let pages = first / PAGE_TOKENS..end.div_ceil(PAGE_TOKENS);
    split(cpu, pages.len(), shape.page_elements(), &|range| {
        for page in range.start + pages.start..range.end + pages.start {
            task(segment.pages[page], first.max(page * PAGE_TOKENS)..end.min((page + 1) * PAGE_TOKENS));
        }
    });
}

fn store_floats<E: Float>(cpu: &Cpu, data: Shared<E>, shape: KvShape, kv: [Rows; 2], segment: &Segment) {
    let (d, padded) = (shape.head_dim, shape.padded_dim());
    each_page(cpu, &shape, segment, &|page, positions| {
        let at = page.0 as usize * shape.page_elements();
        // SAFETY: a page is written by one task.
        let page_data = unsafe { data.slice(at..at + shape.page_elements()) };
        for position in positions {
            let lane = position % PAGE_TOKENS;
            let [k, v] = kv.map(|x| x.row(segment.row_of(position), shape.kv_heads * d));
            for (head, data) in page_data.chunks_exact_mut(shape.head_elements()).enumerate() {
                let (keys, values) = data.split_at_mut(shape.k_elements());
                let values = &mut values[lane * padded..][..d];
                for i in 0..d {
                    keys[i * PAGE_TOKENS + lane] = E::from_f32(k[head * d + i]);
                    values[i] = E::from_f32(v[head * d + i]);
                }
            }
        }
    });
}

/// One position's keys and values, rounded to −127 .. 127 steps of their head's largest magnitude / 127, nearest with ties to even. A head
/// with a value that is not finite gets a scale that is NaN, so that it is not hidden.
fn store_integers(shape: &KvShape, [k, v]: [&[f32]; 2], position: usize, data: &mut [i8], scales: &mut [f32]) {
    let (d, padded, lane) = (shape.head_dim, shape.padded_dim(), position % PAGE_TOKENS);
    for (head, data) in data.chunks_exact_mut(shape.head_elements()).enumerate() {
        let (keys, values) = data.split_at_mut(shape.k_elements());
        let (k, v) = (&k[head * d..][..d], &v[head * d..][..d]);
        let scales = &mut scales[head * 2 * PAGE_TOKENS..][..2 * PAGE_TOKENS];
        let inverse = scale_of(k, &mut scales[lane]);
        for (column, x) in keys.chunks_exact_mut(PAGE_TOKENS).zip(k) {
            column[lane] = (x * inverse).round_ties_even() as i8;
        }
        let inverse = scale_of(v, &mut scales[PAGE_TOKENS + lane]);
        for (value, x) in values[lane * padded..].iter_mut().zip(v) {
            *value = (x * inverse).round_ties_even() as i8;
        }
    }
}

/// Sets the value of one step; returns steps per unit.
fn scale_of(values: &[f32], scale: &mut f32) -> f32 {
    let max = max_abs(values);
    let inverse = 127.0 / max;
    // Magnitudes so small that their inverse overflows are zero.
    let finite = max.is_finite() && inverse.is_finite();
    *scale = if max.is_finite() { if finite { max / 127.0 } else { 0.0 } } else { f32::NAN };
    if finite { inverse } else { 0.0 }
}
