//! Divides a product over outputs: panels of 64 columns, and parts of the rows when there are fewer panels than threads want. Never
//! over K: an output's chain runs in one task, in ascending order, in blocks of K that fit a core's L2.
//! Does not know whether the panels are a weight or its transpose.

use super::block::{Block, kernel};
use super::encode::{Activations, Form};
use super::weight::{PANEL, values_per_word};
use super::{Epilogue, Precision};
use crate::cpu::memory::Split;
use crate::{Cpu, Isa};
use std::ops::Range;

/// Bytes of a block of a panel: with the activations of a tile in L1 it lives in L2, and is used again by every tile of rows.
pub(super) const BLOCK_BYTES: usize = 128 * 1024;
/// The same for few rows, whose blocks come from memory while the last one is computed: two of them are in L2.
const SMALL_BLOCK_BYTES: usize = 64 * 1024;
/// Rows up to which blocks are small.
const FEW_ROWS: usize = 48;
/// Panels of a task of AMX with many rows.
const AMX_PANELS: usize = 4;
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
}

/// Where panels come from.
pub(super) trait Panels: Sync {
    /// Of the product: `k` reduced (and padded), `n` produced.
    fn shape(&self) -> Shape;
    /// Memory that a task lends to `words`, a block or nothing.
    fn room_bytes(&self) -> usize;
    /// Where a panel's words from some step on lie, if they need not be made; null if they must. A panel beyond the last one is allowed.
    fn at(&self, panel: usize, from: usize) -> *const u32;
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

/// Panels of a task. AMX multiplies so fast that for many rows it would wait for the packed rows to come from the last level cache: there a
/// block of them is used for several panels.
fn panels_per_task(cpu: &Cpu, precision: Precision, rows: usize, panels: usize) -> usize {
    if cpu.isa() == Isa::Amx && precision == Precision::Bf16 && rows > FEW_ROWS {
        AMX_PANELS.min(panels.div_ceil(cpu.threads()))
    } else {
        1
    }
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
        let group = panels_per_task(cpu, shape.precision, rows, count);
        let groups = count.div_ceil(group);
        let parts = (TASKS_PER_THREAD * cpu.threads()).div_ceil(groups).clamp(1, rows.div_ceil(ROWS_PER_TASK));
        let y = Split::new(y.as_mut_ptr());
        cpu.run(groups * parts, &|task| {
            let (first, part) = (task / parts * group, task % parts);
            let range = rows * part / parts..rows * (part + 1) / parts;
            // SAFETY: y is [rows, n], and each task has its own columns and rows of it.
            unsafe { some_panels(cpu, &packed, panels, (first..count.min(first + group), range), y.get(), epilogue) };
        });
    }
}

/// # Safety
/// `y` is `[rows, n]` with at least `rows.end` rows, and nobody else touches these panels' columns of these rows.
unsafe fn some_panels(
    cpu: &Cpu,
    packed: &Activations<'_>,
    panels: &dyn Panels,
    (group, rows): (Range<usize>, Range<usize>),
    y: *mut f32,
    epilogue: Epilogue,
) {
    let shape = panels.shape();
    let kernel = kernel(cpu.isa(), shape.precision);
    let per_step = values_per_word(shape.precision);
    let steps = shape.padded_k / per_step;
    let block_steps = steps_per_block(panels, rows.len());
    let room = cpu.scratch().borrow(panels.room_bytes());
    // SAFETY: in y, as promised.
    let y = unsafe { y.add(rows.start * shape.n + group.start * PANEL) };
    let width = (group.len() * PANEL).min(shape.n - group.start * PANEL);
    // Kernels write 64 columns: a last, narrower panel goes through a buffer. So do several panels, whose outputs then stay in L2 between the
    // blocks of K.
    let buffered = !width.is_multiple_of(PANEL) || group.len() > 1;
    let buffer = cpu.scratch().borrow(if buffered { rows.len() * group.len() * PANEL * size_of::<f32>() } else { 0 });
    let (out, out_stride, panel_stride) =
        if buffered { (buffer.as_ptr().cast::<f32>(), PANEL, rows.len() * PANEL) } else { (y, shape.n, PANEL) };
    // Parts of rows: (in y, in the buffer, length).
    let buffer_parts = || {
        let parts = (0..rows.len()).flat_map(|row| (0..width).step_by(PANEL).map(move |column| (row, column)));
        parts
            .filter(|_| buffered)
            .map(|(row, column)| (row * shape.n + column, column / PANEL * panel_stride + row * PANEL, PANEL.min(width - column)))
    };
    if epilogue == Epilogue::Add {
        for (at, buffer_at, length) in buffer_parts() {
            // SAFETY: `width` columns of each row of y are ours, and the buffer has 64 of each panel for each row.
            unsafe { std::ptr::copy_nonoverlapping(y.add(at), out.add(buffer_at), length) };
        }
    }
    for from in (0..steps).step_by(block_steps) {
        let steps_here = block_steps.min(steps - from);
        for panel in group.clone() {
            let words = panels.words(cpu, panel, from, steps_here, room.as_ptr().cast());
            let block = Block {
                rows: rows.len(),
                x: packed.row(rows.start, from * per_step),
                x_stride: packed.stride,
                groups: packed.group(rows.start, from * per_step),
                group_stride: packed.groups,
                w: words.at,
                scales: words.scales,
                steps: steps_here,
                // SAFETY: the panel's columns, in y or in the buffer.
                y: unsafe { out.add((panel - group.start) * panel_stride) },
                y_stride: out_stride,
                fresh: from == 0 && epilogue == Epilogue::Store,
                next: if panel + 1 < group.end {
                    panels.at(panel + 1, from)
                } else if from + block_steps < steps {
                    panels.at(group.start, from + block_steps)
                } else {
                    // Probably this thread's next task.
                    panels.at(group.end + (cpu.threads() - 1) * group.len(), 0)
                },
            };
            // SAFETY: the rows of `packed`, the words and the output hold what the block says, and `Cpu` has checked the instruction set.
            unsafe { kernel(&block) };
        }
    }
    for (at, buffer_at, length) in buffer_parts() {
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(out.add(buffer_at), y.add(at), length) };
    }
}
