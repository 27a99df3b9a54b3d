//! Attention's backward against differences of plain f64 arithmetic and against itself on other threads and pages.

use tiger_kernels::Cpu;
use tiger_kernels::ops::attention::{AttentionSaved, AttentionShape, KvRead, KvType, PAGE_TOKENS, PageId, Segment, attention_backward};
use tiger_kernels::ops::rows::Rows;

use crate::attention::{KV_TYPES, Sequence, attend, layer, rounded, shape};
use crate::support::{Random, assert_close, assert_same, devices, differences, dot, fast, wide};

/// f32 against f64 for gradients that are sums over up to 600 keys.
const GRADIENT: f64 = 2e-5;

/// dq, dk, dv in f64, from the formulas and not from this crate's passes. k and v are what the cache holds.
fn reference(s: &Sequence, kv_type: KvType, d_o: &[f32]) -> Vec<f64> {
    let (a, stride, d) = (s.shape, s.shape.qkv_columns(), s.shape.head_dim);
    let mut grad = vec![0.0; s.qkv.len()];
    for t in 0..s.len {
        for h in 0..a.heads {
            let (qc, kc, vc) = (h * d, s.k_column() + h / a.group() * d, s.v_column() + h / a.group() * d);
            let q: Vec<f64> = wide(&s.qkv[t * stride + qc..][..d]);
            let kv = |j: usize, c: usize| -> Vec<f64> { rounded(&s.qkv[j * stride + c..][..d], kv_type) };
            let scores: Vec<f64> = (0..=t).map(|j| f64::from(a.scale) * dot(&q, &kv(j, kc))).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|x| (x - max).exp()).sum();
            let p: Vec<f64> = scores.iter().map(|x| (x - max).exp() / total).collect();
            let g = wide(&d_o[(t * a.heads + h) * d..][..d]);
            let dp: Vec<f64> = (0..=t).map(|j| dot(&g, &kv(j, vc))).collect();
            let mean = dot(&p, &dp);
            for j in 0..=t {
                let ds = f64::from(a.scale) * p[j] * (dp[j] - mean);
                let k = kv(j, kc);
                for i in 0..d {
                    grad[t * stride + qc + i] += ds * k[i];
                    grad[j * stride + kc + i] += ds * q[i];
                    grad[j * stride + vc + i] += p[j] * g[i];
                }
            }
        }
    }
    grad
}

/// Σ o·d_o in f64, for differences.
fn loss(a: &AttentionShape, len: usize, qkv: &[f64], d_o: &[f64]) -> f64 {
    let (stride, d) = (a.qkv_columns(), a.head_dim);
    let mut sum = 0.0;
    for t in 0..len {
        for h in 0..a.heads {
            let (kc, vc) = ((a.heads + h / a.group()) * d, (a.heads + a.kv_heads + h / a.group()) * d);
            let q = &qkv[t * stride + h * d..][..d];
            let e: Vec<f64> = (0..=t).map(|j| (f64::from(a.scale) * dot(q, &qkv[j * stride + kc..][..d])).exp()).collect();
            let g = &d_o[(t * a.heads + h) * d..][..d];
            sum += (0..=t).map(|j| e[j] * dot(g, &qkv[j * stride + vc..][..d])).sum::<f64>() / e.iter().sum::<f64>();
        }
    }
    sum
}

