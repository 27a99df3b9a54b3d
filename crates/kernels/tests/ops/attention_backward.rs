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

/// A sequence of a batch, of which the batch has the rows from `start` on: those before are the other sequence's.
struct Part<'a> {
    sequence: &'a Sequence,
    shared: Option<(usize, usize)>,
}

impl Part<'_> {
    fn start(&self) -> usize {
        self.shared.map_or(0, |(_, start)| start)
    }
    fn rows(&self) -> usize {
        self.sequence.len - self.start()
    }
}

fn alone(sequence: &Sequence) -> Part<'_> {
    Part { sequence, shared: None }
}

/// Forward and backward of sequences packed in one batch, rows with `gap` columns before q.
fn backward(cpu: &Cpu, parts: &[Part], kv_type: KvType, d_o: &[f32], seed: u64) -> Vec<f32> {
    const GAP: usize = 3;
    let a = parts[0].sequence.shape;
    let counts: Vec<usize> = parts.iter().map(|p| p.sequence.len.div_ceil(PAGE_TOKENS) - p.start() / PAGE_TOKENS).collect();
    let order = Random(seed).shuffled(counts.iter().sum());
    let (mut tables, mut used) = (Vec::<Vec<PageId>>::new(), 0);
    for (n, part) in counts.iter().zip(parts) {
        let shared = part.shared.map_or(Vec::new(), |(other, start)| tables[other][..start / PAGE_TOKENS].to_vec());
        tables.push(shared.into_iter().chain(order[used..used + n].iter().map(|p| PageId(*p))).collect());
        used += n;
    }
    let (mut segments, mut rows) = (Vec::new(), 0);
    for (part, pages) in parts.iter().zip(&tables) {
        segments.push(Segment { rows: rows..rows + part.rows(), start: part.start(), pages });
        rows += part.rows();
    }
    let qkv: Vec<f32> = parts.iter().flat_map(|p| p.sequence.qkv[p.start() * a.qkv_columns()..].to_vec()).collect();
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

/// Sequences that begin as others do: a prompt of 40 tokens with four answers, one of which goes on in two, and another sequence between.
fn family(random: &mut Random, a: AttentionShape) -> (Vec<Sequence>, Vec<Option<(usize, usize)>>) {
    let shared = vec![None, Some((0, 32)), None, Some((0, 32)), Some((3, 48)), Some((0, 16)), Some((3, 32))];
    let lengths = [45, 41, 17, 70, 90, 17, 300];
    let mut sequences: Vec<Sequence> = Vec::new();
    for (len, shared) in lengths.into_iter().zip(&shared) {
        let mut sequence = Sequence::new(random, a, len);
        if let Some((other, start)) = shared {
            let n = start * a.qkv_columns();
            sequence.qkv[..n].copy_from_slice(&sequences[*other].qkv[..n]);
        }
        sequences.push(sequence);
    }
    (sequences, shared)
}

fn parts<'a>(sequences: &'a [Sequence], shared: &[Option<(usize, usize)>]) -> Vec<Part<'a>> {
    sequences.iter().zip(shared).map(|(sequence, shared)| Part { sequence, shared: *shared }).collect()
}

/// Adds the gradients of a sequence's rows before `start` to the sequences that have them.
fn give(gradients: &mut [Vec<f64>], shared: &[Option<(usize, usize)>], columns: usize, from: usize) {
    let Some((other, start)) = shared[from] else { return };
    let before: Vec<f64> = gradients[from].drain(..start * columns).collect();
    for (to, x) in gradients[other].iter_mut().zip(before) {
        *to += x;
    }
}

#[test]
fn shared_rows_have_the_gradients_of_all_that_read_them() {
    let mut random = Random(43);
    for (heads, kv_heads, d) in [(4, 2, 16), (3, 1, 20), (2, 2, 64)] {
        let a = shape(heads, kv_heads, d);
        let (width, columns) = (heads * d, a.qkv_columns());
        let (sequences, shared) = family(&mut random, a);
        let all = parts(&sequences, &shared);
        let rows: usize = all.iter().map(Part::rows).sum();
        let d_o = random.vec(rows * width);
        for kv_type in KV_TYPES {
            let got = backward(&fast(), &all, kv_type, &d_o, 1);
            // Each sequence apart, with no gradient of o at rows that are another's.
            let (mut gradients, mut first) = (Vec::new(), 0);
            for part in &all {
                let own = &d_o[first * width..(first + part.rows()) * width];
                gradients.push(reference(part.sequence, kv_type, &[vec![0.0; part.start() * width], own.to_vec()].concat()));
                first += part.rows();
            }
            // Children give before their parents, so that a grandchild's arrive.
            for from in (0..all.len()).rev() {
                give(&mut gradients, &shared, columns, from);
            }
            assert_close(&got, &gradients.concat(), GRADIENT, &format!("{heads}:{kv_heads} heads of {d}, {kv_type:?}"));
            let expected = backward(&devices()[0], &all, kv_type, &d_o, 1);
            for cpu in devices() {
                assert_same(&backward(&cpu, &all, kv_type, &d_o, 2), &expected, &format!("{:?} {}", cpu.isa(), cpu.threads()));
            }
        }
    }
}

#[test]
fn pages_that_are_not_shared_rightly_are_refused() {
    let mut random = Random(44);
    let a = shape(2, 1, 16);
    let (long, short) = (Sequence::new(&mut random, a, 40), Sequence::new(&mut random, a, 50));
    // Not a page border; not a full page; as it should be.
    for (start, right) in [(24, false), (48, false), (32, true)] {
        let d_o = vec![1.0; (40 + 50 - start) * 32];
        let batch = [alone(&long), Part { sequence: &short, shared: Some((0, start)) }];
        let run = || backward(&fast(), &batch, KvType::F32, &d_o, 1);
        assert_eq!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok(), right, "start {start}");
    }
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
            let got = backward(&fast(), &[alone(&s)], kv_type, &d_o, 1);
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
    let all: Vec<Part> = sequences.iter().map(alone).collect();
    for kv_type in KV_TYPES {
        let expected = backward(&devices()[0], &all, kv_type, &d_o, 1);
        for cpu in devices() {
            assert_same(&backward(&cpu, &all, kv_type, &d_o, 2), &expected, &format!("{:?} {}", cpu.isa(), cpu.threads()));
        }
        let mut first = 0;
        for s in &sequences {
            let alone = backward(&fast(), &[alone(s)], kv_type, &d_o[first * width..(first + s.len) * width], 3);
            assert_same(&alone, &expected[first * columns..(first + s.len) * columns], "a sequence alone");
            first += s.len;
        }
    }
}
