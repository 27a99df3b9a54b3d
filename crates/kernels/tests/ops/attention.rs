//! Attention's forward: against f64, and the exactness rule over chunks, pages, batches, threads and instruction sets.

use tiger_kernels::Cpu;
use tiger_kernels::ops::attention::{
    AttentionOutput, AttentionShape, KvLayer, KvRead, KvShape, KvType, PAGE_TOKENS, PageId, Segment, attention, kv_store,
};
use tiger_kernels::ops::rows::Rows;

use crate::support::{Random, assert_close, assert_same, devices, fast};

const TOLERANCE: f64 = 3e-6;

/// One sequence's rows of q, k and v side by side.
pub struct Sequence {
    pub shape: AttentionShape,
    pub qkv: Vec<f32>,
    pub len: usize,
}

impl Sequence {
    pub fn new(random: &mut Random, shape: AttentionShape, len: usize) -> Sequence {
        Sequence { shape, qkv: random.scaled(len * shape.qkv_columns(), 2.0), len }
    }
    pub fn k_column(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }
    pub fn v_column(&self) -> usize {
        self.k_column() + self.shape.kv_heads * self.shape.head_dim
    }
}

pub fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> AttentionShape {
    AttentionShape { heads, kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
}

pub fn layer(shape: AttentionShape, kv_type: KvType, pages: usize) -> KvLayer {
    KvLayer::new(KvShape { kv_heads: shape.kv_heads, head_dim: shape.head_dim }, kv_type, pages)
}

pub const KV_TYPES: [KvType; 3] = [KvType::F32, KvType::Bf16, KvType::Int8];

/// One position's keys or values of one head, as the cache holds them.
pub fn rounded(head: &[f32], kv_type: KvType) -> Vec<f64> {
    let max = head.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let round = |x: &f32| match kv_type {
        KvType::F32 => f64::from(*x),
        KvType::Bf16 => f64::from(half::bf16::from_f32(*x).to_f32()),
        KvType::Int8 if max == 0.0 => 0.0,
        KvType::Int8 => f64::from((x * (127.0 / max)).round_ties_even()) * f64::from(max / 127.0),
    };
    head.iter().map(round).collect()
}

/// o then lse of every row, plain f64.
fn reference(s: &Sequence, kv_type: KvType) -> (Vec<f64>, Vec<f64>) {
    let (a, stride) = (s.shape, s.shape.qkv_columns());
    let (mut o, mut all_lse) = (Vec::new(), Vec::new());
    for t in 0..s.len {
        for h in 0..a.heads {
            let g = h / a.group() * a.head_dim;
            let heads = |column: usize| -> Vec<Vec<f64>> {
                (0..=t).map(|j| rounded(&s.qkv[j * stride + column + g..][..a.head_dim], kv_type)).collect()
            };
            let (keys, values) = (heads(s.k_column()), heads(s.v_column()));
            let q = &s.qkv[t * stride + h * a.head_dim..][..a.head_dim];
            let scores: Vec<f64> =
                (0..=t).map(|j| f64::from(a.scale) * (0..a.head_dim).map(|i| f64::from(q[i]) * keys[j][i]).sum::<f64>()).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let lse = max + scores.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
            for i in 0..a.head_dim {
                o.push(scores.iter().zip(&values).map(|(score, value)| (score - lse).exp() * value[i]).sum());
            }
            all_lse.push(lse);
        }
    }
    (o, all_lse)
}

/// Stores and attends some segments in one batch whose rows are `qkv`; o then lse.
pub fn attend(cpu: &Cpu, shape: &AttentionShape, layer: &mut KvLayer, qkv: &[f32], segments: &[Segment]) -> (Vec<f32>, Vec<f32>) {
    let stride = shape.qkv_columns();
    let rows = qkv.len() / stride;
    let view = |column| Rows { data: qkv, stride, column };
    let k_column = shape.heads * shape.head_dim;
    kv_store(cpu, layer, view(k_column), view(k_column + shape.kv_heads * shape.head_dim), segments);
    let (mut o, mut lse) = (vec![f32::NAN; rows * shape.heads * shape.head_dim], vec![f32::NAN; rows * shape.heads]);
    attention(cpu, shape, view(0), KvRead { layer, segments }, AttentionOutput { o: &mut o, lse: &mut lse });
    (o, lse)
}

/// The whole sequence in chunks of the given sizes (the last repeats) over a shuffled page table.
fn chunked(cpu: &Cpu, s: &Sequence, kv_type: KvType, chunks: &[usize], seed: u64) -> (Vec<f32>, Vec<f32>) {
    let needed = s.len.div_ceil(PAGE_TOKENS);
    let mut cache = layer(s.shape, kv_type, needed + 3);
    let pages: Vec<PageId> = Random(seed).shuffled(needed + 3)[..needed].iter().map(|p| PageId(*p)).collect();
    let (mut o, mut lse, mut start, mut i) = (Vec::new(), Vec::new(), 0, 0);
    while start < s.len {
        let size = chunks[i.min(chunks.len() - 1)].min(s.len - start);
        let stride = s.shape.qkv_columns();
        let segment = Segment { rows: 0..size, start, pages: &pages };
        let part = attend(cpu, &s.shape, &mut cache, &s.qkv[start * stride..(start + size) * stride], &[segment]);
        o.extend(part.0);
        lse.extend(part.1);
        start += size;
        i += 1;
    }
    (o, lse)
}

/// (heads, kv heads, head size, length)
const CASES: [(usize, usize, usize, usize); 7] =
    [(2, 2, 16, 1), (2, 2, 20, 40), (4, 1, 64, 70), (8, 1, 16, 300), (8, 2, 20, 261), (3, 3, 128, 50), (4, 2, 2, 530)];

#[test]
fn forward_matches_f64() {
    let mut random = Random(30);
    for (heads, kv_heads, d, len) in CASES {
        for kv_type in KV_TYPES {
            let s = Sequence::new(&mut random, shape(heads, kv_heads, d), len);
            let (o, lse) = chunked(&fast(), &s, kv_type, &[len], 1);
            let (eo, else_) = reference(&s, kv_type);
            let what = format!("{heads}:{kv_heads} heads of {d}, {len} tokens, {kv_type:?}");
            assert_close(&o, &eo, TOLERANCE, &what);
            assert_close(&lse, &else_, TOLERANCE, &what);
        }
    }
}

#[test]
fn chunks_pages_and_decode_change_no_bit() {
    let mut random = Random(31);
    for (heads, kv_heads, d, len) in CASES {
        for kv_type in KV_TYPES {
            let s = Sequence::new(&mut random, shape(heads, kv_heads, d), len);
            let whole = chunked(&fast(), &s, kv_type, &[len], 1);
            for (chunks, seed) in [(vec![1], 2), (vec![16], 3), (vec![37, 5, 100], 4), (vec![255, 1, 2, 300], 5)] {
                let other = chunked(&fast(), &s, kv_type, &chunks, seed);
                let what = format!("{heads}:{kv_heads} heads of {d}, {len} tokens in {chunks:?}, {kv_type:?}");
                assert_same(&other.0, &whole.0, &what);
                assert_same(&other.1, &whole.1, &what);
            }
        }
    }
}

#[test]
fn instruction_sets_and_threads_change_no_bit() {
    let mut random = Random(32);
    for (heads, kv_heads, d, len) in [(8, 2, 20, 30), (4, 4, 64, 18), (6, 1, 16, 280)] {
        for kv_type in KV_TYPES {
            let s = Sequence::new(&mut random, shape(heads, kv_heads, d), len);
            let expected = chunked(&devices()[0], &s, kv_type, &[len], 1);
            for cpu in devices() {
                let got = chunked(&cpu, &s, kv_type, &[len - 3, 1], 2);
                assert_same(&got.0, &expected.0, &format!("{:?} {}", cpu.isa(), cpu.threads()));
                assert_same(&got.1, &expected.1, &format!("{:?} {}", cpu.isa(), cpu.threads()));
            }
        }
    }
}

#[test]
fn a_batch_of_decodes_and_chunks_is_each_alone() {
    let mut random = Random(33);
    let a = shape(8, 2, 20);
    let stride = a.qkv_columns();
    // (length, rows in the batch): a decode, a chunk, a fresh prompt, a decode just past a block.
    let plan = [(100, 1), (90, 33), (41, 41), (257, 1), (0, 0)];
    let sequences: Vec<Sequence> = plan.iter().map(|(len, _)| Sequence::new(&mut random, a, *len)).collect();
    let order = random.shuffled(64);
    for kv_type in KV_TYPES {
        let mut cache = layer(a, kv_type, 64);
        let (mut tables, mut used) = (Vec::new(), 0);
        for s in &sequences {
            let n = s.len.div_ceil(PAGE_TOKENS);
            tables.push(order[used..used + n].iter().map(|p| PageId(*p)).collect::<Vec<_>>());
            used += n;
        }
        let (mut batch, mut segments) = (Vec::new(), Vec::new());
        for ((s, (len, rows)), pages) in sequences.iter().zip(plan).zip(&tables) {
            let (start, first) = (len - rows, batch.len() / stride);
            if start > 0 {
                attend(&fast(), &a, &mut cache, &s.qkv[..start * stride], &[Segment { rows: 0..start, start: 0, pages }]);
            }
            batch.extend(&s.qkv[start * stride..]);
            segments.push(Segment { rows: first..first + rows, start, pages });
        }
        let (o, lse) = attend(&fast(), &a, &mut cache, &batch, &segments);
        for ((s, (len, rows)), segment) in sequences.iter().zip(plan).zip(&segments) {
            if rows > 0 {
                let alone = chunked(&fast(), s, kv_type, &[len], 9);
                let (width, first) = (a.heads * a.head_dim, segment.rows.start);
                assert_same(&o[first * width..(first + rows) * width], &alone.0[(len - rows) * width..], "o in the batch");
                assert_same(&lse[first * a.heads..(first + rows) * a.heads], &alone.1[(len - rows) * a.heads..], "lse in the batch");
            }
        }
    }
}

/// A page that another sequence left full of NaN must not reach a row that does not see those positions.
#[test]
fn what_lies_behind_a_row_does_not_reach_it() {
    let mut random = Random(34);
    for (heads, kv_heads, d, len) in [(4, 1, 20, 21), (2, 2, 64, 259)] {
        for kv_type in KV_TYPES {
            let s = Sequence::new(&mut random, shape(heads, kv_heads, d), len);
            let clean = chunked(&fast(), &s, kv_type, &[len], 1);
            let pages: Vec<PageId> = (0..len.div_ceil(PAGE_TOKENS) as u32).map(PageId).collect();
            let full = pages.len() * PAGE_TOKENS;
            let mut cache = layer(s.shape, kv_type, pages.len());
            attend(
                &fast(),
                &s.shape,
                &mut cache,
                &vec![f32::NAN; full * s.shape.qkv_columns()],
                &[Segment { rows: 0..full, start: 0, pages: &pages }],
            );
            let dirty = attend(&fast(), &s.shape, &mut cache, &s.qkv, &[Segment { rows: 0..len, start: 0, pages: &pages }]);
            assert_same(&dirty.0, &clean.0, "o over recycled pages");
            // A later row's NaN changes no earlier row.
            let mut poisoned = Sequence { qkv: s.qkv.clone(), ..s };
            let stride = poisoned.shape.qkv_columns();
            poisoned.qkv[(len - 1) * stride..].fill(f32::NAN);
            let got = chunked(&fast(), &poisoned, kv_type, &[len], 1);
            let kept = (len - 1) * heads * d;
            assert_same(&got.0[..kept], &clean.0[..kept], "rows before a NaN");
        }
    }
}

#[test]
fn extreme_scores_give_no_nan() {
    let a = shape(2, 1, 16);
    let mut s = Sequence::new(&mut Random(35), a, 300);
    for (i, x) in s.qkv.iter_mut().enumerate() {
        *x *= if i % 3 == 0 { 100.0 } else { -30.0 };
    }
    let (o, lse) = chunked(&fast(), &s, KvType::F32, &[300], 1);
    assert!(o.iter().chain(&lse).all(|x| x.is_finite()));
    let (eo, elses) = reference(&s, KvType::F32);
    assert_close(&lse, &elses, 1e-5, "lse");
    // Scores near 10⁴ carry errors near 10⁻³ into the weights.
    assert_close(&o, &eo, 2e-2, "o");
}

/// Bytes of one head of size 20 in one page.
fn page_bytes(kv_type: KvType) -> usize {
    let elements = 16 * (20 + 32);
    match kv_type {
        KvType::F32 => 4 * elements,
        KvType::Bf16 => 2 * elements,
        KvType::Int8 => elements + 4 * 32,
    }
}

#[test]
fn a_copied_page_serves_as_the_original() {
    let a = shape(4, 2, 20);
    let s = Sequence::new(&mut Random(36), a, 30);
    let stride = a.qkv_columns();
    for kv_type in KV_TYPES {
        let mut cache = layer(a, kv_type, 6);
        let (first, second) = ([PageId(4), PageId(1)], [PageId(4), PageId(5)]);
        attend(&fast(), &a, &mut cache, &s.qkv[..25 * stride], &[Segment { rows: 0..25, start: 0, pages: &first }]);
        cache.copy_page(PageId(1), PageId(5));
        let rest = &s.qkv[25 * stride..];
        let original = attend(&fast(), &a, &mut cache, rest, &[Segment { rows: 0..5, start: 25, pages: &first }]);
        let copy = attend(&fast(), &a, &mut cache, rest, &[Segment { rows: 0..5, start: 25, pages: &second }]);
        assert_same(&copy.0, &original.0, "o from the copied page");
        assert_eq!(KvLayer::bytes_per_page(cache.shape(), kv_type), 2 * page_bytes(kv_type));
    }
}
