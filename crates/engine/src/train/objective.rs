//! The training objective as pure functions in f64: advantages, potentials, normalisation, drift, the share that has faded.
//! Does not know a model, a tensor or an optimizer; a loss leaves here as one coefficient and one KL weight per token.
//!
//! Notation: l = log π(y) of a token now, q = the log-prob that the sampler recorded, A = advantage of the response, w = its normalisation
//! (1/N for `token`), ψ = the potential of one token, β = `kl_coefficient`:
//!
//! ```text
//! loss = Σ_i w_i Σ_t [ −A_i ψ(u_it) + β KL(π ‖ π_ref)_it ]
//! ```
//!
//! With dl/dlogits = onehot(y) − softmax, the gradient that reaches the head is coefficient · (onehot − softmax), where
//! coefficient = dloss/dl = −w_i A_i ψ'(u_it), because du/dl = 1 in every mode.

use super::{AdvantageScale, Baseline, Group, Knobs, LengthNorm, Objective};

/// Above it e^u goes on as its tangent, so that neither a value nor a slope overflows: e^20 ≈ 5e8.
const EXPONENT_LIMIT: f64 = 20.0;

/// PPO's clip on both sides of ratio 1 (Schulman et al. 2017).
pub const PPO_CLIP: f64 = 0.2;

/// Tokens that [`LengthNorm::Constant`] divides a response by, whatever its length: a usual answer, so that the loss has the size of the other norms.
pub const CONSTANT_TOKENS: f64 = 256.0;

/// Weight of a single reward in the running mean: that of the last ten or so.
const SINGLE_WEIGHT: f64 = 0.1;

/// Weight of a call's distance from the parent in the running mean: single calls measure it roughly.
const KL_WEIGHT: f64 = 0.1;

/// Responses with an advantage that make a whole step: a usual group.
const FULL_STEP_RESPONSES: f64 = 8.0;

/// Smallest standard deviation that [`AdvantageScale::Group`] divides by: rewards that differ by less are as good as equal.
pub const SMALLEST_STD: f64 = 1e-6;

/// e^u, continued by its tangent above [`EXPONENT_LIMIT`]: continuous with its slope, no overflow. Below, e^u fades to zero by itself.
fn bounded_exp(u: f64) -> Potential {
    let at = u.min(EXPONENT_LIMIT);
    let e = at.exp();
    Potential { value: e * (1.0 + (u - at)), slope: e }
}

/// ψ(u) and ψ'(u) of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Potential {
    /// ψ(u)
    pub value: f64,
    /// ψ'(u), the weight of the token's policy gradient.
    pub slope: f64,
}

/// Where the sampler's log-prob of a token comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sampled {
    /// Recorded by our sampler.
    Recorded(f64),
    /// A text: nobody knows. The number is the log-prob at the start of this call, which the ratio objectives take in its place.
    Text(f64),
}

/// Sum that does not depend on the order in which the values come: permuting a group permutes its advantages bit for bit.
fn ordered_sum(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.iter().sum()
}

fn mean(values: &[f64]) -> f64 {
    ordered_sum(values.iter().copied()) / values.len() as f64
}

/// Population standard deviation.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (ordered_sum(values.iter().map(|v| (v - mean) * (v - mean))) / values.len() as f64).sqrt()
}

