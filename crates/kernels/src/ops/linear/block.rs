//! What a kernel is asked to do: some rows of activations times a part of K of one panel of 64 outputs; and which kernel does it.
//! Does not know where panels come from (a weight, or its transpose) nor how work is divided.

use super::Precision;
use super::encode::Group;
use super::weight::PANEL;
use crate::Isa;
use crate::simd::prefetch;

/// One call of a kernel: y[r, 0..64] continues its chain over `units` steps of K, for each row r.
pub(super) struct Block {
    /// Rows, at least one.
    pub(super) rows: usize,
    /// Packed activations of the first row at the block's first k, and bytes from row to row.
    pub(super) x: *const u8,
    pub(super) x_stride: usize,
    /// Integers: groups of the first row at the block's first k, and groups from row to row.
    pub(super) groups: *const Group,
    pub(super) group_stride: usize,
    /// The panel's words at the block's first k: 64 words per step (f32: one k, bf16: a pair, int8: four, int4: eight), aligned to 64 bytes.
    pub(super) w: *const u32,
    /// Integers: the panel's scales at the block's first k, bf16 bits, 64 per weight group.
    pub(super) scales: *const u16,
    /// Steps: words of K per row; integers: a multiple of a group's.
    pub(super) steps: usize,
    /// Output of the first row, and elements from row to row; 64 columns of each are written.
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
    /// Start at 0; else continue from y.
    pub(super) fresh: bool,
    /// Words that the next block will read, as many as this one reads: fetched meanwhile. May point anywhere; null fetches nothing.
    pub(super) next: *const u32,
}

/// # Safety
/// Every pointer of the block is valid for what its comment says, and the CPU has the kernel's instruction set.
pub(super) type Kernel = unsafe fn(&Block);

/// The kernel of an instruction set.
pub(super) fn kernel(isa: Isa, precision: Precision) -> Kernel {
    #[cfg(target_arch = "x86_64")]
    match (isa, precision) {
        (Isa::Amx, Precision::Bf16) => return super::amx::bf16_block,
        (Isa::Avx512 | Isa::Amx, Precision::F32) => return super::avx512::f32_block,
        (Isa::Avx512, Precision::Bf16) => return super::avx512::bf16_block,
        (Isa::Avx512 | Isa::Amx, Precision::Int8) => return super::avx512::int8_block,
        (Isa::Avx512 | Isa::Amx, Precision::Int4) => return super::avx512::int4_block,
        (Isa::Avx2, Precision::F32) => return super::avx2::f32_block,
        (Isa::Avx2, Precision::Bf16) => return super::avx2::bf16_block,
        (Isa::Avx2, Precision::Int8) => return super::avx2::int8_block,
        (Isa::Avx2, Precision::Int4) => return super::avx2::int4_block,
        (Isa::Portable | Isa::Neon | Isa::NeonDot, _) => (),
    }
    #[cfg(target_arch = "aarch64")]
    match (isa, precision) {
        (Isa::Neon | Isa::NeonDot, Precision::F32) => return super::neon::f32_block,
        (Isa::Neon | Isa::NeonDot, Precision::Bf16) => return super::neon::bf16_block,
        (Isa::Neon, Precision::Int8) => return super::neon::int8_block,
        (Isa::Neon, Precision::Int4) => return super::neon::int4_block,
        (Isa::NeonDot, Precision::Int8) => return super::neon::int8_dot_block,
        (Isa::NeonDot, Precision::Int4) => return super::neon::int4_dot_block,
        (Isa::Portable | Isa::Avx2 | Isa::Avx512 | Isa::Amx, _) => (),
    }
    let _ = isa;
    match precision {
        Precision::F32 => super::portable::f32_block,
        Precision::Bf16 => super::portable::bf16_block,
        Precision::Int8 => super::portable::int8_block,
        Precision::Int4 => super::portable::int4_block,
    }
}

/// A tile of a block.
pub(super) struct Tile {
    /// First row and first column.
    pub(super) row: usize,
    pub(super) col: usize,
    /// What to fetch for the next block meanwhile.
    pub(super) ahead: Ahead,
}

/// Fetches a stretch of memory evenly over the steps of a tile: a burst would wait for the few outstanding misses that a core has, and
/// without it a small batch gets little more than half of the memory's bandwidth.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    at: *const u8,
    bytes_per_step: usize,
}

impl Ahead {
    /// Where the stretch begins, and its bytes per step, for kernels that fetch in strides of their own.
    pub(super) fn at(&self) -> *const u8 {
        self.at
    }

    pub(super) fn bytes_per_step(&self) -> usize {
        self.bytes_per_step
    }

    /// To be called once per step with the lines that a tile alone on its panel has per step. Without a branch, which would keep the
    /// compiler from mixing loads and arithmetic: a line that several steps share is asked for several times.
    #[inline(always)]
    pub(super) fn step<const LINES: usize>(&mut self) {
        for i in 0..LINES {
            prefetch(self.at.wrapping_add(i * self.bytes_per_step / LINES));
        }
        self.at = self.at.wrapping_add(self.bytes_per_step);
    }
}

/// How far ahead of itself one row reads: the hardware's prefetcher stops at each 4 KiB. Of 512 to 16,384 bytes this reads fastest in every
/// precision on Zen 3, by a tenth; as far as 4 KiB ahead it gains nothing.
const STREAM_BYTES: usize = 1536;

impl Block {
    /// Cuts the rows into tiles of at most `most` rows, as equal as can be: (index, first row, rows).
    #[inline]
    pub(super) fn tiles(&self, most: usize) -> impl Iterator<Item = (usize, usize, usize)> + use<> {
        let count = self.rows.div_ceil(most);
        let (height, taller) = (self.rows / count, self.rows % count);
        (0..count).map(move |i| (i, i * height + i.min(taller), height + usize::from(i < taller)))
    }

    /// The tile at `row` and `col`, which is part of row tile `index` of the `tiles(most)` and `width` columns wide. Of the next block
    /// it fetches the share that it has of this one.
    #[inline]
    pub(super) fn tile(&self, (index, row): (usize, usize), (col, width): (usize, usize), most: usize) -> Tile {
        let count = self.rows.div_ceil(most);
        let share = self.next.cast::<u8>().wrapping_add(self.steps * 4 * (index * PANEL + col) / count);
        let ahead = match (self.rows, self.next.is_null()) {
            // One row alone is one stream: a little ahead of itself.
            (1, _) => Ahead { at: self.w.cast::<u8>().wrapping_add(STREAM_BYTES), bytes_per_step: width * 4 },
            (_, true) => Ahead { at: self.w.cast(), bytes_per_step: 0 },
            (_, false) => Ahead { at: share, bytes_per_step: width * 4 / count },
        };
        Tile { row, col, ahead }
    }
}
