//! Linear maps y = x Wᵀ over frozen, packed weights, and their backward dX = dY W. Knows nothing of layers, adapters or files.
//!
//! **Exactness.** An output is one chain of multiply-adds over ascending k of its own row, started at 0 (`Store`) or at the old output
//! (`Add`), the same for any number of rows and threads and on every instruction set:
//! - f32: acc = fma(x, w, acc);
//! - bf16: x rounded to bf16; per pair of k acc = fma(x₀, w₀, fma(x₁, w₁, acc)), which is what `vdpbf16ps` does (but that instruction
//!   takes denormals as 0, going in, summed and coming out). AMX alone has another chain: per 32 of k the even and the odd ones are summed
//!   apart, from 0 on, and acc + (even + odd) is next;
//! - int8, int4: x quantised to 8 bits per group of 32 k; the group's integer sum is exact, then acc = fma(sum, w_scale · x_scale, acc).
//!
//! Padding adds fma(0, 0, acc). Backward: the same chains over ascending n with the weight transposed, integer weights dequantised to bf16.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod block;
mod drive;
mod encode;
mod integers;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod transpose;
mod weight;

pub(crate) use encode::max_abs;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::sdot;
pub use weight::Weight;

use crate::Cpu;
use crate::cpu::memory::Split;
use drive::{Panels, Shape, Words, product};
use transpose::Transposed;
use weight::{GROUP, PANEL, values_per_word};

/// Storage format of a weight, and with it the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats, activations as they are.
    F32,
    /// bfloat16, activations rounded to bfloat16 on the way in.
    Bf16,
    /// 8-bit integers with scales per row and 32 k, chosen for the least squared error; activations quantised to 8 bits per 32 k.
    Int8,
    /// 4-bit integers with scales per row and 32 k, chosen for the least squared error; activations quantised to 8 bits per 32 k.
    Int4,
}

/// Element type of a checkpoint tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RawType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

/// One checkpoint matrix: row-major `[rows, K]`, little-endian, possibly unaligned.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    /// Element type of `bytes`.
    pub dtype: RawType,
    /// `rows · K` elements.
    pub bytes: &'a [u8],
    /// Rows, part of N.
    pub rows: usize,
}

/// What happens with the old output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// The chain starts at 0.
    Store,
    /// The chain starts at the old output.
    Add,
}

/// Elements below which adding a bias is not worth a second thread.
const SERIAL_ELEMENTS: usize = 64 * 1024;

/// y = x Wᵀ, or y + x Wᵀ: x `[T, K]`, y `[T, N]`, any T.
///
/// # Panics
/// If the shapes do not fit.
pub fn linear(cpu: &Cpu, x: &[f32], w: &Weight, y: &mut [f32], epilogue: Epilogue) {
    check([x.len(), w.k()], [y.len(), w.n()]);
    product(cpu, x, w, y, epilogue);
}

/// dx = dy W, or dx + dy W: dy `[T, N]`, dx `[T, K]`, any T. The weight is frozen: there is no dW.
///
/// # Panics
/// If the shapes do not fit.
pub fn linear_backward_x(cpu: &Cpu, dy: &[f32], w: &Weight, dx: &mut [f32], epilogue: Epilogue) {
    check([dy.len(), w.n()], [dx.len(), w.k()]);
    product(cpu, dy, &Transposed(w), dx, epilogue);
}

fn check([from, from_width]: [usize; 2], [to, to_width]: [usize; 2]) {
    assert!(from.is_multiple_of(from_width), "input of {from} elements is not rows of {from_width}");
    assert_eq!(to, from / from_width * to_width, "output has as many rows as the input, of {to_width}");
}

/// y += bias on each row: y `[T, N]`, bias `[N]`.
///
/// # Panics
/// If y is not rows of N.
pub fn add_bias(cpu: &Cpu, y: &mut [f32], bias: &[f32]) {
    assert!(!bias.is_empty() && y.len().is_multiple_of(bias.len()), "y is not rows of {}", bias.len());
    each_row(cpu, y, bias.len(), &|_, y| {
        for (y, b) in y.iter_mut().zip(bias) {
            *y += b;
        }
    });
}

/// out row t = row `ids[t]` of the weight as `Weight::row` gives it (the embedding): out `[T, K]`.
///
/// # Panics
/// If an id is not below N, or out is not `[T, K]`.
pub fn gather_rows(cpu: &Cpu, w: &Weight, ids: &[u32], out: &mut [f32]) {
    assert_eq!(out.len(), ids.len() * w.k(), "out is one row of K per id");
    each_row(cpu, out, w.k(), &|t, out| w.row(ids[t] as usize, out));
}

/// Calls `f(row, values)` for each row of `width`, threaded when that pays.
fn each_row(cpu: &Cpu, values: &mut [f32], width: usize, f: &(dyn Fn(usize, &mut [f32]) + Sync)) {
    let rows = values.len() / width;
    let tasks = (values.len() / SERIAL_ELEMENTS).clamp(1, rows.max(1));
    let start = Split::new(values.as_mut_ptr());
    cpu.run(tasks, &|task| {
        for row in rows * task / tasks..rows * (task + 1) / tasks {
            // SAFETY: in bounds, and each task has its own rows.
            f(row, unsafe { std::slice::from_raw_parts_mut(start.get().add(row * width), width) });
        }
    });
}

impl Panels for Weight {
    fn shape(&self) -> Shape {
        Shape { precision: self.precision(), k: self.k(), padded_k: self.padded_k(), n: self.n() }
    }

    fn room_bytes(&self) -> usize {
        0
    }

    fn at(&self, panel: usize, from: usize) -> *const u32 {
        let first = self.words(0);
        first.as_ptr().wrapping_add(panel * first.len() + from * PANEL)
    }

    fn words(&self, _cpu: &Cpu, panel: usize, from: usize, _steps: usize, _room: *mut u32) -> Words {
        let words = &self.words(panel)[from * PANEL..];
        let scales = self.scales(panel);
        let group = from * values_per_word(self.precision()) / GROUP;
        Words { at: words.as_ptr(), scales: scales.get(group * PANEL..).map_or(std::ptr::null(), <[u16]>::as_ptr) }
    }
}
