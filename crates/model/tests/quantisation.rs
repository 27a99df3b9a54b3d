//! int8 and int4 against what Q8_0 and Q4_0 lose on the same weights (`golden/quantisation/make.py`).

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::path::PathBuf;

use tiger_formats::Checkpoint;
use tiger_kernels::Cpu;
use tiger_model::*;

/// Natural logs of the probabilities after each token of each window, [windows][T, V].
fn log_probs(precision: Precision, windows: &[Vec<u32>]) -> Vec<Vec<f64>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/checkpoint");
    let cpu = Cpu::new(2, None);
    let model = Model::load(&cpu, &Checkpoint::open(&folder).unwrap(), precision, &mut |_| {}).unwrap();
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

#[test]
fn no_more_is_lost_than_by_blocks_of_32_with_naive_scales() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/quantisation/error.json");
    let golden: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let windows: Vec<Vec<u32>> = serde_json::from_value(golden["windows"].clone()).unwrap();
    let positions = windows.iter().map(Vec::len).sum::<usize>() as f64;
    let exact = log_probs(Precision::F32, &windows);
    for (precision, theirs) in [(Precision::Int8, "q8_0"), (Precision::Int4, "q4_0")] {
        let rounded = log_probs(precision, &windows);
        let pairs = exact.iter().flatten().zip(rounded.iter().flatten());
        let kl = pairs.map(|(p, q)| p.exp() * (p - q)).sum::<f64>() / positions;
        let theirs = golden[theirs].as_f64().unwrap();
        println!("{precision:?}: KL {kl:.3e} nats, {:.2} of theirs", kl / theirs);
        assert!(kl <= theirs, "{precision:?}: KL {kl:e}, theirs {theirs:e}");
        assert!(kl > 0.01 * theirs, "{precision:?} is not rounded at all");
    }
}
