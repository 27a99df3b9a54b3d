//! Wire ↔ engine for trainings: the same words on both sides, so that neither depends on the other.

use tiger_engine as engine;
use tiger_wire as wire;

/// The knobs of a request; what was left out is objective.md's default.
pub fn knobs(request: &wire::TrainRequest, learning_rate: f64, seed: u64) -> engine::Knobs {
    let default = engine::Knobs::default();
    engine::Knobs {
        learning_rate: request.learning_rate.unwrap_or(learning_rate),
        steps: request.steps.unwrap_or(default.steps),
        target_kl: request.target_kl.unwrap_or(default.target_kl),
        kl_coefficient: request.kl_coefficient.unwrap_or(default.kl_coefficient),
        kl_limit: request.kl_limit.unwrap_or(default.kl_limit),
        baseline: match request.baseline {
            None | Some(wire::Baseline::Named(wire::BaselineKind::GroupMean)) => engine::Baseline::GroupMean,
            Some(wire::Baseline::Named(wire::BaselineKind::None)) => engine::Baseline::None,
            Some(wire::Baseline::Value(value)) => engine::Baseline::Value(value),
        },
        advantage_scale: match request.advantage_scale.unwrap_or_default() {
            wire::AdvantageScale::Cap => engine::AdvantageScale::Cap,
            wire::AdvantageScale::None => engine::AdvantageScale::None,
            wire::AdvantageScale::Group => engine::AdvantageScale::Group,
        },
        length_norm: match request.length_norm.unwrap_or_default() {
            wire::LengthNorm::Token => engine::LengthNorm::Token,
            wire::LengthNorm::Sequence => engine::LengthNorm::Sequence,
            wire::LengthNorm::Constant => engine::LengthNorm::Constant,
        },
        clip_high: request.clip_high.unwrap_or(default.clip_high),
        negative_floor: request.negative_floor.unwrap_or(default.negative_floor),
        max_grad_norm: request.max_grad_norm.unwrap_or(default.max_grad_norm),
        objective: match request.objective.unwrap_or_default() {
            wire::Objective::Tapered => engine::Objective::Tapered,
            wire::Objective::ImportanceSampling => engine::Objective::ImportanceSampling,
            wire::Objective::Ppo => engine::Objective::Ppo,
            wire::Objective::Sft => engine::Objective::Sft,
        },
        dry_run: request.dry_run,
        evaluate: request.evaluate.unwrap_or(default.evaluate),
        seed,
    }
}

/// One step's numbers.
pub fn step_metrics(step: &engine::StepMetrics) -> wire::StepMetrics {
    wire::StepMetrics {
        loss: step.loss,
        policy_loss: step.policy_loss,
        kl_loss: step.kl_loss,
        kl_parent: step.kl_parent,
        kl_sampler: step.kl_sampler,
        entropy: step.entropy,
        frac_tapered: step.frac_tapered,
        frac_capped: step.frac_capped,
        ratio: wire::RatioSummary { mean: step.ratio_mean, max: step.ratio_max },
        grad_norm: step.grad_norm,
        step_scale: step.step_scale,
    }
}

fn response_metrics(response: &engine::ResponseMetrics) -> wire::ResponseMetrics {
    wire::ResponseMetrics {
        group: response.group,
        advantage: response.advantage,
        tokens: response.tokens,
        mode: match response.mode {
            engine::Mode::Recorded => wire::ResponseMode::Recorded,
            engine::Mode::Text => wire::ResponseMode::Text,
        },
        staleness: response.staleness,
        logprob_before: response.logprob_before,
        logprob_after: response.logprob_after,
    }
}

/// The answer but for its id, model and revision, which the engine does not know.
pub fn train_response(measured: &engine::TrainMetrics, usage: wire::TrainUsage) -> wire::TrainResponse {
    let reward = &measured.reward;
    wire::TrainResponse {
        id: String::new(),
        model: String::new(),
        revision: 0,
        updated: measured.updated,
        reason: measured.reason.clone(),
        steps: measured.steps,
        metrics: step_metrics(&measured.step),
        kl_moved: measured.kl_moved,
        entropy_after: measured.entropy_after,
        reward: wire::RewardSummary { mean: reward.mean, std: reward.std, min: reward.min, max: reward.max },
        responses: measured.responses.iter().map(response_metrics).collect(),
        learning_rate: measured.learning_rate,
        trained_tokens: measured.trained_tokens as u64,
        duration: usage.duration,
        warnings: measured.warnings.clone(),
        usage,
    }
}