/// Mean, standard deviation (of the population), least and largest of the rewards of a call.
pub fn summarize(rewards: &[f64]) -> super::RewardSummary {
    if rewards.is_empty() {
        return super::RewardSummary::default();
    }
    super::RewardSummary {
        mean: mean(rewards),
        std: deviation(rewards),
        min: rewards.iter().copied().fold(f64::INFINITY, f64::min),
        max: rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// Advantages of one group, in the order of its rewards.
///
/// `d_i = r_i − baseline`, where the group's mean needs two responses: one alone keeps its reward (there is nothing to compare it with).
/// Equal rewards under the group's mean are exactly zero, not the rounding of a mean. Then
/// - `Cap`: d / max(1, largest |d|): never enlarges, |A| ≤ 1, keeps the order and the proportions. Not divided by the standard deviation,
///   which would push hardest where responses hardly differ (difficulty bias);
/// - `Group`: d / standard deviation; where a group has none (one response, or equal rewards with another baseline) as `Cap`;
/// - `None`: d.
pub fn advantages(rewards: &[f64], baseline: Baseline, scale: AdvantageScale) -> Vec<f64> {
    let base = match baseline {
        Baseline::GroupMean if rewards.len() < 2 => 0.0,
        Baseline::GroupMean if is_flat(rewards) => return vec![0.0; rewards.len()],
        Baseline::GroupMean => mean(rewards),
        Baseline::None => 0.0,
        Baseline::Value(value) => value,
    };
    let differences: Vec<f64> = rewards.iter().map(|r| r - base).collect();
    let largest = differences.iter().fold(1.0f64, |m, d| m.max(d.abs()));
    let divisor = match scale {
        AdvantageScale::None => 1.0,
        AdvantageScale::Group if !is_flat(rewards) => deviation(rewards).max(SMALLEST_STD),
        AdvantageScale::Cap | AdvantageScale::Group => largest,
    };
    differences.iter().map(|d| d / divisor).collect()
}

/// All rewards equal, exactly.
fn is_flat(rewards: &[f64]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

/// A response that the model sampled and that comes alone: there is nothing in the call to compare it with.
fn is_single(group: &Group) -> bool {
    matches!(&group.responses[..], [one] if one.recorded.is_some())
}

/// What a single sampled response is compared with: the running mean of the rewards of those before it, but nothing above 0. Punishment that
/// comes whatever the model says tells nothing, and taken as it is it destroys the model within fifty calls; praise that always comes is
/// harmless, for it asks for what is said anyway.
pub fn single_baseline(past: f64) -> f64 {
    past.min(0.0)
}

/// The running mean of single rewards after this call's, each cut to −1..=1.
pub fn single_mean(past: f64, groups: &[Group]) -> f64 {
    let rewards = groups.iter().filter(|g| is_single(g)).map(|g| g.responses[0].reward);
    rewards.fold(past, |mean, reward| mean + SINGLE_WEIGHT * (reward.clamp(-1.0, 1.0) - mean))
}

/// The running mean of the distance from the parent after a call that measured `kl`.
pub fn kl_mean(past: f64, kl: f64) -> f64 {
    past + KL_WEIGHT * (kl - past)
}

/// One response as the loss sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// Index of its group.
    pub group: usize,
    /// Index within the group.
    pub index: usize,
    /// A.
    pub advantage: f64,
    /// w: what one of its tokens counts in the loss.
    pub weight: f64,
    /// Trained tokens.
    pub tokens: usize,
}

/// Advantages and normalisation of a whole call; every step of the call uses the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Every response, groups in order, responses in order within.
    pub responses: Vec<Planned>,
    /// N.
    pub trained_tokens: usize,
    /// What the number of responses allows of a step: √(n / 8) below eight that push the policy, else 1. The fewer samples, the more of the
    /// gradient is chance, and Adam brings chance to full steps too; with it the error of a step is that of eight samples.
    /// (The rule that Adam's rate goes with the root of the batch: Malladi et al. 2022.)
    pub evidence: f64,
}

impl Plan {
    /// Plans validated groups of a model without a past.
    pub fn new(groups: &[Group], knobs: &Knobs) -> Plan {
        Plan::after(groups, knobs, 0.0)
    }

    /// Plans validated groups. `past`: the running mean of earlier single rewards, see [`single_baseline`].
    pub fn after(groups: &[Group], knobs: &Knobs, past: f64) -> Plan {
        let count = groups.iter().map(|g| g.responses.len()).sum::<usize>() as f64;
        let trained_tokens = groups.iter().flat_map(|g| &g.responses).map(|r| r.tokens.len()).sum();
        let (mut responses, mut evidence) = (Vec::new(), 0.0);
        for (group, g) in groups.iter().enumerate() {
            let rewards: Vec<f64> = g.responses.iter().map(|r| r.reward).collect();
            let mut advantages = advantages(&rewards, knobs.baseline, knobs.advantage_scale);
            let mut told = 1.0;
            if is_single(g) && knobs.baseline == Baseline::GroupMean && knobs.advantage_scale != AdvantageScale::None {
                let alone = advantages[0];
                advantages[0] = (alone - single_baseline(past)).min(1.0);
                told = (advantages[0] / alone).abs().min(1.0);
            }
            evidence += told * told * advantages.iter().filter(|a| pushes(knobs.objective, **a)).count() as f64;
            for (index, (response, advantage)) in g.responses.iter().zip(advantages).enumerate() {
                let tokens = response.tokens.len();
                let weight = match knobs.length_norm {
                    LengthNorm::Token => 1.0 / trained_tokens as f64,
                    LengthNorm::Sequence => 1.0 / (count * tokens as f64),
                    LengthNorm::Constant => 1.0 / (count * CONSTANT_TOKENS),
                };
                responses.push(Planned { group, index, advantage, weight, tokens });
            }
        }
        Plan { responses, trained_tokens, evidence: (evidence / FULL_STEP_RESPONSES).sqrt().min(1.0) }
    }

    /// Share of groups with a response that pushes the policy. The step is made smaller by it: Adam brings a gradient of any size to full steps, and
    /// when most groups have nothing left to learn, the one that has would move the model as far as all of them did. (Built-in model, 8 × 8 a
    /// call: with full steps right answers fell from 100 to 86 % within two calls after the goal was reached, so scaled they stayed at 100 %.)
    pub fn live_share(&self, objective: Objective) -> f64 {
        let groups = self.responses.last().map_or(0, |r| r.group + 1);
        let live = (0..groups).filter(|g| self.responses.iter().any(|r| r.group == *g && pushes(objective, r.advantage))).count();
        live as f64 / groups.max(1) as f64
    }

    /// No response pushes the policy: there is nothing to learn, and the KL alone shall not move weights.
    pub fn is_idle(&self, objective: Objective) -> bool {
        !self.responses.iter().any(|r| pushes(objective, r.advantage))
    }
}

/// Whether a response with this advantage has a policy term at all.
fn pushes(objective: Objective, advantage: f64) -> bool {
    match objective {
        Objective::Sft => advantage > 0.0,
        _ => advantage != 0.0,
    }
}

/// The potential's argument. It differs from l by a constant only, so du/dl = 1.
///
/// - tapered: l − q where q is recorded. For a text a good response needs no ratio (u = l), and a bad one takes the floor τ in q's place
///   (u = l − ln τ): text that is improbable already, whoever wrote it, is not pushed down at full weight;
/// - importance sampling and PPO: l − q; for a text, q is the log-prob at the start of the call (ratio 1 at its first step);
/// - SFT: l.
pub fn argument(knobs: &Knobs, advantage: f64, l: f64, sampled: Sampled) -> f64 {
    match (knobs.objective, sampled) {
        (Objective::Sft, _) => l,
        (Objective::Tapered, Sampled::Text(_)) if advantage > 0.0 => l,
        (Objective::Tapered, Sampled::Text(_)) => l - knobs.negative_floor.ln(),
        (_, Sampled::Recorded(q) | Sampled::Text(q)) => l - q,
    }
}

/// ψ(u) and ψ'(u).
///
/// tapered ("REINFORCE with importance weights bounded on both sides"), c = `clip_high`:
/// ```text
/// A > 0 recorded: e^u up to ln c, then its tangent c(1 + u − ln c)   ψ' = min(ρ, c)
/// A > 0 text:     u                                                 ψ' = 1
/// A < 0:          e^u below 0, then its tangent 1 + u               ψ' = min(ρ, 1)
/// ```
/// Tangents make ψ and ψ' continuous. For A < 0 the loss A ψ is bounded below: ψ' → 0 as the token becomes improbable, where REINFORCE (ψ = u)
/// pushes without end and moves the mass it takes to whatever is likely already.
///
/// importance sampling: ψ = ρ. PPO: ψ = min(ρ, 1.2) for A > 0 and max(ρ, 0.8) for A < 0, which is min(ρA, clip(ρ)A) / A.
/// SFT: ψ = u for A > 0, nothing else.
pub fn potential(knobs: &Knobs, advantage: f64, u: f64, sampled: Sampled) -> Potential {
    const NOTHING: Potential = Potential { value: 0.0, slope: 0.0 };
    if !pushes(knobs.objective, advantage) {
        return NOTHING;
    }
    let good = advantage > 0.0;
    let linear = Potential { value: u, slope: 1.0 };
    match knobs.objective {
        Objective::Sft => linear,
        Objective::ImportanceSampling => bounded_exp(u),
        Objective::Ppo => {
            let (low, high) = (1.0 - PPO_CLIP, 1.0 + PPO_CLIP);
            match bounded_exp(u) {
                ratio if good && ratio.value > high => Potential { value: high, slope: 0.0 },
                ratio if !good && ratio.value < low => Potential { value: low, slope: 0.0 },
                ratio => ratio,
            }
        }
        Objective::Tapered if good => match sampled {
            Sampled::Text(_) => linear,
            Sampled::Recorded(_) => tangent_above(u, knobs.clip_high.ln()),
        },
        Objective::Tapered => tangent_above(u, 0.0),
    }
}

/// e^u below `limit`, its tangent at `limit` above.
fn tangent_above(u: f64, limit: f64) -> Potential {
    if u <= limit {
        return bounded_exp(u);
    }
    let e = limit.exp();
    Potential { value: e * (1.0 + u - limit), slope: e }
}

/// One token's part of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenLoss {
    /// −w A ψ(u)
    pub policy: f64,
    /// dloss/dl = −w A ψ'(u)
    pub coefficient: f64,
    /// β w: what one nat of KL to the parent costs here.
    pub kl_weight: f64,
    /// A < 0 and the push down is weaker than at the time of sampling.
    pub tapered: bool,
    /// A > 0 and the weight stays below the ratio.
    pub capped: bool,
    /// Size of the token's gradient at the head if nothing were faded, see [`Fade`].
    pub full: f64,
    /// The same with the fade of bad tokens.
    pub kept: f64,
}

