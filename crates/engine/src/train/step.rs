//! One optimizer step: one micro-batch's scores become coefficients, its gradient is added, AdamW changes the weights.
//! Does not know the order of a call: `job` decides what comes when.

use std::ops::Range;

use tiger_kernels::Cpu;
use tiger_kernels::ops::adamw::{self, AdamW, all_finite, sq_norm};
use tiger_model::{Adapter, AdapterGradients, AdapterState, Dropout, Keep, Model, RowScore, TokenWeights, TrainPass, Workspace};

use super::objective::{Fade, Plan, Sampled, TokenLoss, k3, ratio, token_loss};
use super::pack::MicroBatch;
use super::{Group, Knobs, StepMetrics};
use crate::request::EngineError;

/// Decay of AdamW's first moment.
const BETA1: f32 = 0.9;
/// Decay of AdamW's second moment: 20 steps, for calls are few and the gradient's size changes with the task.
const BETA2: f32 = 0.95;
/// Added to the root of the second moment.
const EPSILON: f32 = 1e-8;

/// Sums over the tokens of one step, micro-batches in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    tokens: usize,
    recorded: usize,
    policy: f64,
    kl_loss: f64,
    kl: f64,
    /// Of recorded tokens only.
    kl_recorded: f64,
    k3: f64,
    drift: f64,
    entropy: f64,
    tapered: usize,
    capped: usize,
    ratio: f64,
    ratio_max: f64,
    fade: Fade,
}

impl Tally {
    fn add(&mut self, token: &TokenLoss, score: &RowScore, (sampled, start): (Sampled, f64)) {
        let l = f64::from(score.logprob);
        self.tokens += 1;
        self.policy += token.policy;
        self.entropy += f64::from(score.entropy);
        self.tapered += usize::from(token.tapered);
        self.capped += usize::from(token.capped);
        self.drift += k3(l, start);
        self.fade.add(token);
        if let Sampled::Recorded(q) = sampled {
            let rho = ratio(l, q);
            self.recorded += 1;
            self.k3 += k3(l, q);
            self.ratio += rho;
            self.ratio_max = self.ratio_max.max(rho);
        }
    }

    /// k3 estimate per token of what has moved since the call began.
    pub fn drift(&self) -> f64 {
        self.drift / self.tokens.max(1) as f64
    }

    /// φ.
    pub fn fade(&self) -> f64 {
        self.fade.share()
    }

    /// Mean KL to the parent of recorded tokens, None where there are none: what texts say of it is no measure of what the model itself says.
    pub fn sampled_kl(&self) -> Option<f64> {
        (self.recorded > 0).then(|| (self.kl_recorded / self.recorded as f64).max(0.0))
    }

    /// Everything that is reported is a number.
    pub fn is_finite(&self) -> bool {
        [self.policy, self.kl_loss, self.kl, self.entropy, self.drift].iter().all(|x| x.is_finite())
    }

    /// Means of the sums.
    pub fn metrics(&self, grad_norm: f64) -> StepMetrics {
        let (all, recorded) = (self.tokens.max(1) as f64, self.recorded.max(1) as f64);
        // Rounding of f32 may leave a KL of −1e-9 where policy and parent agree.
        let kl_loss = self.kl_loss.max(0.0);
        StepMetrics {
            loss: self.policy + kl_loss,
            policy_loss: self.policy,
            kl_loss,
            kl_parent: (self.kl / all).max(0.0),
            kl_sampler: self.k3 / recorded,
            entropy: self.entropy / all,
            frac_tapered: self.tapered as f64 / all,
            frac_capped: self.capped as f64 / all,
            ratio_mean: self.ratio / recorded,
            ratio_max: self.ratio_max,
            grad_norm,
            step_scale: self.fade(),
        }
    }
}

/// What turns scores into coefficients.
pub(super) struct Scoring<'a> {
    pub groups: &'a [Group],
    pub plan: &'a Plan,
    pub knobs: &'a Knobs,
    /// Log-probs when the call began, per response; None while they are being computed: then now is the start.
    pub start: Option<&'a [Vec<f32>]>,
}

impl Scoring<'_> {
    /// Adds some targets, of which (response, token) are `owners`, to the sums and writes their log-probs into `current`.
    pub fn weigh(
        &self,
        owners: &[(usize, usize)],
        scores: &[RowScore],
        tally: &mut Tally,
        current: &mut [Vec<f32>],
    ) -> Result<TokenWeights, EngineError> {
        let mut out = TokenWeights { coefficients: Vec::with_capacity(scores.len()), kl: Vec::with_capacity(scores.len()) };
        for (&(response, t), score) in owners.iter().zip(scores) {
            if !(score.logprob.is_finite() && score.lse.is_finite() && score.entropy.is_finite()) {
                return Err(diverged("a log-prob is not finite"));
            }
            let planned = &self.plan.responses[response];
            let l = f64::from(score.logprob);
            let start = self.start.map_or(l, |all| f64::from(all[response][t]));
            let sampled = match &self.groups[planned.group].responses[planned.index].recorded {
                Some(recorded) => Sampled::Recorded(f64::from(recorded.logprobs[t])),
                None => Sampled::Text(start),
            };
            let token = token_loss(self.knobs, planned, l, sampled);
            tally.add(&token, score, (sampled, start));
            current[response][t] = score.logprob;
            out.coefficients.push(token.coefficient as f32);
            out.kl.push(token.kl_weight as f32);
        }
        Ok(out)
    }
}

