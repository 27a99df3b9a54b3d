//! One layer's pages of keys and values, and storing new positions into them. Does not know who owns a page.

use crate::Cpu;
use crate::ops::rows::{Rows, Shared, split};
use crate::simd::LANES;
use crate::simd::tile::Element;

use super::{PAGE_TOKENS, PageId, Segment, check_segments};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvType {
    /// Exact.
    F32,
    /// Rounded to nearest even; half the memory.
    Bf16,
}

impl KvType {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::Bf16 => 2,
        }
    }
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
    /// Elements of one page.
    pub(super) fn page_elements(&self) -> usize {
        self.kv_heads * (self.k_elements() + self.v_elements())
    }
}

/// Elements as they lie in memory.
#[derive(Debug)]
pub(super) enum Storage {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

/// One layer's pages: per page the keys \[Hkv\]\[D\]\[16\] (sixteen positions side by side), then the values \[Hkv\]\[16\]\[D padded to 16\].
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
            KvType::F32 => Storage::F32(vec![0.0; elements]),
            KvType::Bf16 => Storage::Bf16(vec![0; elements]),
        };
        KvLayer { shape, pages, storage }
    }

    /// Bytes that one page of one layer takes.
    pub fn bytes_per_page(shape: KvShape, kv_type: KvType) -> usize {
        shape.page_elements() * kv_type.bytes()
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
        }
    }

    /// Copies all of one page over another.
    ///
    /// # Panics
    /// When either is not a page of the layer.
    pub fn copy_page(&mut self, from: PageId, to: PageId) {
        let n = self.shape.page_elements();
        let (from, to) = (from.0 as usize * n, to.0 as usize * n);
        match &mut self.storage {
            Storage::F32(data) => data.copy_within(from..from + n, to),
            Storage::Bf16(data) => data.copy_within(from..from + n, to),
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
            Storage::F32(data) => store_segment(cpu, Shared::new(data), shape, [k, v], segment),
            Storage::Bf16(data) => store_segment(cpu, Shared::new(data), shape, [k, v], segment),
        }
    }
}

fn store_segment<E: Element>(cpu: &Cpu, data: Shared<E>, shape: KvShape, kv: [Rows; 2], segment: &Segment) {
    let (d, padded) = (shape.head_dim, shape.padded_dim());
    let (first, end) = (segment.start, segment.start + segment.rows.len());
    let pages = first / PAGE_TOKENS..end.div_ceil(PAGE_TOKENS);
    split(cpu, pages.len(), shape.page_elements(), &|range| {
        for page in range.start + pages.start..range.end + pages.start {
            let at = segment.pages[page].0 as usize * shape.page_elements();
            // SAFETY: a page is written by one task.
            let page_data = unsafe { data.slice(at..at + shape.page_elements()) };
            let (keys, values) = page_data.split_at_mut(shape.kv_heads * shape.k_elements());
            for position in first.max(page * PAGE_TOKENS)..end.min((page + 1) * PAGE_TOKENS) {
                let (row, lane) = (segment.rows.start + position - first, position % PAGE_TOKENS);
                let [k, v] = kv.map(|x| x.row(row, shape.kv_heads * d));
                for head in 0..shape.kv_heads {
                    let keys = &mut keys[head * shape.k_elements()..(head + 1) * shape.k_elements()];
                    let values = &mut values[head * shape.v_elements() + lane * padded..][..d];
                    for i in 0..d {
                        keys[i * PAGE_TOKENS + lane] = E::from_f32(k[head * d + i]);
                        values[i] = E::from_f32(v[head * d + i]);
                    }
                }
            }
        }
    });
}
