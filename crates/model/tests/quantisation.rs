//! int8 and int4 against what Q8_0 and Q4_0 lose on the same weights (`golden/quantisation/make.py`).

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::path::PathBuf;

use tiger_formats::Checkpoint;
use tiger_kernels::Cpu;
use tiger_model::*;

/// Natural logs of the probabilities after each token of each window, [windows][T, V].
fn log_probs(precision: Precision, kv_type: KvType, windows: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/checkpoint");
    let cpu = Cpu::new(2, None);
    let model = Model::load(&cpu, &Checkpoint::open(&folder).unwrap(), precision, &mut |_| {}).unwrap().with_kv_type(kv_type);
    let of = |tokens: &Vec<u32>| {
        let pages: Vec<PageId> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).map(PageId).collect();
        let segments = [Segment { rows: 0..tokens.len(), start: 0, pages: &pages, adapter: None }];
        let outputs: Vec<usize> = (0..tokens.len()).collect();
        let step = Step { tokens, segments: &segments, outputs: &outputs };
        let hidden = model.forward(&cpu, &mut Kv::new(&model, pages.len()), &step, &mut Workspace::default());
        let mut logits = Vec::new();
        model.logits(&cpu, &hidden, &mut logits);
        let row = |row: &[f32]| {
            let maximum = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let sum: f64 = row.iter().map(|z| f64::from(z - maximum).exp()).sum();
            row.iter().map(|z| f64::from(z - maximum) - sum.ln()).collect::<Vec<f64>>()
        };
        logits.chunks(model.architecture().vocab).flat_map(row).collect()
    };
    windows.iter().map(of).collect()
}

/// Windows of the golden file, and the file.
fn windows() -> (Vec<Vec<u32>>, serde_json::Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/quantisation/error.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    (serde_json::from_value(golden["windows"].clone()).unwrap(), golden)
}

/// Mean KL(p ‖ q) of a position, nats.
fn kl(p: &[Vec<f64>], q: &[Vec<f64>], windows: &[Vec<u32>]) -> f64 {
    let pairs = p.iter().flatten().zip(q.iter().flatten());
    pairs.map(|(p, q)| p.exp() * (p - q)).sum::<f64>() / windows.iter().map(Vec::len).sum::<usize>() as f64
}

/// Keys and values in 8 bits cost less than half of what weights in 8 bits cost; in bf16 a small part of it.
#[test]
fn keys_and_values_in_int8_lose_little() {
    let (windows, golden) = windows();
    let exact = log_probs(Precision::F32, KvType::F32, &windows);
    let of = |kv_type| kl(&exact, &log_probs(Precision::F32, kv_type, &windows), &windows);
    let (bf16, int8, q8_0) = (of(KvType::Bf16), of(KvType::Int8), golden["q8_0"].as_f64().unwrap());
    println!("KL of bf16 keys and values {bf16:.3e} nats, of int8 {int8:.3e}; of Q8_0 weights {q8_0:.3e}");
    assert!(int8 < 0.5 * q8_0 && bf16 < 0.1 * q8_0, "bf16 {bf16:e}, int8 {int8:e}, Q8_0 {q8_0:e}");
    assert!(int8 > 0.0 && bf16 > 0.0, "nothing is rounded");
}

#[test]
fn no_more_is_lost_than_by_blocks_of_32_with_naive_scales() {
    let (windows, golden) = windows();
    let exact = log_probs(Precision::F32, KvType::F32, &windows);
    for (precision, theirs) in [(Precision::Int8, "q8_0"), (Precision::Int4, "q4_0")] {
        let kl = kl(&exact, &log_probs(precision, KvType::Bf16, &windows), &windows);
        let theirs = golden[theirs].as_f64().unwrap();
        println!("{precision:?}: KL {kl:.3e} nats, {:.2} of theirs", kl / theirs);
        assert!(kl <= theirs, "{precision:?}: KL {kl:e}, theirs {theirs:e}");
        assert!(kl > 0.01 * theirs, "{precision:?} is not rounded at all");
    }
}
