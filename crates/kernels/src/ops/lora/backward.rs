//! The backward of adapters. Sums over rows ascend within an output, outputs are shared out: no atomics, the same bits for any threads.

use super::forward::{TASK_ROWS, pieces, strips};
use super::product::{Epilogue, Output, Product, product};
use super::{LoraGradients, LoraRun, LoraSaved};
use crate::Cpu;
use crate::ops::rows::{Rows, Shared, split, with_scratch};
use crate::simd::tile::{Broadcast, TILE_ROWS, tile, with_rows};
use crate::simd::{LANES, Simd, dispatch};

/// Columns of one task of the outer products.
const COLUMNS: usize = 64;

/// Rows that are packed side by side at once: 64 columns of them fit the first-level cache.
const PACK_ROWS: usize = 64;

/// Adds one run's gradients: dB += scale·hᵀ dy, dh = scale·dy Bᵀ, dA += xᵀ dh, dx += dh Aᵀ. Sums over T ascend.
///
/// # Panics
/// When the shapes disagree.
pub fn lora_backward(cpu: &Cpu, run: &LoraRun, saved: LoraSaved, gradients: LoraGradients) {
    let pair = run.pair;
    pair.check();
    let (count, padded) = (run.rows.len(), pair.padded_rank());
    assert!(
        gradients.da.len() == pair.a.len() && gradients.db.len() == pair.b.len(),
        "lora_backward: gradients have their factors' shapes"
    );
    assert!(run.rows.end * pair.k <= saved.x.len(), "lora_backward: x is [T, K]");
    if count == 0 {
        return;
    }
    let mut dh = vec![0.0; count * padded];
    hidden_gradient(cpu, run, saved.dy, &mut dh);
    if let Some(dx) = gradients.dx {
        assert!(run.rows.end * pair.k <= dx.len(), "lora_backward: dx is [T, K]");
        input_gradient(cpu, run, &dh, &mut dx[run.rows.start * pair.k..run.rows.end * pair.k]);
    }
    let x = Rows { data: saved.x, stride: pair.k, column: 0 };
    // dAᵀ \[R'\]\[K\] = dhᵀ x is summed in the layout of B and turned while it is added.
    let outer =
        Outer { left: Rows { data: &dh, stride: padded, column: 0 }, right: x.from_row(run.rows.start), steps: count, rank: padded };
    let da = Shared::new(gradients.da);
    outer.run(cpu, pair.k, &|columns, sums| {
        for (i, k) in columns.enumerate() {
            // SAFETY: a column of x belongs to one task.
            let da = unsafe { da.slice(k * padded..(k + 1) * padded) };
            for (r, da) in da.iter_mut().enumerate() {
                *da += sums[r * COLUMNS + i];
            }
        }
    });
    let outer = Outer { left: saved.h.from_row(run.rows.start), right: saved.dy.from_row(run.rows.start), steps: count, rank: pair.rank };
    let db = Shared::new(gradients.db);
    outer.run(cpu, pair.n, &|columns, sums| {
        for r in 0..pair.rank {
            // SAFETY: a column of dy belongs to one task.
            let db = unsafe { db.slice(r * pair.n + columns.start..r * pair.n + columns.end) };
            for (db, sum) in db.iter_mut().zip(&sums[r * COLUMNS..]) {
                *db += run.scale * sum;
            }
        }
    });
}

/// dh\[rows of the run\]\[R'\] = scale · dy Bᵀ.
fn hidden_gradient(cpu: &Cpu, run: &LoraRun, dy: Rows, dh: &mut [f32]) {
    let (pair, padded) = (run.pair, run.pair.padded_rank());
    let mut turned = vec![0.0; pair.n * padded];
    for (r, row) in pair.b.chunks(pair.n).enumerate() {
        for (n, x) in row.iter().enumerate() {
            turned[n * padded + r] = *x;
        }
    }
    let p =
        Product { a: dy.from_row(run.rows.start), b: &turned, steps: pair.n, columns: padded, scale: run.scale, epilogue: Epilogue::Store };
    let out = Shared::new(dh);
    let tiles = run.rows.len().div_ceil(TILE_ROWS);
    split(cpu, tiles, TILE_ROWS * pair.n * padded / 16, &|range| {
        let rows = range.start * TILE_ROWS..run.rows.len().min(range.end * TILE_ROWS);
        product(cpu.isa(), &p, rows, 0..padded, &Output { data: &out, stride: padded, column: 0 });
    });
}

