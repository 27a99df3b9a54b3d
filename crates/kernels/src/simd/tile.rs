//! The one inner loop of all dense products that are not packed weights: R broadcast rows times C vectors, fused, ascending.

use super::Simd;

/// An element that is read as f32.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Exact.
    fn to_f32(self) -> f32;
    /// Sixteen elements, in the order that [`Element::in_order`] puts right.
    ///
    /// # Safety
    /// As [`Simd`].
    unsafe fn load<S: Simd>(p: *const Self) -> S::V;
    /// Lanes in the order of memory, after any work lane by lane.
    ///
    /// # Safety
    /// As [`Simd`].
    #[inline(always)]
    unsafe fn in_order<S: Simd>(v: S::V) -> S::V {
        v
    }
}

/// An element that holds any f32 by itself, without a scale beside it.
pub(crate) trait Float: Element {
    /// Rounded to nearest even where the type is narrower.
    fn from_f32(x: f32) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load(p) }
    }
}

impl Float for u16 {
    #[inline(always)]
    fn from_f32(x: f32) -> u16 {
        half::bf16::from_f32(x).to_bits()
    }
}

/// The bits of a bf16.
impl Element for u16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const u16) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_bf16_split(p) }
    }
    #[inline(always)]
    unsafe fn in_order<S: Simd>(v: S::V) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::join_bf16(v) }
    }
}

/// An integer; its scale stands elsewhere.
impl Element for i8 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const i8) -> S::V {
        // SAFETY: the caller's promise.
        unsafe { S::load_i8(p) }
    }
}

/// The broadcast factor of a tile: element (row r, step i) is `first[r·row + i·step]`.
#[derive(Clone, Copy)]
pub(crate) struct Broadcast {
    pub first: *const f32,
    pub row: usize,
    pub step: usize,
}

/// acc\[r\]\[c\] += Σ over i ascending below `steps` of a(r, i) · b\[c\]\[i·b_step ..\], one fused chain per lane.
///
/// # Safety
/// As [`Simd`]; all elements named are readable.
#[inline(always)]
pub(crate) unsafe fn tile<S: Simd, E: Element, const R: usize, const C: usize>(
    acc: &mut [[S::V; C]; R],
    steps: usize,
    a: Broadcast,
    b: [*const E; C],
    b_step: usize,
) {
    for i in 0..steps {
        // SAFETY: the caller's promise.
        unsafe {
            let mut vectors = [S::zero(); C];
            for (v, b) in vectors.iter_mut().zip(&b) {
                *v = E::load::<S>(b.add(i * b_step));
            }
            let a_i = a.first.add(i * a.step);
            for (r, row) in acc.iter_mut().enumerate() {
                let x = S::splat(*a_i.add(r * a.row));
                for (sum, v) in row.iter_mut().zip(&vectors) {
                    *sum = S::fma(x, *v, *sum);
                }
            }
        }
    }
}

/// Runs `$body` with the constants (`$r`, `$c`) set to a tile's rows 1 to 6 and the vectors beside each other that keep the
/// multiply-adders busy with so few rows: a chain waits some four cycles, so about twelve registers of chains are wanted.
macro_rules! with_rows {
    ($rows:expr, $simd:ident, |$r:ident, $c:ident| $body:expr) => {
        // Two matches instead of one of pairs, so that the compiler drops the half that the instruction set does not use.
        if $simd::WIDE {
            match $rows {
                1 => $crate::simd::tile::with_rows!(@ $r = 1, $c = 4, $body),
                2 => $crate::simd::tile::with_rows!(@ $r = 2, $c = 4, $body),
                3 => $crate::simd::tile::with_rows!(@ $r = 3, $c = 4, $body),
                4 => $crate::simd::tile::with_rows!(@ $r = 4, $c = 4, $body),
                5 => $crate::simd::tile::with_rows!(@ $r = 5, $c = 4, $body),
                6 => $crate::simd::tile::with_rows!(@ $r = 6, $c = 4, $body),
                _ => unreachable!("a tile has 1 to 6 rows"),
            }
        } else {
            match $rows {
                1 => $crate::simd::tile::with_rows!(@ $r = 1, $c = 4, $body),
                2 => $crate::simd::tile::with_rows!(@ $r = 2, $c = 2, $body),
                3 => $crate::simd::tile::with_rows!(@ $r = 3, $c = 2, $body),
                4 => $crate::simd::tile::with_rows!(@ $r = 4, $c = 1, $body),
                5 => $crate::simd::tile::with_rows!(@ $r = 5, $c = 1, $body),
                6 => $crate::simd::tile::with_rows!(@ $r = 6, $c = 1, $body),
                _ => unreachable!("a tile has 1 to 6 rows"),
            }
        }
    };
    (@ $r:ident = $rv:literal, $c:ident = $cv:literal, $body:expr) => {{
        const $r: usize = $rv;
        const $c: usize = $cv;
        $body
    }};
}
pub(crate) use with_rows;

/// Rows of a full tile: six rows of two registers, their two factors and a broadcast fill the sixteen registers of AVX2.
pub(crate) const TILE_ROWS: usize = 6;