/// The loss of one token: `l` is its log-prob now.
pub fn token_loss(knobs: &Knobs, response: &Planned, l: f64, sampled: Sampled) -> TokenLoss {
    let (a, w) = (response.advantage, response.weight);
    let kl_weight = knobs.kl_coefficient * w;
    if !pushes(knobs.objective, a) {
        return TokenLoss { kl_weight, ..TokenLoss::default() };
    }
    let u = argument(knobs, a, l, sampled);
    let psi = potential(knobs, a, u, sampled);
    // ‖onehot − softmax‖₁ = 2(1 − p); the 2 cancels in the fade.
    let full = w * a.abs() * -l.min(0.0).exp_m1();
    let has_ratio = knobs.objective != Objective::Sft && !(knobs.objective == Objective::Tapered && matches!(sampled, Sampled::Text(_)));
    TokenLoss {
        policy: -w * a * psi.value,
        coefficient: -w * a * psi.slope,
        kl_weight,
        tapered: a < 0.0 && psi.slope < 1.0,
        capped: a > 0.0 && has_ratio && psi.slope < bounded_exp(u).slope,
        full,
        kept: if a < 0.0 { full * psi.slope.min(1.0) } else { full },
    }
}

/// How much of the gradient at the head the taper has left: the bound on the *step*.
///
/// Adam divides a gradient by its own running size. A bad response that comes again and again has a gradient that fades as e^u, and Adam scales
/// it back to full steps: what the taper takes from the loss, the optimizer gives back, and a stream of one punished response destroys the
/// model although its loss is bounded. So the step is multiplied by
///
/// ```text
/// φ = Σ w|A|·min(ψ', 1)·(1 − p)  /  Σ w|A|·(1 − p)        over the tokens with a policy term; good tokens count 1 for min(ψ', 1)
/// ```
///
/// the L1 norm of dloss/dlogits with the fade over the norm without it (‖onehot − softmax‖₁ = 2(1 − p)). φ = 1 for fresh samples and for good
/// responses, so ordinary training is plain AdamW. Repeated punishment obeys φ' ≈ −k φ² (k: how far one full step moves u), hence φ ≈ 1/(kn)
/// and the sum of all steps grows as ln n / k instead of n. The weight (1 − p) keeps sure tokens, which have no gradient, from hiding that
/// the others have faded. Good tokens are left alone: their push ends by itself where p reaches 1, and a stale good response must be learnable.
/// No knob, no state: it needs nothing that a training call does not have.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Fade {
    full: f64,
    kept: f64,
}

