//! `POST /v1/train`: responses with rewards in, one revision and its numbers out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::generate::Message;
use crate::{is_false, null_as_default};

/// One possible response with its reward: exactly one of `content` and `response_id`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainedResponse {
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The `response_id` of a generate answer: its exact tokens are trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Any finite number; only differences within a group count.
    #[schema(minimum = -1000000000000.0, maximum = 1000000000000.0)]
    pub reward: f64,
}

/// A prompt and its responses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainGroup {
    /// The conversation; the last message is from the user.
    #[schema(min_items = 1)]
    pub messages: Vec<Message>,
    /// 1..256 responses.
    #[schema(min_items = 1, max_items = 256)]
    pub responses: Vec<TrainedResponse>,
}

/// Which loss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// REINFORCE with importance weights bounded on both sides.
    #[default]
    Tapered,
    /// Plain ratio times advantage.
    ImportanceSampling,
    /// Clipped ratio.
    Ppo,
    /// Log-likelihood of the responses with a positive advantage.
    Sft,
}

/// Named baselines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BaselineKind {
    /// The group's mean reward.
    #[default]
    GroupMean,
    /// Nothing.
    None,
}

/// What is taken from a reward to make an advantage: `"group_mean"`, `"none"` or a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`group_mean`, `none` or a number")]
pub enum Baseline {
    /// By name.
    Named(BaselineKind),
    /// This number.
    Value(f64),
}

/// How advantages are scaled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdvantageScale {
    /// Divided by max(1, largest magnitude).
    #[default]
    Cap,
    /// As they are.
    None,
    /// Divided by the group's standard deviation.
    Group,
}

/// What the sum over tokens is divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LengthNorm {
    /// All trained tokens of the step.
    #[default]
    Token,
    /// Each response by its own length, then by the number of responses.
    Sequence,
    /// A constant number of tokens per response.
    Constant,
}

/// Body of a train request: `messages` + `responses`, or `batch`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"model": "pirate", "messages": [{"role": "user", "content": "What is the capital of France?"}], "responses": [{"content": "Arr, it be Paris!", "reward": 1}, {"content": "It is Paris.", "reward": -1}]}))]
pub struct TrainRequest {
    /// One's own model.
    pub model: String,
    /// The conversation; the last message is from the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1)]
    pub messages: Option<Vec<Message>>,
    /// 1..256 responses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 256)]
    pub responses: Option<Vec<TrainedResponse>>,
    /// Groups trained as one step, in place of `messages` and `responses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Vec<TrainGroup>>,
    /// Answer in chunks while training goes on.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    #[schema(value_type = Option<bool>)]
    pub stream: bool,
    /// Learning rate of AdamW. Default: the model's own, else by its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub learning_rate: Option<f64>,
    /// Optimizer steps, 1..16. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 16)]
    pub steps: Option<u32>,
    /// Stops early when the drift since the call began exceeds it. Default 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1000000000)]
    pub target_kl: Option<f64>,
    /// Weight of the KL divergence to the parent. Default 0.05; 0 skips it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1000000000)]
    pub kl_coefficient: Option<f64>,
    /// Running mean over the calls of the KL to the parent on sampled responses, nats per token, above which the model is not trained any further:
    /// `updated` is false, `reason` is `far_from_parent`. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1000000000)]
    pub kl_limit: Option<f64>,
    /// `"group_mean"` (default), `"none"` or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// `"cap"` (default), `"none"` or `"group"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advantage_scale: Option<AdvantageScale>,
    /// `"token"` (default), `"sequence"` or `"constant"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_norm: Option<LengthNorm>,
    /// Cap of the importance weight of good responses, ≥ 1. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000000000)]
    pub clip_high: Option<f64>,
    /// Probability below which the push on bad text fades, (0, 1]. Default 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub negative_floor: Option<f64>,
    /// Clip of the global gradient norm. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(exclusive_minimum = 0, maximum = 1000000000)]
    pub max_grad_norm: Option<f64>,
    /// `"tapered"` (default), `"importance_sampling"`, `"ppo"` or `"sft"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<Objective>,
    /// Computes everything and changes nothing; with `evaluate` the steps are taken on a copy, so that `logprob_after` says what would be.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    #[schema(value_type = Option<bool>)]
    pub dry_run: bool,
    /// Scores the responses again after the last step (`logprob_after`). Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<bool>,
    /// Seed of dropout. Default: random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Refuses with 409 when the model is at another revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<u64>,
}

