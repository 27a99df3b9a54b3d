//! The backward of attention. (Plain body, the tiled one is being written.)

use super::kv::Storage;
use crate::simd::tile::Element;
use super::*;
use crate::Cpu;

/// dqkv, laid out as `saved.qkv`'s matrix (same stride and column), = the gradients of q, k and v (written, not added).
///
/// # Panics
/// When the shapes disagree, a page is missing or a segment does not start at position 0.
pub fn attention_backward(cpu: &Cpu, shape: &AttentionShape, kv: KvRead, saved: AttentionSaved, dqkv: &mut [f32]) {
    let _ = cpu;
    let kv_shape = KvShape { kv_heads: shape.kv_heads, head_dim: shape.head_dim };
    check_segments(&kv_shape, kv.layer, kv.segments);
    match &kv.layer.storage {
        Storage::F32(data) => plain(shape, data, kv.segments, saved, dqkv),
        Storage::Bf16(data) => plain(shape, data, kv.segments, saved, dqkv),
    }
}

fn plain<E: Element>(shape: &AttentionShape, data: &[E], segments: &[Segment], saved: AttentionSaved, dqkv: &mut [f32]) {
    let kv_shape = KvShape { kv_heads: shape.kv_heads, head_dim: shape.head_dim };
    let d = shape.head_dim;
    let (kc, vc) = (shape.heads * d, (shape.heads + shape.kv_heads) * d);
    for s in segments {
        for row in s.rows.clone() {
            dqkv[row * saved.qkv.stride + saved.qkv.column..][..shape.qkv_columns()].fill(0.0);
        }
        for row in s.rows.clone() {
            let q = saved.qkv.row(row, shape.heads * d);
            for h in 0..shape.heads {
                let g = h / shape.group();
                let o = &saved.o[(row * shape.heads + h) * d..][..d];
                let d_o = &saved.d_o[(row * shape.heads + h) * d..][..d];
                let dot: f32 = o.iter().zip(d_o).map(|(a, b)| a * b).sum();
                for j in 0..=(row - s.rows.start) {
                    let page = s.pages[j / 16].0 as usize * kv_shape.page_elements();
                    let k = |i: usize| data[page + g * kv_shape.k_elements() + i * 16 + j % 16].to_f32();
                    let vat = page + kv_shape.kv_heads * kv_shape.k_elements() + g * kv_shape.v_elements();
                    let v = |i: usize| data[vat + (j % 16) * kv_shape.padded_dim() + i].to_f32();
                    let score: f32 = (0..d).map(|i| q[h * d + i] * shape.scale * k(i)).sum();
                    let p = (score - saved.lse[row * shape.heads + h]).exp();
                    let dp: f32 = (0..d).map(|i| d_o[i] * v(i)).sum();
                    let ds = p * (dp - dot) * shape.scale;
                    let other = (s.rows.start + j) * saved.qkv.stride + saved.qkv.column;
                    for i in 0..d {
                        dqkv[row * saved.qkv.stride + saved.qkv.column + h * d + i] += ds * k(i);
                        dqkv[other + kc + g * d + i] += ds * q[h * d + i];
                        dqkv[other + vc + g * d + i] += p * d_o[i];
                    }
                }
            }
        }
    }
}
