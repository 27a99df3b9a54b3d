//! Training by rewards: what is asked, what comes back. `objective` holds the formulas, `step` the optimizer steps.
//! Does not know how weights are stored nor how text became ids.

pub mod job;
mod notes;
pub mod objective;
mod pack;
pub mod reference;
pub mod step;
pub mod validate;

use std::sync::Arc;

use tiger_model::{Adapter, AdapterState};

use crate::request::BaseId;

pub use job::{Advance, Job};
pub use objective::default_learning_rate;
pub use validate::{Invalid, validate};

/// What the sampler recorded of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Log-prob of each token at temperature 1 when it was sampled.
    pub logprobs: Vec<f32>,
    /// Revisions between the sampling model and the one being trained.
    pub staleness: u64,
}

/// One response: the tokens that are trained on.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// Tokens after the prompt, end of turn included where it is trained.
    pub tokens: Vec<u32>,
    /// Reward.
    pub reward: f64,
    /// Present if our sampler made it.
    pub recorded: Option<Recorded>,
}

/// A prompt and its responses.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Prompt, generation prompt included; not trained.
    pub prompt: Vec<u32>,
    /// At least one.
    pub responses: Vec<Response>,
}

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// REINFORCE with importance weights bounded on both sides.
    Tapered,
    /// Plain ratio times advantage.
    ImportanceSampling,
    /// Clipped ratio.
    Ppo,
    /// Log-likelihood of responses with positive advantage.
    Sft,
}

/// What is taken from a reward to make an advantage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Baseline {
    /// The group's mean.
    GroupMean,
    /// Nothing.
    None,
    /// A number.
    Value(f64),
}

/// How advantages are scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdvantageScale {
    /// Divided by max(1, largest magnitude).
    Cap,
    /// As they are.
    None,
    /// Divided by the group's standard deviation.
    Group,
}

/// What the sum over tokens is divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LengthNorm {
    /// All trained tokens of the step.
    Token,
    /// Each response by its own length, then by the number of responses.
    Sequence,
    /// A constant number of tokens per response.
    Constant,
}

/// The optional settings of a train call; `default()` is objective.md's.
#[derive(Debug, Clone, PartialEq)]
pub struct Knobs {
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Optimizer steps, 1..=16.
    pub steps: u32,
    /// Stops early when the drift since the call began exceeds it.
    pub target_kl: f64,
    /// Weight of the KL to the parent.
    pub kl_coefficient: f64,
    /// Running mean of the KL to the parent, nats per token, above which a model is not trained on.
    pub kl_limit: f64,
    /// Baseline.
    pub baseline: Baseline,
    /// Scale.
    pub advantage_scale: AdvantageScale,
    /// Normalisation.
    pub length_norm: LengthNorm,
    /// c: cap of the importance weight for good responses; PPO clips at 1 + (its own 0.2).
    pub clip_high: f64,
    /// τ: floor of probability below which the push on bad text fades.
    pub negative_floor: f64,
    /// Global gradient-norm clip.
    pub max_grad_norm: f64,
    /// Loss.
    pub objective: Objective,
    /// Computes everything, changes nothing; with `evaluate` the steps are taken on a copy, scored and thrown away.
    pub dry_run: bool,
    /// Scores the responses again after the last step.
    pub evaluate: bool,
    /// Seed of dropout.
    pub seed: u64,
}

impl Default for Knobs {
    /// The settings of objective.md. The learning rate is that of an 8B model; callers set [`default_learning_rate`] of theirs.
    fn default() -> Knobs {
        Knobs {
            learning_rate: default_learning_rate(4096),
            steps: 1,
            target_kl: 0.1,
            kl_coefficient: 0.05,
            kl_limit: 1.0,
            baseline: Baseline::GroupMean,
            advantage_scale: AdvantageScale::Cap,
            length_norm: LengthNorm::Token,
            clip_high: 2.0,
            negative_floor: 0.1,
            max_grad_norm: 1.0,
            objective: Objective::Tapered,
            dry_run: false,
            evaluate: true,
            seed: 0,
        }
    }
}

