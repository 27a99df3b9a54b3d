//! The kernel for AMX: tiles of 16 rows by 16 columns of bf16 that the matrix unit multiplies, 32 values of K at a time, straight from the
//! packed panel and the packed rows. Floats of 32 bits and integers are left to the AVX-512 kernels: the sums of a group of 32 integers would
//! have to go through memory to be scaled, which takes longer than VNNI takes for all.
//!
//! `tdpbf16ps` adds to an output the sum of two chains that start at 0, one over the 16 even and one over the 16 odd k of its 32 (ascending,
//! denormals taken as 0): not what `vdpbf16ps` does, but just as much a function of the row and the column alone.
//!
//! The stable compiler has no intrinsics for tiles, so they are written as assembly, one block from their configuration to their release.

use super::block::{Block, Tile};
use super::weight::PANEL;
use std::arch::asm;

/// Rows of a tile, and columns of its 32-bit values.
const SIDE: usize = 16;
/// Bytes of a tile's row.
const ROW_BYTES: usize = 64;
/// Bytes from step to step of a panel.
const STEP_BYTES: usize = 4 * PANEL;
/// bf16: steps (2 of K) of a tile of weights.
const BF16_STEPS: usize = SIDE;
/// Bytes of that part of a panel.
const TILE_STEPS_BYTES: usize = BF16_STEPS * STEP_BYTES;

/// Rows and bytes per row of the eight tiles (Intel's manual, volume 1, chapter 18).
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    fn new(tiles: [(usize, usize); 8]) -> Shapes {
        let mut shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        for (i, (rows, bytes)) in tiles.into_iter().enumerate() {
            // A tile without rows is one that is not used, and has no columns either.
            shapes.rows[i] = rows as u8;
            shapes.row_bytes[i] = if rows == 0 { 0 } else { bytes as u16 };
        }
        shapes
    }
}

/// acc += Σ even + Σ odd, over each 32 of K.
pub(super) unsafe fn bf16_block(b: &Block) {
    debug_assert!(b.steps.is_multiple_of(BF16_STEPS));
    // SAFETY: the tiles partition the block, whose pointers are good for what it says.
    unsafe {
        for (index, row, height) in b.tiles(2 * SIDE) {
            if height <= SIDE {
                narrow(b, &b.tile((index, row), (0, PANEL), 2 * SIDE), height);
                continue;
            }
            for col in [0, PANEL / 2] {
                wide(b, &b.tile((index, row), (col, PANEL / 2), 2 * SIDE), height);
            }
        }
    }
}

/// Lines to fetch for each of `parts` multiplications of a step of 16, at least one.
fn lines(t: &Tile, parts: usize) -> usize {
    (BF16_STEPS * t.ahead.bytes_per_step()).div_ceil(ROW_BYTES * parts).max(1)
}

/// Fetches {lines} lines from {ahead} on.
macro_rules! fetch {
    () => {
        "mov {n}, {lines}\n 30: prefetcht1 [{ahead}]\n add {ahead}, 64\n dec {n}\n jnz 30b"
    };
}

/// The four outputs start at 0.
macro_rules! zero {
    () => {
        "tilezero tmm0\n tilezero tmm1\n tilezero tmm2\n tilezero tmm3"
    };
}

