//! Logits, log-probs, KL and every adapter gradient against transformers and autograd (`golden/model/make.py`), on tiny checkpoints
//! of every family.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::path::PathBuf;

use tiger_formats::safetensors::SafeTensors;
use tiger_formats::{Checkpoint, Module, peft};
use tiger_kernels::Cpu;
use tiger_model::*;

/// Largest relative error (norm of the difference over norm of the reference) in f32.
const F32_TOLERANCE: f64 = 1e-4;
/// With bf16 weights, activations rounded to bf16 at each linear map.
const BF16_TOLERANCE: f64 = 2e-2;

const CASES: [(&str, Precision); 23] = [
    ("mha_untied_f32", Precision::F32),
    ("gqa4_tied_bf16", Precision::F32),
    ("gqa4_tied_bf16", Precision::Bf16),
    ("gqa8_wide_head_bf16", Precision::F32),
    ("gqa8_wide_head_bf16", Precision::Bf16),
    ("llama3_rope_f32", Precision::F32),
    ("qwen2_biases_f32", Precision::F32),
    ("odd_ffn_linear_rope_f32", Precision::F32),
    ("all_biases_f16", Precision::F32),
    ("llama32_f32", Precision::F32),
    ("smollm2_bf16", Precision::F32),
    ("smollm2_bf16", Precision::Bf16),
    ("qwen25_untied_bf16", Precision::F32),
    ("qwen25_untied_bf16", Precision::Bf16),
    ("qwen3_tied_f32", Precision::F32),
    ("qwen3_untied_bf16", Precision::F32),
    ("qwen3_untied_bf16", Precision::Bf16),
    ("qwen3_biases_f32", Precision::F32),
    ("qwen25_yarn_f32", Precision::F32),
    ("qwen3_yarn_f32", Precision::F32),
    ("llama_yarn_f32", Precision::F32),
    ("mistral_f32", Precision::F32),
    ("mistral_window_old_f32", Precision::F32),
];

struct Case {
    cpu: Cpu,
    model: Model,
    adapter: Adapter,
    expected: SafeTensors<Vec<u8>>,
    sequences: Vec<Vec<u32>>,
    tolerance: f64,
    name: String,
}

impl Case {
    fn open(name: &str, precision: Precision) -> Case {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden/model").join(name);
        let cpu = Cpu::new(2, None);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let model = Model::load(&cpu, &checkpoint, precision, &mut |_| {}).unwrap();
        let weights = std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
        let config = std::fs::read(folder.join("adapter_config.json")).unwrap();
        let file = peft::Adapter::from_bytes(&config, &weights, model.architecture()).unwrap();
        let adapter = Adapter::from_peft(model.architecture(), &file).unwrap();
        let expected =
            SafeTensors::from_bytes("expected.safetensors", std::fs::read(folder.join("expected.safetensors")).unwrap()).unwrap();
        let read = |key: String| expected.tensor(&key).map(|t| t.to_f32().unwrap().iter().map(|&x| x as u32).collect::<Vec<u32>>());
        let sequences = (0..).map_while(|i| read(format!("tokens.{i}"))).collect();
        let tolerance = if precision == Precision::F32 { F32_TOLERANCE } else { BF16_TOLERANCE };
        Case { cpu, model, adapter, expected, sequences, tolerance, name: format!("{name} {precision:?}") }
    }

    fn expected(&self, key: &str) -> Vec<f32> {
        self.expected.tensor(key).unwrap_or_else(|| panic!("{} has no {key}", self.name)).to_f32().unwrap()
    }