/// Asks for one training call. The engine owns the state until it answers.
pub struct TrainRequest {
    /// Base model.
    pub base: BaseId,
    /// Fair scheduling.
    pub account: u64,
    /// Weights and optimizer state to start from.
    pub state: AdapterState,
    /// The parent as it was at revision 0: None is the bare base (B = 0).
    pub reference: Option<Arc<Adapter>>,
    /// Dropout of the adapter's input in training forwards, 0..1.
    pub dropout: f32,
    /// Groups trained as one step.
    pub groups: Vec<Group>,
    /// Settings.
    pub knobs: Knobs,
}

/// Numbers of one optimizer step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepMetrics {
    /// policy_loss + kl_coefficient · kl_parent.
    pub loss: f64,
    /// Policy part.
    pub policy_loss: f64,
    /// KL part, weighted.
    pub kl_loss: f64,
    /// Mean KL to the parent per trained token.
    pub kl_parent: f64,
    /// k3 estimate of the drift from the sampler on recorded tokens.
    pub kl_sampler: f64,
    /// Mean entropy of the next-token distribution, nats.
    pub entropy: f64,
    /// Share of tokens whose weight was faded on the negative side.
    pub frac_tapered: f64,
    /// Share of tokens whose weight was capped on the positive side.
    pub frac_capped: f64,
    /// Mean importance ratio of recorded tokens.
    pub ratio_mean: f64,
    /// Largest.
    pub ratio_max: f64,
    /// Global gradient norm before the clip.
    pub grad_norm: f64,
    /// Share of the learning rate that this step took: smaller where punished tokens have faded ([`objective::Fade`]), where groups have nothing to
    /// learn ([`objective::Plan::live_share`]) and where there are few responses ([`objective::Plan::evidence`]).
    pub step_scale: f64,
}

/// Summary of rewards.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RewardSummary {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

/// Where a response came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A `response_id`: exact tokens with log-probs.
    Recorded,
    /// Text.
    Text,
}

/// What happened to one response.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseMetrics {
    /// Group index.
    pub group: usize,
    /// A.
    pub advantage: f64,
    /// Trained tokens.
    pub tokens: usize,
    /// Origin.
    pub mode: Mode,
    /// Revisions between sampler and start; 0 for text.
    pub staleness: u64,
    /// Sum of log-probs before.
    pub logprob_before: f64,
    /// Sum of log-probs after (None without `evaluate`).
    pub logprob_after: Option<f64>,
}

/// Everything a train call reports.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainMetrics {
    /// False: nothing changed, `reason` says why.
    pub updated: bool,
    /// `zero_advantage`, `dry_run`, …
    pub reason: Option<String>,
    /// Steps done; in a dry run on a copy.
    pub steps: u32,
    /// Numbers of the first step (before the update), the usual thing to plot.
    pub step: StepMetrics,
    /// k3 estimate of how far the responses' tokens moved from the call's start to after its last step, nats per token (None without `evaluate`).
    pub kl_moved: Option<f64>,
    /// Mean entropy after the last step, nats (None without `evaluate`).
    pub entropy_after: Option<f64>,
    /// Rewards.
    pub reward: RewardSummary,
    /// Per response, in request order.
    pub responses: Vec<ResponseMetrics>,
    /// Used.
    pub learning_rate: f64,
    /// Prompt tokens of all responses; a prompt that several share is computed once but counts with each.
    pub input_tokens: usize,
    /// Trained tokens, one step.
    pub trained_tokens: usize,
    /// In words.
    pub warnings: Vec<String>,
}

/// End of a training.
#[derive(Debug)]
pub struct Outcome {
    /// Numbers.
    pub metrics: TrainMetrics,
    /// New weights and optimizer state, None when nothing changed.
    pub state: Option<AdapterState>,
}