impl Fade {
    /// Adds a token.
    pub fn add(&mut self, token: &TokenLoss) {
        self.full += token.full;
        self.kept += token.kept;
    }

    /// φ in 0..=1; 1 where there is nothing to fade.
    pub fn share(&self) -> f64 {
        if self.full > 0.0 { (self.kept / self.full).min(1.0) } else { 1.0 }
    }
}

/// ρ = e^(l − q), bounded as everywhere.
pub fn ratio(l: f64, q: f64) -> f64 {
    (l - q).min(EXPONENT_LIMIT).exp()
}

/// The k3 estimate of KL(q ‖ π) from a token drawn from q: (ρ − 1) − ln ρ ≥ 0 (Schulman 2020). A number to watch: as a loss its gradient is wrong.
pub fn k3(l: f64, q: f64) -> f64 {
    let x = l - q;
    if x > EXPONENT_LIMIT { ratio(l, q) * (1.0 + x - EXPONENT_LIMIT) - 1.0 - x } else { x.exp_m1() - x }
}

/// Hidden size (8B models) from which the published rate holds as it is.
const LARGE_HIDDEN: f64 = 4096.0;
/// Hidden size of our own trial, and what it found best there.
const TRIAL_HIDDEN: f64 = 256.0;
const TRIAL_FACTOR: f64 = 10.0;

/// The learning rate where nobody names one: `5e-5 · (2000 / hidden)^0.781` times a factor for small models.
///
/// The power law is the fit of "LoRA Without Regret" (2025) for Llama, 2.9e-5 at 8B. On a model of hidden size 256 a trial needed ten times as much
/// (with β = 0.05: style learnt in 15 to 20 calls, correctness kept; × 1 never learns it, × 30 destroys the model), while at 8B nothing was
/// measured and what others use (1e-5 to 1e-4) contains the plain formula. Between the two points the factor is the power law through both,
/// (4096 / hidden)^(log 10 / log 16): smooth, 1.8 at 1B, 3.2 at hidden 1024; outside them it stays what it is at the nearer one, for there
/// is nothing to extrapolate from.
pub fn default_learning_rate(hidden: usize) -> f64 {
    let hidden = hidden.max(1) as f64;
    let exponent = TRIAL_FACTOR.ln() / (LARGE_HIDDEN / TRIAL_HIDDEN).ln();
    let factor = (LARGE_HIDDEN / hidden).powf(exponent).clamp(1.0, TRIAL_FACTOR);
    5e-5 * (2000.0 / hidden).powf(0.781) * factor
}