/// Where a micro-batch is computed.
pub(super) struct Device<'a> {
    pub model: &'a Model,
    pub cpu: &'a Cpu,
    pub workspace: &'a mut Workspace,
}

/// What one micro-batch goes through besides the policy.
pub(super) struct Extras<'a> {
    pub dropout: Option<Dropout>,
    /// Hidden states of the parent, [targets, C], when β > 0.
    pub parent: Option<&'a [f32]>,
    pub keep: Keep,
}

/// Hidden states of a micro-batch's targets, [targets, C]. None: the bare base's.
pub(super) fn hidden(device: &mut Device<'_>, micro: &MicroBatch, adapter: Option<&Adapter>) -> Vec<f32> {
    let pass = TrainPass { model: device.model, cpu: device.cpu, batch: &micro.batch, adapter, dropout: None };
    pass.forward(Keep::Nothing, device.workspace).hidden
}

/// Log-probs of a micro-batch without keeping anything.
pub(super) fn score(device: &mut Device<'_>, micro: &MicroBatch, adapter: &Adapter) -> Vec<RowScore> {
    let hidden = hidden(device, micro, Some(adapter));
    device.model.score(device.cpu, &hidden, &micro.batch.targets, device.workspace)
}

/// Forward, scores, coefficients, backward of one micro-batch; adds into `gradients` and `tally`.
pub(super) fn accumulate(
    device: &mut Device<'_>,
    (micro, adapter): (&MicroBatch, &Adapter),
    extras: &Extras<'_>,
    scoring: &Scoring<'_>,
    (tally, current): (&mut Tally, &mut [Vec<f32>]),
    gradients: &mut AdapterGradients,
) -> Result<(), EngineError> {
    let (model, cpu) = (device.model, device.cpu);
    let pass = TrainPass { model, cpu, batch: &micro.batch, adapter: Some(adapter), dropout: extras.dropout };
    let saved = pass.forward(extras.keep, device.workspace);
    let mut weigh = |part: Range<usize>, scores: &[RowScore]| scoring.weigh(&micro.owners[part], scores, tally, current);
    let head = pass.head(&saved, extras.parent, &mut weigh, device.workspace)?;
    pass.backward(saved, &head, gradients, device.workspace);
    for (kl, &(response, _)) in head.kl.iter().zip(&micro.owners) {
        let (kl, planned) = (f64::from(*kl), &scoring.plan.responses[response]);
        tally.kl += kl;
        tally.kl_loss += scoring.knobs.kl_coefficient * planned.weight * kl;
        if scoring.groups[planned.group].responses[planned.index].recorded.is_some() {
            tally.kl_recorded += kl;
        }
    }
    Ok(())
}

/// Global norm of the gradient, in f64; not finite when any element is not.
pub(super) fn gradient_norm(cpu: &Cpu, gradients: &AdapterGradients) -> f64 {
    gradients.tensors().map(|g| sq_norm(cpu, g)).sum::<f64>().sqrt()
}

/// A finite step's size.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepSize {
    /// Learning rate, the fade included.
    pub rate: f64,
    /// Norm before the clip.
    pub norm: f64,
    /// Clip.
    pub max_norm: f64,
}

/// AdamW on every tensor: the only place where weights and moments change. The gradient is clipped by its global norm.
pub(super) fn apply(cpu: &Cpu, state: &mut AdapterState, gradients: &AdapterGradients, size: StepSize) -> Result<(), EngineError> {
    let moments = &mut state.moments;
    moments.step += 1;
    let options = AdamW { lr: size.rate as f32, beta1: BETA1, beta2: BETA2, epsilon: EPSILON, weight_decay: 0.0, step: moments.step };
    let scale = if size.norm > size.max_norm { (size.max_norm / size.norm) as f32 } else { 1.0 };
    let means = moments.first.iter_mut().zip(&mut moments.second);
    for ((p, (m, v)), g) in state.adapter.tensors_mut().zip(means).zip(gradients.tensors()) {
        adamw::adamw(cpu, adamw::Moments { p, m, v }, g, scale, &options);
        if !(all_finite(cpu, p) && all_finite(cpu, v)) {
            return Err(diverged("a weight or moment is not finite after the step"));
        }
    }
    Ok(())
}

/// The error of everything that is not finite.
pub(super) fn diverged(what: &str) -> EngineError {
    EngineError::Diverged(format!("{what}; nothing was changed. Try a lower learning_rate, or rewards of smaller size"))
}
