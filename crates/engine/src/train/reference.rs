//! The whole loss in f64 on explicit logits, with its gradient: what tests compare against finite differences and PyTorch.
//! Does not know a model; slow and plain on purpose.

use super::objective::{Fade, Plan, Sampled, token_loss};
use super::{Group, Knobs};

/// Rows of logits of one sequence (prompt and response without its last token), each [V].
pub type Logits = Vec<Vec<f64>>;

/// The loss and what it does to the logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// policy_loss + kl_loss.
    pub loss: f64,
    /// −Σ w A ψ(u).
    pub policy_loss: f64,
    /// β Σ w KL.
    pub kl_loss: f64,
    /// φ, see [`Fade`].
    pub fade: f64,
    /// Gradient, shaped as the logits; rows that predict prompt tokens are zero.
    pub dlogits: Vec<Logits>,
}

/// Log-softmax of one row.
pub fn log_softmax(row: &[f64]) -> Vec<f64> {
    let maximum = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = maximum + row.iter().map(|z| (z - maximum).exp()).sum::<f64>().ln();
    row.iter().map(|z| z - lse).collect()
}

/// Log-probs of each response's tokens, responses in order.
pub fn logprobs(groups: &[Group], logits: &[Logits]) -> Vec<Vec<f64>> {
    let mut all = Vec::new();
    let responses = groups.iter().flat_map(|g| g.responses.iter().map(move |r| (g, r)));
    for ((group, response), logits) in responses.zip(logits) {
        let first = group.prompt.len() - 1;
        all.push(response.tokens.iter().enumerate().map(|(t, &y)| log_softmax(&logits[first + t])[y as usize]).collect());
    }
    all
}

/// Evaluates loss and gradient. `logits` and `reference`: one entry per response, groups in order. `start`: log-probs at the start of the call,
/// which texts need under the ratio objectives.
pub fn evaluate(groups: &[Group], knobs: &Knobs, logits: &[Logits], reference: Option<&[Logits]>, start: &[Vec<f64>]) -> Evaluation {
    let plan = Plan::new(groups, knobs);
    let dlogits = logits.iter().map(|rows| rows.iter().map(|row| vec![0.0; row.len()]).collect()).collect();
    let mut out = Evaluation { loss: 0.0, policy_loss: 0.0, kl_loss: 0.0, fade: 1.0, dlogits };
    let mut fade = Fade::default();
    for (i, planned) in plan.responses.iter().enumerate() {
        let group = &groups[planned.group];
        let response = &group.responses[planned.index];
        for (t, &target) in response.tokens.iter().enumerate() {
            let row = group.prompt.len() - 1 + t;
            let logp = log_softmax(&logits[i][row]);
            let sampled = match &response.recorded {
                Some(recorded) => Sampled::Recorded(f64::from(recorded.logprobs[t])),
                None => Sampled::Text(start[i][t]),
            };
            let token = token_loss(knobs, planned, logp[target as usize], sampled);
            out.policy_loss += token.policy;
            fade.add(&token);
            let gradient = &mut out.dlogits[i][row];
            for (v, g) in gradient.iter_mut().enumerate() {
                let onehot = if v == target as usize { 1.0 } else { 0.0 };
                *g = token.coefficient * (onehot - logp[v].exp());
            }
            if knobs.kl_coefficient > 0.0
                && let Some(reference) = reference
            {
                // KL = Σ p (ln p − ln p_ref); dKL/dz_v = p_v (ln p_v − ln p_ref,v − KL), for the softmax's own slope takes the mean away.
                let logq = log_softmax(&reference[i][row]);
                let kl: f64 = logp.iter().zip(&logq).map(|(p, q)| p.exp() * (p - q)).sum();
                out.kl_loss += token.kl_weight * kl;
                for (v, g) in gradient.iter_mut().enumerate() {
                    *g += token.kl_weight * logp[v].exp() * (logp[v] - logq[v] - kl);
                }
            }
        }
    }
    out.fade = fade.share();
    out.loss = out.policy_loss + out.kl_loss;
    out
}