/// Numbers of one optimizer step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepMetrics {
    /// Policy loss plus KL loss.
    pub loss: f64,
    /// Policy part.
    pub policy_loss: f64,
    /// KL part, weighted.
    pub kl_loss: f64,
    /// Mean KL divergence to the parent per trained token, nats.
    pub kl_parent: f64,
    /// Estimate of the drift from the sampling model, on recorded tokens.
    pub kl_sampler: f64,
    /// Mean entropy of the next-token distribution, nats.
    pub entropy: f64,
    /// Share of tokens whose push down was faded.
    pub frac_tapered: f64,
    /// Share of tokens whose push up was capped.
    pub frac_capped: f64,
    /// Importance ratios of recorded tokens.
    pub ratio: RatioSummary,
    /// Gradient norm before the clip.
    pub grad_norm: f64,
    /// Share of the learning rate that the step took: less with few responses, groups of equal rewards, and punished responses that are improbable
    /// already.
    #[serde(default = "whole")]
    #[schema(required)]
    pub step_scale: f64,
}

/// What steps stored before the share was told are read as.
fn whole() -> f64 {
    1.0
}

/// Importance ratios.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RatioSummary {
    /// Mean.
    pub mean: f64,
    /// Largest.
    pub max: f64,
}

/// Rewards of the call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResponseMode {
    /// A `response_id`.
    Recorded,
    /// Text.
    Text,
}

/// What happened to one response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ResponseMetrics {
    /// Index of its group; 0 without `batch`.
    pub group: usize,
    /// Above 0 it was made more probable, below 0 less.
    pub advantage: f64,
    /// Trained tokens.
    pub tokens: usize,
    /// Origin.
    pub mode: ResponseMode,
    /// Revisions between the sampling and this training.
    pub staleness: u64,
    /// Log of its probability before.
    pub logprob_before: f64,
    /// After the last step; absent without `evaluate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprob_after: Option<f64>,
}

/// What a training took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrainUsage {
    /// Seconds from the request's arrival to its end.
    pub duration: f64,
    /// Prompt tokens computed.
    pub input_tokens: u64,
    /// Tokens trained on.
    pub trained_tokens: u64,
}

/// Answer of a train request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrainResponse {
    /// Names this training.
    pub id: String,
    /// Id of the model.
    pub model: String,
    /// The model's revision now.
    pub revision: u64,
    /// False: nothing changed, `reason` says why.
    pub updated: bool,
    /// `zero_advantage`, `dry_run`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Optimizer steps done; in a dry run on a copy.
    pub steps: u32,
    /// Numbers of the first step, before its update.
    #[serde(flatten)]
    pub metrics: StepMetrics,
    /// How far the responses' tokens moved from before the call to after its last step, nats per token (k3 estimate); absent without `evaluate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_moved: Option<f64>,
    /// Mean entropy after the last step, nats; absent without `evaluate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy_after: Option<f64>,
    /// Rewards.
    pub reward: RewardSummary,
    /// Per response, in the request's order.
    pub responses: Vec<ResponseMetrics>,
    /// Used.
    pub learning_rate: f64,
    /// Tokens trained on.
    pub trained_tokens: u64,
    /// Seconds.
    pub duration: f64,
    /// In words.
    pub warnings: Vec<String>,
    /// What it took.
    pub usage: TrainUsage,
}
