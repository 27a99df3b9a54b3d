//! Divides a product over outputs: panels of 64 columns, and parts of the rows when there are fewer panels than threads want. Never
//! over K: an output's chain runs in one task, in ascending order, in blocks of K that fit a core's L2.
//! Does not know whether the panels are a weight or its transpose.

use super::block::{Block, kernel};
use super::encode::{Activations, Form};
use super::weight::{PANEL, values_per_word};
use super::{Epilogue, Precision};
use crate::Cpu;
use crate::cpu::memory::Split;

/// Bytes of a block of a panel: with the activations of a tile in L1 it lives in L2, and is used again by every tile of rows.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;
/// The same for few rows, whose blocks come from memory while the last one is computed: two of them are in L2.
const SMALL_BLOCK_BYTES: usize = 64 * 1024;
/// Rows up to which blocks are small.
const FEW_ROWS: usize = 48;
/// Rows packed at a time, and bytes of packed rows that a pass over the weights should not exceed by much.
const MOST_ROWS: usize = 512;
const MOST_ACTIVATION_BYTES: usize = 32 << 20;
const LEAST_ROWS: usize = 128;
/// Tasks per thread to even out what else the machine does, and rows that are worth a task of their own.
const TASKS_PER_THREAD: usize = 4;
const ROWS_PER_TASK: usize = 96;

/// A part of a panel: its words from some k on.
pub(super) struct Words {
    /// 64 words per step, aligned to 64 bytes.
    pub(super) at: *const u32,
    /// Integers: 64 scales per weight group.
    pub(super) scales: *const u16,
    /// What this thread will probably read next.
    pub(super) next: *const u32,
}

/// Where panels come from.
pub(super) trait Panels: Sync {
    /// Of the product: `k` reduced (and padded), `n` produced.
    fn shape(&self) -> Shape;
    /// Memory that a task lends to `words`, a block or nothing.
    fn room_bytes(&self) -> usize;
    /// Words `from..from + steps` (in steps) of a panel; `room` holds them if they must be made.
    fn words(&self, cpu: &Cpu, panel: usize, from: usize, steps: usize, room: *mut u32) -> Words;
}

/// Shape of a product x `[T, k]` → y `[T, n]`.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Arithmetic and layout of the panels.
    pub(super) precision: Precision,
    pub(super) k: usize,
    pub(super) padded_k: usize,
    pub(super) n: usize,
}

/// Steps of K in a block for so many rows.
fn steps_per_block(panels: &dyn Panels, rows: usize) -> usize {
    let shape = panels.shape();
    match rows {
        // One row reads each word once: nothing to keep.
        1 if panels.room_bytes() == 0 => shape.padded_k / values_per_word(shape.precision),
        1..=FEW_ROWS => SMALL_BLOCK_BYTES / (4 * PANEL),
        _ => BLOCK_BYTES / (4 * PANEL),
    }
}

/// y = x · panelsᵀ, or y + that.
pub(super) fn product(cpu: &Cpu, x: &[f32], panels: &dyn Panels, y: &mut [f32], epilogue: Epilogue) {
    let shape = panels.shape();
    let form = Form::of(cpu.isa(), shape.precision);
    let total = x.len() / shape.k;
    if total == 0 {
        return;
    }
    let most = (MOST_ACTIVATION_BYTES / Activations::stride(form, shape.padded_k)).clamp(LEAST_ROWS, MOST_ROWS);
    let rows = total.div_ceil(total.div_ceil(most));
    for (x, y) in x.chunks(rows * shape.k).zip(y.chunks_mut(rows * shape.n)) {
        let rows = x.len() / shape.k;
        let packed = Activations::pack(cpu, shape.precision, x, [shape.k, shape.padded_k]);
        let count = shape.n.div_ceil(PANEL);
        let parts = (TASKS_PER_THREAD * cpu.threads()).div_ceil(count).clamp(1, rows.div_ceil(ROWS_PER_TASK));
        let y = Split::new(y.as_mut_ptr());
        cpu.run(count * parts, &|task| {
            let (panel, part) = (task / parts, task % parts);
            let range = rows * part / parts..rows * (part + 1) / parts;
            // SAFETY: y is [rows, n], and each task has its own columns and rows of it.
            unsafe { one_panel(cpu, &packed, panels, (panel, range), y.get(), epilogue) };
        });
    }
}

/// # Safety
/// `y` is `[rows, n]` with at least `range.end` rows, and nobody else touches the panel's columns of the range's rows.
unsafe fn one_panel(
    cpu: &Cpu,
    packed: &Activations<'_>,
    panels: &dyn Panels,
    (panel, range): (usize, std::ops::Range<usize>),
    y: *mut f32,
    epilogue: Epilogue,
) {
    let shape = panels.shape();
    let kernel = kernel(cpu.isa(), shape.precision);
    let per_step = values_per_word(shape.precision);
    let steps = shape.padded_k / per_step;
    let block_steps = steps_per_block(panels, range.len());
    let room = cpu.scratch().borrow(panels.room_bytes());
    // SAFETY: in y, as promised.
    let y = unsafe { y.add(range.start * shape.n + panel * PANEL) };
    let width = PANEL.min(shape.n - panel * PANEL);
    // Kernels write 64 columns: a last, narrower panel goes through a buffer.
    let mut edge = vec![[0.0f32; PANEL]; if width < PANEL { range.len() } else { 0 }];
    if epilogue == Epilogue::Add {
        for (row, edge) in edge.iter_mut().enumerate() {
            // SAFETY: `width` columns of each row are ours.
            unsafe { std::ptr::copy_nonoverlapping(y.add(row * shape.n), edge.as_mut_ptr(), width) };
        }
    }
    let (out, out_stride) = if width < PANEL { (edge.as_mut_ptr().cast(), PANEL) } else { (y, shape.n) };
    for from in (0..steps).step_by(block_steps) {
        let steps = block_steps.min(steps - from);
        let words = panels.words(cpu, panel, from, steps, room.as_ptr().cast());
        let block = Block {
            rows: range.len(),
            x: packed.row(range.start, from * per_step),
            x_stride: packed.stride,
            groups: packed.group(range.start, from * per_step),
            group_stride: packed.groups,
            w: words.at,
            scales: words.scales,
            steps,
            y: out,
            y_stride: out_stride,
            fresh: from == 0 && epilogue == Epilogue::Store,
            next: words.next,
        };
        // SAFETY: the rows of `packed`, the words and the output hold what the block says, and `Cpu` has checked the instruction set.
        unsafe { kernel(&block) };
    }
    for (row, edge) in edge.iter().enumerate() {
        // SAFETY: `width` columns of each row are ours.
        unsafe { std::ptr::copy_nonoverlapping(edge.as_ptr(), y.add(row * shape.n), width) };
    }
}
