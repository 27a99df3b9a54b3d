//! What a caller should be told about a training, in words. Each note opens with a name that programs can look for.
//! Does not know how the numbers came about.

use super::objective::Plan;
use super::{Baseline, Group, Knobs, Objective, StepMetrics};

/// Revisions after which a sample says little about the policy being trained.
const STALE_REVISIONS: u64 = 8;
/// Mean entropy, nats per token, below which samples of one prompt hardly differ, so that their rewards teach nothing.
const LOW_ENTROPY: f64 = 0.01;
/// Share of a full step below which it is worth a word.
const FADED_SHARE: f64 = 0.5;

/// Notes that follow from the request alone.
pub(super) fn about_request(groups: &[Group], plan: &Plan, knobs: &Knobs) -> Vec<String> {
    let mut notes = Vec::new();
    let indices = |pick: &dyn Fn(usize, &Group) -> bool| -> Vec<usize> {
        groups.iter().enumerate().filter(|(i, g)| pick(*i, g)).map(|(i, _)| i).collect()
    };
    let alone = indices(&|_, g| g.responses.len() == 1);
    if knobs.baseline == Baseline::GroupMean && !alone.is_empty() {
        notes.push(format!(
            "single_response_no_baseline: {} one response, so its reward is taken as it is; with two or more responses to a prompt they are compared with each other, which learns more and steadier",
            subject(&alone, "has", "have")
        ));
    }
    let flat = indices(&|i, _| plan.responses.iter().filter(|r| r.group == i).all(|r| r.advantage == 0.0));
    if !flat.is_empty() {
        let why = if knobs.baseline == Baseline::GroupMean { "equal rewards" } else { "rewards equal to the baseline" };
        notes.push(format!("zero_advantage: {} {why} and nothing to learn from; only differences count", subject(&flat, "has", "have")));
    }
    let responses = || groups.iter().flat_map(|g| &g.responses);
    let staleness = || responses().filter_map(|r| r.recorded.as_ref()).map(|r| r.staleness);
    let stale = staleness().filter(|s| *s > STALE_REVISIONS).count();
    if stale > 0 {
        let (oldest, all) = (staleness().max().unwrap_or(0), plan.responses.len());
        notes.push(format!(
            "stale_samples: {stale} of {all} responses were sampled more than {STALE_REVISIONS} revisions ago (at most {oldest}); fresh ones teach more"
        ));
    }
    let has_text = responses().any(|r| r.recorded.is_none());
    if has_text && matches!(knobs.objective, Objective::ImportanceSampling | Objective::Ppo) {
        notes.push(
            "text_without_record: responses given as text have no recorded probabilities, so their ratios count from the start of this call; send response_id for exact ones".into(),
        );
    }
    notes
}

/// Notes that follow from the numbers of the first step.
pub(super) fn about_step(step: &StepMetrics) -> Vec<String> {
    let mut notes = Vec::new();
    if step.entropy < LOW_ENTROPY {
        notes.push(format!(
            "low_entropy: the model is almost certain of every token ({:.4} nats on average), so samples hardly differ; raise the temperature of the samples or lower the learning rate",
            step.entropy
        ));
    }
    if step.step_scale < FADED_SHARE {
        notes.push(format!(
            "push_faded: the punished responses are improbable already, so the step is scaled to {:.2} %; reward what you want instead",
            100.0 * step.step_scale
        ));
    }
    notes
}

/// The call stopped before all its steps.
pub(super) fn stopped_early(steps: u32, drift: f64, target: f64) -> String {
    format!(
        "stopped_early: after {steps} steps the responses had moved {drift:.4} nats per token since the call began, above target_kl {target}"
    )
}

/// "group 3 has" or "groups 1, 2 and 7 more have": a list that stays short.
fn subject(groups: &[usize], one: &str, many: &str) -> String {
    const SHOWN: usize = 5;
    if let [group] = groups {
        return format!("group {group} {one}");
    }
    let list: Vec<String> = groups.iter().take(SHOWN).map(usize::to_string).collect();
    let rest = match groups.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("groups {}{rest} {many}", list.join(", "))
}
