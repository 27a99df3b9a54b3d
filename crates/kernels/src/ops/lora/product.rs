//! The thin dense product behind both directions: rows times a small factor. Does not know which of the adapter's factors it is given.

use std::ops::Range;

use crate::ops::rows::{Rows, Shared, with_scratch};
use crate::simd::tile::{Broadcast, TILE_ROWS, tile, with_rows};
use crate::simd::{LANES, Simd, dispatch};

/// out(row, column) = or += scale · Σ over ascending i of a(row, i) · b\[i\]\[column\].
pub(super) struct Product<'a> {
    pub(super) a: Rows<'a>,
    /// \[steps\]\[columns\]
    pub(super) b: &'a [f32],
    pub(super) steps: usize,
    pub(super) columns: usize,
    pub(super) scale: f32,
    pub(super) epilogue: Epilogue,
}

/// What happens to the output's old value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Epilogue {
    Store,
    Add,
}

/// Rows of an output that several tasks write.
pub(super) struct Output<'a> {
    pub(super) data: &'a Shared<'a, f32>,
    pub(super) stride: usize,
    pub(super) column: usize,
}

dispatch!(
    /// The given rows and columns of the product.
    ///
    /// `columns.start` is a multiple of 16. No other task may write the same rows and columns.
    pub(super) fn product(p: &Product, rows: Range<usize>, columns: Range<usize>, out: &Output) = product_kernel
);

#[inline(always)]
unsafe fn product_kernel<S: Simd>(p: &Product, rows: Range<usize>, columns: Range<usize>, out: &Output) {
    assert!(p.b.len() == p.steps * p.columns && columns.end <= p.columns, "lora: a factor of its shape");
    assert!(columns.end + out.column <= out.stride, "lora: the output has the columns");
    // The furthest element is checked here; the loops below stay inside.
    let _ = (out.data.at((rows.end - 1) * out.stride + out.column + columns.end), p.a.row(rows.end - 1, p.steps));
    let full = columns.start + (columns.len() / LANES) * LANES;
    // SAFETY: the caller's promise; the rows and columns were checked.
    unsafe {
        let mut first = rows.start;
        while first < rows.end {
            let count = TILE_ROWS.min(rows.end - first);
            with_rows!(count, S, |R, C| {
                let mut column = columns.start;
                while column + C * LANES <= full {
                    let b = std::array::from_fn(|c| p.b.as_ptr().wrapping_add(column + c * LANES));
                    product_tile::<S, R, C>(p, first, column, (b, p.columns, LANES), out);
                    column += C * LANES;
                }
                while column < full {
                    product_tile::<S, R, 1>(p, first, column, ([p.b.as_ptr().add(column)], p.columns, LANES), out);
                    column += LANES;
                }
            });
            first += count;
        }
        if full < columns.end {
            product_tail::<S>(p, rows, full..columns.end, out);
        }
    }
}

/// The last, partial vector of columns: the factor's strip is copied beside zeros first.
#[inline(always)]
unsafe fn product_tail<S: Simd>(p: &Product, rows: Range<usize>, columns: Range<usize>, out: &Output) {
    let n = columns.len();
    with_scratch(p.steps * LANES, |strip| {
        for i in 0..p.steps {
            let row = &mut strip[i * LANES..(i + 1) * LANES];
            row[..n].copy_from_slice(&p.b[i * p.columns + columns.start..][..n]);
            row[n..].fill(0.0);
        }
        // SAFETY: the caller's promise.
        unsafe { product_strip::<S>(p, rows, columns, strip.as_ptr(), out) }
    });
}

#[inline(always)]
unsafe fn product_strip<S: Simd>(p: &Product, rows: Range<usize>, columns: Range<usize>, strip: *const f32, out: &Output) {
    let mut first = rows.start;
    while first < rows.end {
        let count = TILE_ROWS.min(rows.end - first);
        // SAFETY: the caller's promise.
        unsafe {
            with_rows!(count, S, |R, C| {
                const { assert!(C > 0) };
                product_tile::<S, R, 1>(p, first, columns.start, ([strip], LANES, columns.len()), out);
            });
        }
        first += count;
    }
}

/// R rows from `first` and C vectors of columns from `column`; of the factor: where each vector starts, its step, the lanes that count.
#[inline(always)]
unsafe fn product_tile<S: Simd, const R: usize, const C: usize>(
    p: &Product,
    first: usize,
    column: usize,
    factor: ([*const f32; C], usize, usize),
    out: &Output,
) {
    let (b, b_step, lanes) = factor;
    // SAFETY: the caller's promise.
    unsafe {
        let a = Broadcast { first: p.a.data.as_ptr().add(first * p.a.stride + p.a.column), row: p.a.stride, step: 1 };
        let mut acc = [[S::zero(); C]; R];
        tile::<S, f32, R, C>(&mut acc, p.steps, a, b, b_step);
        let scale = S::splat(p.scale);
        for (r, row) in acc.iter().enumerate() {
            for (c, sum) in row.iter().enumerate() {
                let place = out.data.at((first + r) * out.stride + out.column + column + c * LANES);
                let value = match p.epilogue {
                    Epilogue::Store => S::mul(*sum, scale),
                    Epilogue::Add => S::fma(*sum, scale, S::load_n(place, lanes)),
                };
                S::store_n(place, value, lanes);
            }
        }
    }
}
