//! The forward of adapters: two thin products over rows grouped by adapter.

use std::ops::Range;

use super::LoraRun;
use super::product::{Epilogue, Output, Product, product};
use crate::Cpu;
use crate::ops::rows::{Rows, RowsMut, Shared, split};
use crate::simd::tile::TILE_ROWS;

/// Columns of one task of the second product: the factor's strip stays in the first-level cache.
pub(super) const STRIP: usize = 256;

/// Rows of one task of the second product: few enough to share out, enough to reuse the strip.
pub(super) const TASK_ROWS: usize = 96;

/// h = x A, then y += scale · h B, for the rows of `runs`; other rows of h and y stay.
///
/// `x` is \[T, K\]; `h` has R' columns (the largest of the runs'), `y` has N.
///
/// # Panics
/// When the shapes disagree.
pub fn lora_forward(cpu: &Cpu, x: &[f32], runs: &[LoraRun], h: RowsMut, y: RowsMut) {
    for run in runs {
        run.pair.check();
        assert!(run.rows.end * run.pair.k <= x.len(), "lora_forward: x is [T, K]");
    }
    let cost = TILE_ROWS * runs.iter().map(|run| run.pair.a.len().max(run.pair.b.len())).max().unwrap_or(0) / 16;
    let hidden = Shared::new(&mut *h.data);
    let tasks = pieces(runs, TILE_ROWS);
    split(cpu, tasks.len(), cost, &|range| {
        for (run, rows) in &tasks[range] {
            let (pair, columns) = (run.pair, run.pair.padded_rank());
            let x = Rows { data: x, stride: pair.k, column: 0 };
            let p = Product { a: x, b: &pair.a, steps: pair.k, columns, scale: 1.0, epilogue: Epilogue::Store };
            product(cpu.isa(), &p, rows.clone(), 0..columns, &Output { data: &hidden, stride: h.stride, column: h.column });
        }
    });
    let h = Rows { data: h.data, stride: h.stride, column: h.column };
    let out = Shared::new(y.data);
    let tasks = strips(&pieces(runs, TASK_ROWS), |run| run.pair.n);
    split(cpu, tasks.len(), cost, &|range| {
        for (run, rows, columns) in &tasks[range] {
            let pair = run.pair;
            let p = Product { a: h, b: &pair.b, steps: pair.rank, columns: pair.n, scale: run.scale, epilogue: Epilogue::Add };
            product(cpu.isa(), &p, rows.clone(), columns.clone(), &Output { data: &out, stride: y.stride, column: y.column });
        }
    });
}

/// The runs' rows in pieces of at most `most`.
pub(super) fn pieces<'r, 'a>(runs: &'r [LoraRun<'a>], most: usize) -> Vec<(&'r LoraRun<'a>, Range<usize>)> {
    let mut pieces = Vec::new();
    for run in runs {
        for first in run.rows.clone().step_by(most) {
            pieces.push((run, first..run.rows.end.min(first + most)));
        }
    }
    pieces
}

/// Every piece times every strip of the columns that its run has.
pub(super) fn strips<'r, 'a>(
    pieces: &[(&'r LoraRun<'a>, Range<usize>)],
    columns: impl Fn(&LoraRun) -> usize,
) -> Vec<(&'r LoraRun<'a>, Range<usize>, Range<usize>)> {
    let mut strips = Vec::new();
    for (run, rows) in pieces {
        let end = columns(run);
        for first in (0..end).step_by(STRIP) {
            strips.push((*run, rows.clone(), first..end.min(first + STRIP)));
        }
    }
    strips
}