    fn check(&self, what: &str, got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len(), "{} {what}", self.name);
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let error = difference / norm(&mut want.iter().map(|x| f64::from(*x))).max(1e-12);
        assert!(error <= self.tolerance, "{} {what}: relative error {error:.2e}", self.name);
    }

    /// Logits of every row, the sequences packed `chunk` tokens a step.
    fn logits(&self, adapter: Option<&Adapter>, chunk: usize) -> Vec<Vec<f32>> {
        let mut kv = Kv::new(&self.model, 32);
        let tables: Vec<Vec<PageId>> = (0..2).map(|i| (0..16).map(|p| PageId(2 * p + i)).collect()).collect();
        let mut workspace = Workspace::default();
        let mut all = vec![Vec::new(); self.sequences.len()];
        let longest = self.sequences.iter().map(Vec::len).max().unwrap();
        for start in (0..longest).step_by(chunk) {
            let (mut tokens, mut segments, mut owners) = (Vec::new(), Vec::new(), Vec::new());
            for (i, sequence) in self.sequences.iter().enumerate() {
                let part = &sequence[start.min(sequence.len())..(start + chunk).min(sequence.len())];
                if !part.is_empty() {
                    let rows = tokens.len()..tokens.len() + part.len();
                    tokens.extend_from_slice(part);
                    segments.push(Segment { rows: rows.clone(), start, pages: &tables[i], adapter });
                    owners.push((i, rows));
                }
            }
            let outputs: Vec<usize> = (0..tokens.len()).collect();
            let step = Step { tokens: &tokens, segments: &segments, outputs: &outputs };
            let hidden = self.model.forward(&self.cpu, &mut kv, &step, &mut workspace);
            let mut logits = Vec::new();
            self.model.logits(&self.cpu, &hidden, &mut logits);
            let v = self.model.architecture().vocab;
            for (i, rows) in owners {
                all[i].extend_from_slice(&logits[rows.start * v..rows.end * v]);
            }
        }
        all
    }

    fn batch(&self) -> TrainBatch {
        let mut batch = TrainBatch::default();
        for sequence in &self.sequences {
            let first = batch.tokens.len();
            batch.push(sequence.iter().copied());
            batch.targets.extend((1..sequence.len()).map(|i| Target { row: first + i - 1, token: sequence[i] }));
        }
        batch
    }

    fn concat(&self, key: &str) -> Vec<f32> {
        (0..self.sequences.len()).flat_map(|i| self.expected(&format!("{key}.{i}"))).collect()
    }

    fn gradients(&self, keep: Keep) -> (AdapterGradients, Vec<RowScore>, Vec<f32>) {
        let (batch, mut workspace) = (self.batch(), Workspace::default());
        let pass = |adapter| TrainPass { model: &self.model, cpu: &self.cpu, batch: &batch, adapter, dropout: None };
        let reference = pass(None).forward(Keep::Nothing, &mut workspace);
        let policy = pass(Some(&self.adapter));
        let saved = policy.forward(keep, &mut workspace);
        let scored = self.model.score(&self.cpu, &saved.hidden, &batch.targets, &mut workspace);
        let (coefficients, weights) = (self.concat("coefficient"), self.concat("weight"));
        let mut weigh = |part: std::ops::Range<usize>, _: &[RowScore]| {
            let weights = TokenWeights { coefficients: coefficients[part.clone()].to_vec(), kl: weights[part].to_vec() };
            Ok::<_, std::convert::Infallible>(weights)
        };
        let Ok(head) = policy.head(&saved, Some(&reference.hidden), &mut weigh, &mut workspace);
        assert_eq!(scored, head.scores, "a score is the same with and without a backward");
        let mut gradients = AdapterGradients::zeros(&self.adapter);
        policy.backward(saved, &head, &mut gradients, &mut workspace);
        (gradients, head.scores, head.kl)
    }
}

#[test]
fn logits_match_transformers() {
    for (name, precision) in CASES {
        let case = Case::open(name, precision);
        for (kind, adapter) in [("base_logits", None), ("logits", Some(&case.adapter))] {
            for (i, logits) in case.logits(adapter, usize::MAX).iter().enumerate() {
                case.check(kind, logits, &case.expected(&format!("{kind}.{i}")));
            }
        }
    }
}

#[test]
fn a_context_that_ends_at_the_window_is_used_to_its_end() {
    let case = Case::open("mistral_window_old_f32", Precision::F32);
    let longest = case.sequences.iter().map(Vec::len).max();
    assert_eq!(longest, Some(case.model.architecture().context_length), "transformers' windowed logits reach the last position");
}

