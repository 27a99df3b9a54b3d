//! GGUF files as bases: the logits that transformers computes of the same files (`golden/gguf/make_models.py`), and those of the checkpoint that
//! one of our own files was written from.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::path::{Path, PathBuf};

use tiger_formats::gguf::small_files;
use tiger_formats::{Checkpoint, Gguf, GgufFile, GgufType, Merged, SafeTensors};
use tiger_kernels::Cpu;
use tiger_model::*;

/// Largest relative error (norm of the difference over norm of the reference) in f32: both dequantise to the same values.
const TOLERANCE: f64 = 1e-5;

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// A folder as `tiger pull` makes it.
fn unpacked(file: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in small_files(&Gguf::open(file).unwrap()).unwrap() {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    std::fs::copy(file, dir.path().join("model.gguf")).unwrap();
    dir
}

fn logits(folder: &Path, precision: Precision, tokens: &[u32]) -> Vec<f32> {
    let cpu = Cpu::new(1, None);
    let model = Model::load(&cpu, &Checkpoint::open(folder).unwrap(), precision, &mut |_| {}).unwrap();
    let mut kv = Kv::new(&model, 16);
    let pages: Vec<PageId> = (0..16).map(PageId).collect();
    let (rows, outputs): (_, Vec<usize>) = (0..tokens.len(), (0..tokens.len()).collect());
    let segments = [Segment { rows, start: 0, pages: &pages, adapter: None }];
    let step = Step { tokens, segments: &segments, outputs: &outputs };
    let hidden = model.forward(&cpu, &mut kv, &step, &mut Workspace::default());
    let mut logits = Vec::new();
    model.logits(&cpu, &hidden, &mut logits);
    logits
}

fn error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b))) / norm(&mut want.iter().map(|x| f64::from(*x)))
}

#[test]
fn files_of_others_give_the_logits_of_transformers() {
    for name in ["mixed", "pieces", "qwen2"] {
        let folder = root("golden/gguf/models").join(name);
        let expected = SafeTensors::open(&folder.join("expected.safetensors")).unwrap();
        let tokens: Vec<u32> = expected.tensor("tokens").unwrap().to_f32().unwrap().iter().map(|x| *x as u32).collect();
        let dir = unpacked(&folder.join("model.gguf"));
        let found = error(&logits(dir.path(), Precision::F32, &tokens), &expected.tensor("logits").unwrap().to_f32().unwrap());
        println!("{name}: relative error {found:.1e}");
        assert!(found <= TOLERANCE, "{name}: relative error {found:.2e}");
    }
}

#[test]
fn our_own_file_gives_the_bits_of_its_checkpoint() {
    let base = root("models/nano/checkpoint");
    let checkpoint = Checkpoint::open(&base).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nano.gguf");
    let out = std::fs::File::create(&path).unwrap();
    GgufFile::new(&Merged::new(&checkpoint, None), &base, "nano", GgufType::Bf16).unwrap().write(out).unwrap();
    let dir = unpacked(&path);
    let tokens: Vec<u32> = (5..70).collect();
    assert_eq!(logits(dir.path(), Precision::Bf16, &tokens), logits(&base, Precision::Bf16, &tokens));
}
