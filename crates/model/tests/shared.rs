//! Answers to one prompt in one training batch, the prompt once, against the same sequences each whole: the same bits forward, the same
//! gradients up to the order of sums.

use std::convert::Infallible;
use std::ops::Range;

use tiger_formats::{Architecture, Rope, RopeScaling};
use tiger_kernels::Cpu;
use tiger_model::*;

/// Largest relative error of a gradient in f32: only the order of sums differs.
const F32_TOLERANCE: f64 = 1e-5;
/// Where the backward rounds what it reads (bf16 rows of dY), that grows to a rounding of bf16.
const ROUNDED_TOLERANCE: f64 = 1e-2;

const PRECISIONS: [Precision; 4] = [Precision::F32, Precision::Bf16, Precision::Int8, Precision::Int4];
const KV_TYPES: [KvType; 3] = [KvType::F32, KvType::Bf16, KvType::Int8];

fn model(precision: Precision, kv_type: KvType, qk_norm: bool) -> Model {
    let architecture = Architecture {
        hidden: 64,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ffn: 128,
        vocab: 320,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        context_length: 2048,
        tied: true,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm,
    };
    Model::synthetic(&Cpu::new(1, None), &architecture, precision, 11).with_kv_type(kv_type)
}

/// B is not zero, so that every gradient is there.
fn adapter(model: &Model) -> Adapter {
    let mut adapter = Adapter::new(model.architecture(), 8, 16.0, 3);
    for tensor in adapter.tensors_mut().skip(1).step_by(2) {
        tensor.iter_mut().enumerate().for_each(|(j, value)| *value = (j * 7 % 29) as f32 / 290.0 - 0.05);
    }
    adapter
}

fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|i| (i * i * 31 + i * 17 + seed * 101) % 320).collect()
}

/// Two prompts, one longer than a block of the softmax, and their answers; a prompt too short to share.
fn groups() -> Vec<(Vec<u32>, Vec<Vec<u32>>)> {
    let answers = |lengths: &[usize], seed: u32| lengths.iter().zip(seed..).map(|(n, seed)| tokens(seed, *n)).collect();
    vec![
        (tokens(1, 65), answers(&[5, 1, 30], 10)),
        (tokens(2, 300), answers(&[20, 40], 20)),
        (tokens(3, 16), answers(&[9, 3], 30)),
        (tokens(4, 17), answers(&[2, 7], 40)),
    ]
}

fn batch(shared: bool) -> TrainBatch {
    let mut batch = TrainBatch::default();
    for (prompt, answers) in groups() {
        let common = if shared { TrainBatch::shareable(prompt.len()) } else { 0 };
        let mut first = None;
        for answer in answers {
            let whole: Vec<u32> = prompt.iter().chain(&answer[..answer.len() - 1]).copied().collect();
            let segment = match first {
                Some(first) => batch.push_after(first, common, whole[common..].iter().copied()),
                None => *first.insert(batch.push(whole)),
            };
            let TrainSegment { rows, start, .. } = batch.segments[segment].clone();
            let target = |(t, token): (usize, &u32)| Target { row: rows.start + prompt.len() - 1 + t - start, token: *token };
            batch.targets.extend(answer.iter().enumerate().map(target));
        }
    }
    batch
}

struct Outcome {
    scores: Vec<RowScore>,
    gradients: AdapterGradients,
    kl: Vec<f32>,
}

fn train(cpu: &Cpu, model: &Model, batch: &TrainBatch, keep: Keep) -> Outcome {
    let (adapter, mut workspace) = (adapter(model), Workspace::default());
    let pass = |adapter| TrainPass { model, cpu, batch, adapter, dropout: None };
    let reference = pass(None).forward(Keep::Nothing, &mut workspace).hidden;
    let policy = pass(Some(&adapter));
    let saved = policy.forward(keep, &mut workspace);
    let count = batch.targets.len();
    let coefficients: Vec<f32> = (0..count).map(|i| (i * 5 % 11) as f32 / 11.0 - 0.4).collect();
    let kl: Vec<f32> = (0..count).map(|i| (i % 3) as f32 * 0.1).collect();
    let mut weigh = |part: Range<usize>, _: &[RowScore]| {
        Ok::<_, Infallible>(TokenWeights { coefficients: coefficients[part.clone()].to_vec(), kl: kl[part].to_vec() })
    };
    let Ok(head) = policy.head(&saved, Some(&reference), &mut weigh, &mut workspace);
    let mut gradients = AdapterGradients::zeros(&adapter);
    policy.backward(saved, &head, &mut gradients, &mut workspace);
    Outcome { scores: head.scores, gradients, kl: head.kl }
}

