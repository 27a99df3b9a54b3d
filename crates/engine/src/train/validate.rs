//! What a train request must be before anything is computed. Does not know a model: lengths and token ids are checked against it in `job`.

use super::{Baseline, Group, Knobs, TrainRequest};

/// Most optimizer steps of a call: with more, the recorded samples say little about the policy being trained.
pub const MAX_STEPS: u32 = 16;
/// Largest magnitude of a reward or baseline: far from where sums of f64 overflow, far beyond any use.
pub const MAX_REWARD: f64 = 1e100;
/// Largest learning rate of AdamW, whose step per weight is about the rate.
pub const MAX_LEARNING_RATE: f64 = 1.0;
/// Largest cap of importance weights; more is no cap.
pub const MAX_CLIP_HIGH: f64 = 1e6;
/// Largest weight of the KL; beyond, f32 gradients are all KL.
pub const MAX_KL_COEFFICIENT: f64 = 1e3;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", self.path())]
pub struct Invalid {
    /// Index of the group, if one group is wrong.
    pub group: Option<usize>,
    /// Index of the response in the group, if one response is wrong.
    pub response: Option<usize>,
    /// Name of the field.
    pub field: &'static str,
    /// In words, with what to do.
    pub problem: String,
}

impl Invalid {
    fn knob(field: &'static str, problem: String) -> Invalid {
        Invalid { group: None, response: None, field, problem }
    }

    fn group(group: usize, field: &'static str, problem: &str) -> Invalid {
        Invalid { group: Some(group), response: None, field, problem: problem.into() }
    }

    /// The field with its place: `batch[0].responses[2].reward`.
    pub fn path(&self) -> String {
        match (self.group, self.response) {
            (Some(g), Some(r)) => format!("batch[{g}].responses[{r}].{}", self.field),
            (Some(g), None) => format!("batch[{g}].{}", self.field),
            _ => self.field.into(),
        }
    }
}

/// Checks everything of a request that needs no model.
pub fn validate(request: &TrainRequest) -> Result<(), Invalid> {
    if !(0.0..1.0).contains(&request.dropout) {
        return Err(Invalid::knob("dropout", format!("must be at least 0 and below 1, it is {}", request.dropout)));
    }
    validate_groups(&request.groups)?;
    validate_knobs(&request.knobs)
}

/// Groups, responses, rewards and records.
pub fn validate_groups(groups: &[Group]) -> Result<(), Invalid> {
    if groups.is_empty() {
        return Err(Invalid::knob("batch", "needs at least one group".into()));
    }
    for (g, group) in groups.iter().enumerate() {
        if group.prompt.is_empty() {
            return Err(Invalid::group(g, "messages", "the prompt has no tokens: nothing predicts the first token of a response"));
        }
        if group.responses.is_empty() {
            return Err(Invalid::group(g, "responses", "needs at least one response"));
        }
        for (r, response) in group.responses.iter().enumerate() {
            let wrong = |field, problem: String| Invalid { group: Some(g), response: Some(r), field, problem };
            if !response.reward.is_finite() || response.reward.abs() > MAX_REWARD {
                return Err(wrong("reward", format!("must be a finite number of at most {MAX_REWARD:e}, it is {}", response.reward)));
            }
            if response.tokens.is_empty() {
                return Err(wrong("content", "has no token to train on".into()));
            }
            let Some(recorded) = &response.recorded else { continue };
            if recorded.logprobs.len() != response.tokens.len() {
                let problem = format!("{} log-probs are recorded for {} tokens", recorded.logprobs.len(), response.tokens.len());
                return Err(wrong("response_id", problem));
            }
            if recorded.logprobs.iter().any(|q| !q.is_finite()) {
                return Err(wrong("response_id", "a recorded log-prob is not finite".into()));
            }
        }
    }
    Ok(())
}

/// Ranges of the settings.
pub fn validate_knobs(knobs: &Knobs) -> Result<(), Invalid> {
    let check = |ok: bool, field, range: &str, value: f64| {
        if ok { Ok(()) } else { Err(Invalid::knob(field, format!("must be {range}, it is {value}"))) }
    };
    let k = knobs;
    let above = |value: f64, limit: f64| value > 0.0 && value <= limit;
    check(above(k.learning_rate, MAX_LEARNING_RATE), "learning_rate", "above 0 and at most 1", k.learning_rate)?;
    check((1..=MAX_STEPS).contains(&k.steps), "steps", "from 1 to 16", f64::from(k.steps))?;
    check(k.target_kl > 0.0, "target_kl", "above 0", k.target_kl)?;
    check((0.0..=MAX_KL_COEFFICIENT).contains(&k.kl_coefficient), "kl_coefficient", "from 0 to 1000", k.kl_coefficient)?;
    check(k.kl_limit > 0.0, "kl_limit", "above 0", k.kl_limit)?;
    check((1.0..=MAX_CLIP_HIGH).contains(&k.clip_high), "clip_high", "from 1 to 1e6", k.clip_high)?;
    check(above(k.negative_floor, 1.0), "negative_floor", "above 0 and at most 1", k.negative_floor)?;
    check(above(k.max_grad_norm, f64::MAX), "max_grad_norm", "above 0 and finite", k.max_grad_norm)?;
    match k.baseline {
        Baseline::Value(value) => check(value.abs() <= MAX_REWARD, "baseline", "finite and at most 1e100", value),
        Baseline::GroupMean | Baseline::None => Ok(()),
    }
}