/// Forward and backward of sequences packed in one batch, rows with `gap` columns before q.
fn backward(cpu: &Cpu, sequences: &[&Sequence], kv_type: KvType, d_o: &[f32], seed: u64) -> Vec<f32> {
    const GAP: usize = 3;
    let a = sequences[0].shape;
    let counts: Vec<usize> = sequences.iter().map(|s| s.len.div_ceil(PAGE_TOKENS)).collect();
    let order = Random(seed).shuffled(counts.iter().sum());
    let (mut tables, mut used) = (Vec::new(), 0);
    for n in &counts {
        tables.push(order[used..used + n].iter().map(|p| PageId(*p)).collect::<Vec<_>>());
        used += n;
    }
    let (mut segments, mut rows) = (Vec::new(), 0);
    for (s, pages) in sequences.iter().zip(&tables) {
        segments.push(Segment { rows: rows..rows + s.len, start: 0, pages });
        rows += s.len;
    }
    let qkv: Vec<f32> = sequences.iter().flat_map(|s| s.qkv.clone()).collect();
    let mut cache = layer(a, kv_type, order.len());
    let (o, lse) = attend(cpu, &a, &mut cache, &qkv, &segments);
    let stride = GAP + a.qkv_columns();
    let gapped: Vec<f32> = qkv.chunks(a.qkv_columns()).flat_map(|row| [&[f32::NAN; GAP][..], row].concat()).collect();
    let mut dqkv = vec![5.0; gapped.len()];
    let saved = AttentionSaved { qkv: Rows { data: &gapped, stride, column: GAP }, o: &o, lse: &lse, d_o };
    attention_backward(cpu, &a, KvRead { layer: &cache, segments: &segments }, saved, &mut dqkv);
    for row in dqkv.chunks(stride) {
        assert_eq!(row[..GAP], [5.0; GAP], "columns beside q, k and v stay");
    }
    dqkv.chunks(stride).flat_map(|row| row[GAP..].to_vec()).collect()
}

#[test]
fn the_reference_matches_differences() {
    let mut random = Random(40);
    let s = Sequence::new(&mut random, shape(4, 2, 4), 5);
    let d_o = random.vec(5 * 16);
    let expected = differences(&wide(&s.qkv), |qkv| loss(&s.shape, s.len, qkv, &wide(&d_o)));
    let got: Vec<f32> = reference(&s, KvType::F32, &d_o).iter().map(|x| *x as f32).collect();
    assert_close(&got, &expected, 1e-6, "plain gradient");
}

#[test]
fn gradients_match_f64() {
    let mut random = Random(41);
    for (heads, kv_heads, d, len) in [(1, 1, 2, 1), (4, 2, 16, 17), (2, 2, 20, 40), (8, 1, 64, 70), (3, 1, 16, 275), (2, 2, 128, 33)] {
        for kv_type in KV_TYPES {
            let s = Sequence::new(&mut random, shape(heads, kv_heads, d), len);
            let d_o = random.vec(len * heads * d);
            let got = backward(&fast(), &[&s], kv_type, &d_o, 1);
            assert_close(
                &got,
                &reference(&s, kv_type, &d_o),
                GRADIENT,
                &format!("{heads}:{kv_heads} heads of {d}, {len} tokens, {kv_type:?}"),
            );
        }
    }
}

#[test]
fn packing_threads_pages_and_instruction_sets_change_no_bit() {
    let mut random = Random(42);
    let a = shape(6, 2, 20);
    let sequences = [Sequence::new(&mut random, a, 9), Sequence::new(&mut random, a, 66), Sequence::new(&mut random, a, 1)];
    let rows: usize = sequences.iter().map(|s| s.len).sum();
    let (width, columns) = (a.heads * a.head_dim, a.qkv_columns());
    let d_o = random.vec(rows * width);
    let all: Vec<&Sequence> = sequences.iter().collect();
    for kv_type in KV_TYPES {
        let expected = backward(&devices()[0], &all, kv_type, &d_o, 1);
        for cpu in devices() {
            assert_same(&backward(&cpu, &all, kv_type, &d_o, 2), &expected, &format!("{:?} {}", cpu.isa(), cpu.threads()));
        }
        let mut first = 0;
        for s in &sequences {
            let alone = backward(&fast(), &[s], kv_type, &d_o[first * width..(first + s.len) * width], 3);
            assert_same(&alone, &expected[first * columns..(first + s.len) * columns], "a sequence alone");
            first += s.len;
        }
    }
}
