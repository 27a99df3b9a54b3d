//! The kernels in plain Rust: the readable definition of every result, bit for bit.
//! The order of an output's chain is all that matters here, speed is not.

use super::block::Block;
use super::encode::bf16_value;
use super::weight::{GROUP, PANEL, int4_shift};

/// int8: steps (4 of K) of a group.
const GROUP_STEPS: usize = GROUP / 4;

/// acc = fma(x, w, acc) over ascending k.
pub(super) unsafe fn f32_block(b: &Block) {
    // SAFETY: the pointers are good for what the block says.
    unsafe {
        each_row(b, |row, acc| {
            let x = b.x.add(row * b.x_stride).cast::<f32>();
            for step in 0..b.steps {
                for (n, acc) in acc.iter_mut().enumerate() {
                    *acc = (*x.add(step)).mul_add(f32::from_bits(*b.w.add(step * PANEL + n)), *acc);
                }
            }
        });
    }
}

/// Per pair of k: acc = fma(even, fma(odd, acc)).
pub(super) unsafe fn bf16_block(b: &Block) {
    // SAFETY: the pointers are good for what the block says.
    unsafe {
        each_row(b, |row, acc| {
            let x = b.x.add(row * b.x_stride).cast::<f32>();
            for step in 0..b.steps {
                let (even, odd) = (*x.add(2 * step), *x.add(2 * step + 1));
                for (n, acc) in acc.iter_mut().enumerate() {
                    let w = *b.w.add(step * PANEL + n);
                    *acc = odd.mul_add(bf16_value((w >> 16) as u16), *acc);
                    *acc = even.mul_add(bf16_value(w as u16), *acc);
                }
            }
        });
    }
}

/// Per activation group: an exact integer sum, then acc = fma(sum, w_scale · x_scale, acc).
pub(super) unsafe fn int8_block(b: &Block) {
    // SAFETY: the pointers are good for what the block says.
    unsafe {
        each_row(b, |row, acc| {
            let x = b.x.add(row * b.x_stride).cast::<i8>();
            for g in 0..b.steps / GROUP_STEPS {
                let group = *b.groups.add(row * b.group_stride + g);
                for (n, acc) in acc.iter_mut().enumerate() {
                    let mut sum = group.start;
                    for step in g * GROUP_STEPS..(g + 1) * GROUP_STEPS {
                        for (i, w) in (*b.w.add(step * PANEL + n)).to_le_bytes().iter().enumerate() {
                            sum += i32::from(*w) * i32::from(*x.add(4 * step + i));
                        }
                    }
                    let scale = bf16_value(*b.scales.add(g * PANEL + n));
                    *acc = (sum as f32).mul_add(scale * group.scale, *acc);
                }
            }
        });
    }
}

/// As int8.
pub(super) unsafe fn int4_block(b: &Block) {
    const STEPS: usize = GROUP / 8;
    // SAFETY: the pointers are good for what the block says.
    unsafe {
        each_row(b, |row, acc| {
            let x = b.x.add(row * b.x_stride).cast::<i8>();
            for g in 0..b.steps / STEPS {
                let group = *b.groups.add(row * b.group_stride + g);
                for (n, acc) in acc.iter_mut().enumerate() {
                    let mut sum = group.start;
                    for step in g * STEPS..(g + 1) * STEPS {
                        let word = *b.w.add(step * PANEL + n);
                        for i in 0..8 {
                            sum += (word >> int4_shift(i) & 0xf) as i32 * i32::from(*x.add(8 * step + i));
                        }
                    }
                    let scale = bf16_value(*b.scales.add(g * PANEL + n));
                    *acc = (sum as f32).mul_add(scale * group.scale, *acc);
                }
            }
        });
    }
}

unsafe fn each_row(b: &Block, chain: impl Fn(usize, &mut [f32; PANEL])) {
    for row in 0..b.rows {
        // SAFETY: 64 columns of each row of y are ours.
        let y = unsafe { &mut *b.y.add(row * b.y_stride).cast::<[f32; PANEL]>() };
        if b.fresh {
            y.fill(0.0);
        }
        chain(row, y);
    }
}
