//! What rounding costs: the distribution of a precision against that of bf16, on a text. Does not measure time.

use std::path::Path;

use serde_json::json;
use tiger_formats::{Checkpoint, Tokenizer};
use tiger_kernels::Cpu;
use tiger_model::{Kv, Model, PAGE_TOKENS, PageId, Precision, Segment, Step, Workspace};

use crate::failure::Failure;
use crate::output;

/// Tokens that are predicted from one beginning, and the most of them.
const WINDOW: usize = 256;
const MOST_TOKENS: usize = 16_384;

/// Sums over positions.
#[derive(Default)]
struct Sums {
    positions: f64,
    /// Σ ln p(next token)
    reference: f64,
    rounded: f64,
    /// Σ KL(bf16 ‖ precision), nats
    kl: f64,
    same_best: f64,
}

/// Measures and prints.
pub(super) fn run(cpu: &Cpu, folder: &str, precision: Precision, text: &Path, json: bool) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open(Path::new(folder))
        .map_err(|e| Failure::because(format!("--text needs a checkpoint folder as --model, and {folder} is none"), e))?;
    let tokenizer = Tokenizer::open(Path::new(folder)).map_err(|e| Failure::because(folder, e))?;
    let content = std::fs::read_to_string(text).map_err(|e| Failure::because(text.display(), e))?;
    let mut ids = tokenizer.encode(&content, false).map_err(|e| Failure::because(text.display(), e))?;
    ids.truncate(MOST_TOKENS);
    if ids.len() < 2 {
        return Err(Failure::new(format!("{} has no two tokens", text.display())));
    }
    let load = |precision| Model::load(cpu, &checkpoint, precision, &mut |_| {}).map_err(|e| Failure::because(folder, e));
    let (reference, rounded) = (load(Precision::Bf16)?, load(precision)?);
    let mut sums = Sums::default();
    for window in ids.chunks(WINDOW).filter(|window| window.len() > 1) {
        let [p, q] = [&reference, &rounded].map(|model| log_probs(cpu, model, window));
        let vocab = reference.architecture().vocab;
        for ((p, q), next) in p.chunks(vocab).zip(q.chunks(vocab)).zip(&window[1..]) {
            sums.add(p, q, *next as usize);
        }
    }
    let n = sums.positions;
    let [kl, same, ppl_reference, ppl] = [sums.kl / n, sums.same_best / n, (-sums.reference / n).exp(), (-sums.rounded / n).exp()];
    let bits = 8.0 * rounded.bytes() as f64 / reference.architecture().parameters() as f64;
    if json {
        return output::json(&json!({
            "model": folder, "precision": format!("{precision:?}"), "positions": n, "bits_per_parameter": bits, "kl_to_bf16_nats": kl,
            "same_best_token": same, "perplexity_bf16": ppl_reference, "perplexity": ppl,
        }));
    }
    println!("{folder} {precision:?} against bf16, {n} positions, {bits:.2} bits per parameter");
    println!("KL {kl:.3e} nats, same best token {:.2} %, perplexity {ppl:.4} against {ppl_reference:.4}", 100.0 * same);
    Ok(())
}

impl Sums {
    fn add(&mut self, p: &[f64], q: &[f64], next: usize) {
        self.positions += 1.0;
        self.reference += p[next];
        self.rounded += q[next];
        self.kl += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
        self.same_best += f64::from(best(p) == best(q));
    }
}

fn best(p: &[f64]) -> Option<usize> {
    (0..p.len()).max_by(|a, b| p[*a].total_cmp(&p[*b]))
}

/// Natural logs of the probabilities after each token, [T, V].
fn log_probs(cpu: &Cpu, model: &Model, tokens: &[u32]) -> Vec<f64> {
    let pages: Vec<PageId> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).map(PageId).collect();
    let mut kv = Kv::new(model, pages.len());
    let outputs: Vec<usize> = (0..tokens.len()).collect();
    let segments = [Segment { rows: 0..tokens.len(), start: 0, pages: &pages, adapter: None }];
    let hidden = model.forward(cpu, &mut kv, &Step { tokens, segments: &segments, outputs: &outputs }, &mut Workspace::default());
    let mut logits = Vec::new();
    model.logits(cpu, &hidden, &mut logits);
    let mut out = Vec::with_capacity(logits.len());
    for row in logits.chunks(model.architecture().vocab) {
        let maximum = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let sum: f64 = row.iter().map(|z| f64::from(z - maximum).exp()).sum();
        out.extend(row.iter().map(|z| f64::from(z - maximum) - sum.ln()));
    }
    out
}