/// Norm of the difference over the norm, of each tensor; the largest.
fn distance(got: &AdapterGradients, want: &AdapterGradients) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let tensor = |(got, want): (&Vec<f32>, &Vec<f32>)| {
        let difference = norm(&mut got.iter().zip(want).map(|(x, y)| f64::from(*x) - f64::from(*y)));
        difference / norm(&mut want.iter().map(|x| f64::from(*x))).max(1e-12)
    };
    got.tensors().zip(want.tensors()).map(tensor).fold(0.0, f64::max)
}

#[test]
fn shared_prompts_change_no_score_and_no_gradient() {
    let cpu = Cpu::new(2, None);
    let (together, apart) = (batch(true), batch(false));
    assert_eq!((apart.tokens.len() - together.tokens.len(), together.segments.len()), (2 * 64 + 288 + 16, apart.segments.len()));
    for precision in PRECISIONS {
        for (kv_type, qk_norm) in KV_TYPES.into_iter().flat_map(|kv_type| [(kv_type, false), (kv_type, true)]) {
            let model = model(precision, kv_type, qk_norm);
            let (got, want) = (train(&cpu, &model, &together, Keep::All), train(&cpu, &model, &apart, Keep::All));
            assert_eq!(got.scores, want.scores, "{precision:?}, {kv_type:?}");
            assert_eq!(got.kl, want.kl, "{precision:?}, {kv_type:?}");
            let tolerance = if precision == Precision::F32 { F32_TOLERANCE } else { ROUNDED_TOLERANCE };
            let error = distance(&got.gradients, &want.gradients);
            assert!(error <= tolerance, "{precision:?}, {kv_type:?}: {error:.2e}");
        }
    }
}

#[test]
fn threads_and_checkpoints_change_no_bit() {
    let batch = batch(true);
    for (precision, kv_type, qk_norm) in [
        (Precision::F32, KvType::F32, false),
        (Precision::Bf16, KvType::Bf16, false),
        (Precision::Bf16, KvType::Bf16, true),
        (Precision::Int4, KvType::Int8, false),
    ] {
        let model = model(precision, kv_type, qk_norm);
        let want = train(&Cpu::new(1, None), &model, &batch, Keep::All);
        for threads in [2, 3] {
            for keep in [Keep::All, Keep::Last(2), Keep::Last(1), Keep::Last(0)] {
                let got = train(&Cpu::new(threads, None), &model, &batch, keep);
                assert!(got.gradients == want.gradients && got.scores == want.scores, "{precision:?}, {threads} threads, {keep:?}");
            }
        }
    }
}

#[test]
fn as_many_layers_are_kept_as_fit() {
    let (batch, model) = (batch(true), model(Precision::Bf16, KvType::Bf16, false));
    let keep = |bytes| batch.keep_within(bytes, model.architecture(), 8);
    // Of three layers their inputs; of each that is whole q, k and v, o and its sums, gate and up, seven h of padded rank, the middle.
    let row = 4 * batch.tokens.len() as u64;
    let (inputs, layer) = (3 * 64 * row, (128 + 64 + 4 + 256 + 7 * 16 + 64) * row);
    assert_eq!((keep(0), keep(inputs + layer)), (Keep::Last(1), Keep::Last(1)), "the last is whole in any case");
    assert_eq!((keep(inputs + 2 * layer - 1), keep(inputs + 2 * layer)), (Keep::Last(1), Keep::Last(2)));
    assert_eq!((keep(inputs + 3 * layer - 1), keep(inputs + 3 * layer)), (Keep::Last(2), Keep::All));
    assert_eq!(keep(u64::MAX), Keep::All);
    // Where heads have norms: q and k before these too.
    let normed = Architecture { qk_norm: true, ..model.architecture().clone() };
    assert_eq!(batch.kept_bytes(Keep::Last(2), &normed, 8), inputs + 2 * (layer + (4 + 2) * 16 * row));
}