/// dx\[rows of the run\]\[K\] += dh Aᵀ.
fn input_gradient(cpu: &Cpu, run: &LoraRun, dh: &[f32], dx: &mut [f32]) {
    let (pair, padded) = (run.pair, run.pair.padded_rank());
    let mut turned = vec![0.0; pair.rank * pair.k];
    for (k, row) in pair.a.chunks(padded).enumerate() {
        for (r, x) in row.iter().enumerate().take(pair.rank) {
            turned[r * pair.k + k] = *x;
        }
    }
    let dh = Rows { data: dh, stride: padded, column: 0 };
    let p = Product { a: dh, b: &turned, steps: pair.rank, columns: pair.k, scale: 1.0, epilogue: Epilogue::Add };
    let out = Shared::new(dx);
    let local = LoraRun { rows: 0..run.rows.len(), ..run.clone() };
    let runs = [local];
    let tasks = strips(&pieces(&runs, TASK_ROWS), |run| run.pair.k);
    split(cpu, tasks.len(), TASK_ROWS * pair.rank * 16, &|range| {
        for (_, rows, columns) in &tasks[range] {
            product(cpu.isa(), &p, rows.clone(), columns.clone(), &Output { data: &out, stride: pair.k, column: 0 });
        }
    });
}

/// leftᵀ · right over `steps` rows: \[rank\]\[columns of right\].
struct Outer<'a> {
    left: Rows<'a>,
    right: Rows<'a>,
    steps: usize,
    rank: usize,
}

impl Outer<'_> {
    /// Gives `add` the sums of every 64 columns, \[rank\]\[64\].
    fn run(&self, cpu: &Cpu, columns: usize, add: &(dyn Fn(std::ops::Range<usize>, &[f32]) + Sync)) {
        split(cpu, columns.div_ceil(COLUMNS), self.steps * self.rank * COLUMNS / 16, &|tasks| {
            for task in tasks {
                let range = task * COLUMNS..columns.min((task + 1) * COLUMNS);
                with_scratch((self.rank + PACK_ROWS) * COLUMNS, |memory| {
                    let (sums, strip) = memory.split_at_mut(self.rank * COLUMNS);
                    sums.fill(0.0);
                    strip.fill(0.0);
                    for first in (0..self.steps).step_by(PACK_ROWS) {
                        let steps = PACK_ROWS.min(self.steps - first);
                        for i in 0..steps {
                            let row = &self.right.row(first + i, columns)[range.clone()];
                            strip[i * COLUMNS..][..row.len()].copy_from_slice(row);
                        }
                        let left = &self.left.data[first * self.left.stride + self.left.column..];
                        accumulate(cpu.isa(), left, self.left.stride, strip, sums, steps);
                    }
                    add(range, sums);
                });
            }
        });
    }
}

dispatch!(fn accumulate(left: &[f32], left_stride: usize, strip: &[f32], sums: &mut [f32], steps: usize) = accumulate_kernel);

/// sums\[rank\]\[64\] += Σ over ascending i of left(i, rank) · strip\[i\]\[64\].
#[inline(always)]
unsafe fn accumulate_kernel<S: Simd>(left: &[f32], left_stride: usize, strip: &[f32], sums: &mut [f32], steps: usize) {
    let rank = sums.len() / COLUMNS;
    assert!(strip.len() >= steps * COLUMNS && left.len() >= (steps - 1) * left_stride + rank, "lora: packed rows");
    for first in (0..rank).step_by(TILE_ROWS) {
        let count = TILE_ROWS.min(rank - first);
        // SAFETY: the caller's promise; the places were checked above.
        unsafe {
            with_rows!(count, S, |R, C| {
                for column in (0..COLUMNS).step_by(C * LANES) {
                    let a = Broadcast { first: left.as_ptr().add(first), row: 1, step: left_stride };
                    let b = std::array::from_fn(|c| strip.as_ptr().wrapping_add(column + c * LANES));
                    let place = sums.as_mut_ptr().add(first * COLUMNS + column);
                    let mut acc = [[S::zero(); C]; R];
                    for (r, row) in acc.iter_mut().enumerate() {
                        for (c, v) in row.iter_mut().enumerate() {
                            *v = S::load(place.add(r * COLUMNS + c * LANES));
                        }
                    }
                    tile::<S, f32, R, C>(&mut acc, steps, a, b, COLUMNS);
                    for (r, row) in acc.iter().enumerate() {
                        for (c, v) in row.iter().enumerate() {
                            S::store(place.add(r * COLUMNS + c * LANES), *v);
                        }
                    }
                }
            });
        }
    }
}