/// Up to 16 rows by all 64 columns: the panel is read once and in order.
unsafe fn narrow(b: &Block, t: &Tile, height: usize) {
    let rows = (height, ROW_BYTES);
    let shapes = Shapes::new([rows, rows, rows, rows, rows, (SIDE, ROW_BYTES), (SIDE, ROW_BYTES), (0, 0)]);
    // SAFETY: rows of x have 64 bytes for each 16 steps, w has 16 rows of 256 bytes for them, and y has 64 columns of each row. Prefetching
    // faults on no address.
    unsafe {
        asm!(
            "ldtilecfg [{shapes}]",
            "test {fresh:e}, {fresh:e}",
            "jnz 20f",
            "tileloadd tmm0, [{y} + {ys}]",
            "tileloadd tmm1, [{y} + {ys} + 64]",
            "tileloadd tmm2, [{y} + {ys} + 128]",
            "tileloadd tmm3, [{y} + {ys} + 192]",
            "jmp 21f",
            "20:",
            zero!(),
            "21:",
            "tileloadd tmm4, [{x} + {xs}]",
            "tileloadd tmm5, [{w} + {ws}]",
            "tdpbf16ps tmm0, tmm4, tmm5",
            fetch!(),
            "tileloadd tmm6, [{w} + {ws} + 64]",
            "tdpbf16ps tmm1, tmm4, tmm6",
            fetch!(),
            "tileloadd tmm5, [{w} + {ws} + 128]",
            "tdpbf16ps tmm2, tmm4, tmm5",
            fetch!(),
            "tileloadd tmm6, [{w} + {ws} + 192]",
            "tdpbf16ps tmm3, tmm4, tmm6",
            fetch!(),
            "add {x}, 64",
            "add {w}, {part}",
            "dec {steps}",
            "jnz 21b",
            "tilestored [{y} + {ys}], tmm0",
            "tilestored [{y} + {ys} + 64], tmm1",
            "tilestored [{y} + {ys} + 128], tmm2",
            "tilestored [{y} + {ys} + 192], tmm3",
            "tilerelease",
            shapes = in(reg) &shapes,
            fresh = in(reg) u32::from(b.fresh),
            y = in(reg) b.y.add(t.row * b.y_stride),
            ys = in(reg) b.y_stride * size_of::<f32>(),
            x = inout(reg) b.x.add(t.row * b.x_stride) => _,
            xs = in(reg) b.x_stride,
            w = inout(reg) b.w => _,
            ws = in(reg) STEP_BYTES,
            part = const TILE_STEPS_BYTES,
            ahead = inout(reg) t.ahead.at() => _,
            lines = in(reg) lines(t, 4),
            n = out(reg) _,
            steps = inout(reg) b.steps / BF16_STEPS => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// 17 to 32 rows by 32 columns: four outputs of two tiles of rows and two of weights, so that each tile read is multiplied twice.
unsafe fn wide(b: &Block, t: &Tile, height: usize) {
    let (upper, lower) = ((SIDE, ROW_BYTES), (height - SIDE, ROW_BYTES));
    let shapes = Shapes::new([upper, upper, lower, lower, upper, lower, (SIDE, ROW_BYTES), (SIDE, ROW_BYTES)]);
    // SAFETY: as in `narrow`, for 32 columns; the lower rows follow the upper ones.
    unsafe {
        let (x, y) = (b.x.add(t.row * b.x_stride), b.y.add(t.row * b.y_stride + t.col));
        asm!(
            "ldtilecfg [{shapes}]",
            "test {n}, {n}",
            "jnz 20f",
            "tileloadd tmm0, [{y} + {ys}]",
            "tileloadd tmm1, [{y} + {ys} + 64]",
            "tileloadd tmm2, [{lower_y} + {ys}]",
            "tileloadd tmm3, [{lower_y} + {ys} + 64]",
            "jmp 21f",
            "20:",
            zero!(),
            "21:",
            "tileloadd tmm4, [{x} + {xs}]",
            "tileloadd tmm6, [{w} + {ws}]",
            "tileloadd tmm7, [{w} + {ws} + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            fetch!(),
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{lower_x} + {xs}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            fetch!(),
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x}, 64",
            "add {lower_x}, 64",
            "add {w}, {part}",
            "dec {steps}",
            "jnz 21b",
            "tilestored [{y} + {ys}], tmm0",
            "tilestored [{y} + {ys} + 64], tmm1",
            "tilestored [{lower_y} + {ys}], tmm2",
            "tilestored [{lower_y} + {ys} + 64], tmm3",
            "tilerelease",
            shapes = in(reg) &shapes,
            y = in(reg) y,
            lower_y = in(reg) y.add(SIDE * b.y_stride),
            ys = in(reg) b.y_stride * size_of::<f32>(),
            x = inout(reg) x => _,
            lower_x = inout(reg) x.add(SIDE * b.x_stride) => _,
            xs = in(reg) b.x_stride,
            w = inout(reg) b.w.add(t.col) => _,
            ws = in(reg) STEP_BYTES,
            part = const TILE_STEPS_BYTES,
            ahead = inout(reg) t.ahead.at() => _,
            lines = in(reg) lines(t, 2),
            n = inout(reg) usize::from(b.fresh) => _,
            steps = inout(reg) b.steps / BF16_STEPS => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
