//! Adapters that PEFT made, with ranks, scales and modules of all kinds, give PEFT's logits here; and what is exported of them is what PEFT
//! loaded and found the same logits with (`golden/peft/make.py`).

use std::path::PathBuf;

use tiger_formats::peft::{self, CONFIG_FILE, WEIGHTS_FILE};
use tiger_formats::{Checkpoint, Merged, SafeTensors};
use tiger_kernels::Cpu;
use tiger_model::*;

/// Largest relative error (norm of the difference over norm of the reference) in f32.
const TOLERANCE: f64 = 1e-4;

const CASES: [(&str, &str, usize); 5] = [
    ("patterns", "qwen2_biases_f32", 9),
    ("rslora_subset", "llama3_rope_f32", 5),
    ("one_layer", "mha_untied_f32", 3),
    ("normed_heads", "qwen3_untied_bf16", 4),
    ("regex_targets", "all_biases_f16", 2),
];

fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

fn logits(cpu: &Cpu, model: &Model, adapter: Option<&Adapter>, tokens: &[u32]) -> Vec<f32> {
    let mut kv = Kv::new(model, 16);
    let pages: Vec<PageId> = (0..16).map(PageId).collect();
    let (rows, outputs): (_, Vec<usize>) = (0..tokens.len(), (0..tokens.len()).collect());
    let segments = [Segment { rows, start: 0, pages: &pages, adapter }];
    let step = Step { tokens, segments: &segments, outputs: &outputs };
    let hidden = model.forward(cpu, &mut kv, &step, &mut Workspace::default());
    let mut logits = Vec::new();
    model.logits(cpu, &hidden, &mut logits);
    logits
}

fn error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b))) / norm(&mut want.iter().map(|x| f64::from(*x)))
}

#[test]
fn adapters_of_peft_give_its_logits() {
    for (case, base, rank) in CASES {
        let cpu = Cpu::new(1, None);
        let model = Model::load(&cpu, &Checkpoint::open(&golden(&format!("model/{base}"))).unwrap(), Precision::F32, &mut |_| {}).unwrap();
        let read = |file: &str| std::fs::read(golden(&format!("peft/{case}/{file}"))).unwrap();
        let file = peft::Adapter::from_bytes(&read(CONFIG_FILE), &read(WEIGHTS_FILE), model.architecture()).unwrap();
        assert_eq!(file.rank, rank, "{case}");
        let adapter = Adapter::from_peft(model.architecture(), &file).unwrap();
        let expected = SafeTensors::from_bytes("expected.safetensors", read("expected.safetensors")).unwrap();
        let tensor = |key: String| expected.tensor(&key).unwrap().to_f32().unwrap();
        for i in 0..2 {
            let tokens: Vec<u32> = tensor(format!("tokens.{i}")).iter().map(|x| *x as u32).collect();
            let want = tensor(format!("logits.{i}"));
            let found = error(&logits(&cpu, &model, Some(&adapter), &tokens), &want);
            assert!(found <= TOLERANCE, "{case}: relative error {found:.2e}");
            assert!(error(&logits(&cpu, &model, None, &tokens), &want) > 100.0 * TOLERANCE, "{case}: the adapter changes nothing");
        }
        // The same adapter within the weights; those of a base in f16 are rounded to it.
        if !base.ends_with("f16") {
            let checkpoint = Checkpoint::open(&golden(&format!("model/{base}"))).unwrap();
            let mut weights = Vec::new();
            Merged::new(&checkpoint, Some(&file)).write_safetensors(&mut weights).unwrap();
            let config = std::fs::read(golden(&format!("model/{base}/config.json"))).unwrap();
            let merged = Model::load(&cpu, &Checkpoint::from_bytes(&config, weights).unwrap(), Precision::F32, &mut |_| {}).unwrap();
            let tokens: Vec<u32> = tensor("tokens.0".to_owned()).iter().map(|x| *x as u32).collect();
            let found = error(&logits(&cpu, &merged, None, &tokens), &tensor("logits.0".to_owned()));
            assert!(found <= TOLERANCE, "{case} merged: relative error {found:.2e}");
        }
        // What PEFT was seen to load.
        let exported = adapter.to_peft();
        assert_eq!(exported.config_bytes(base), read("exported/adapter_config.json"), "{case}");
        assert_eq!(exported.weights_bytes().unwrap(), read("exported/adapter_model.safetensors"), "{case}");
    }
}