#[test]
fn every_adapter_gradient_matches_autograd() {
    for (name, precision) in CASES {
        let case = Case::open(name, precision);
        let (gradients, scores, kl) = case.gradients(Keep::All);
        case.check("logprob", &scores.iter().map(|s| s.logprob).collect::<Vec<_>>(), &case.concat("logprob"));
        case.check("entropy", &scores.iter().map(|s| s.entropy).collect::<Vec<_>>(), &case.concat("entropy"));
        case.check("kl", &kl, &case.concat("kl"));
        for layer in 0..case.model.architecture().layers {
            for module in Module::ALL {
                let pair = case.adapter.pair(layer, module);
                let gradient = gradients.pair(layer, module);
                let (rank, padded) = (pair.rank, pair.padded_rank());
                let da: Vec<f32> =
                    (0..rank).flat_map(|r| (0..pair.k).map(move |k| (k, r))).map(|(k, r)| gradient.da[k * padded + r]).collect();
                let db: Vec<f32> =
                    (0..pair.n).flat_map(|n| (0..rank).map(move |r| (n, r))).map(|(n, r)| gradient.db[r * pair.n + n]).collect();
                let key = format!("base_model.model.model.layers.{layer}.{}", module.path());
                case.check(&format!("{key} dA"), &da, &case.expected(&format!("{key}.lora_A.grad")));
                case.check(&format!("{key} dB"), &db, &case.expected(&format!("{key}.lora_B.grad")));
            }
        }
    }
}

#[test]
fn checkpointed_layers_give_the_same_bits() {
    for (name, precision) in CASES {
        let case = Case::open(name, precision);
        let whole = case.gradients(Keep::All).0;
        for kept in 0..2 {
            assert_eq!(case.gradients(Keep::Last(kept)).0, whole, "{}, {kept} layers kept", case.name);
        }
    }
}

#[test]
fn chunks_and_single_tokens_give_the_same_bits() {
    for (name, precision) in CASES {
        let case = Case::open(name, precision);
        let whole = case.logits(Some(&case.adapter), usize::MAX);
        for chunk in [1, 7, 32] {
            assert!(case.logits(Some(&case.adapter), chunk) == whole, "{} in chunks of {chunk}", case.name);
        }
    }
}

#[test]
fn trained_log_probs_are_the_sampled_ones_bit_for_bit() {
    for (name, precision) in CASES {
        let case = Case::open(name, precision);
        let (_, trained, _) = case.gradients(Keep::All);
        let v = case.model.architecture().vocab;
        let mut sampled = Vec::new();
        for (sequence, logits) in case.sequences.iter().zip(case.logits(Some(&case.adapter), 1)) {
            for (row, &token) in logits.chunks_exact(v).zip(&sequence[1..]) {
                let mut score = [RowScore::default()];
                tiger_kernels::ops::logprob::score_rows(&case.cpu, row, v, &[token], &mut score);
                sampled.push(score[0]);
            }
        }
        assert_eq!(trained, sampled, "{}", case.name);
    }
}

#[test]
fn adapters_and_optimizer_state_survive_their_files() {
    let case = Case::open("llama3_rope_f32", Precision::F32);
    let architecture = case.model.architecture();
    let back = Adapter::from_bytes(architecture, &case.adapter.to_bytes()).unwrap();
    assert_eq!(back, case.adapter);
    let mut state = AdapterState::new(back);
    state.moments.step = 3;
    for (i, tensor) in state.moments.first.iter_mut().enumerate() {
        // Padding of A stays zero; B has none.
        if i % 2 == 1 {
            tensor.iter_mut().enumerate().for_each(|(j, x)| *x = (i * j) as f32);
        }
    }
    state.record = Record { reward: -0.25, kl: 0.5 };
    let bytes = state.optimizer_to_bytes();
    assert_eq!(AdapterState::from_parts(architecture, case.adapter.clone(), &bytes).unwrap(), state);
    // A file of 0.1, which had no record: the step alone, then the moments.
    let old = [&state.moments.step.to_le_bytes(), &bytes[24..]].concat();
    let without = AdapterState { record: Record::default(), ..state };
    assert_eq!(AdapterState::from_parts(architecture, case.adapter.clone(), &old).unwrap(), without);
    for cut in [0, 7, 15, 16, 23, 31, 100, bytes.len() - 1] {
        assert!(AdapterState::from_parts(architecture, case.adapter.clone(), &bytes[..cut]).is_err(), "cut at {cut}");
    }
}
