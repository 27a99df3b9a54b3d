//! What a caller should be told about a training, in words: what is so, why it matters, what to do. Each note opens with a name that
//! programs can look for. Does not know how the numbers came about.

use super::objective::Plan;
use super::{Baseline, Group, Knobs, Objective, StepMetrics};

/// Revisions after which a sample says little about the policy being trained.
const STALE_REVISIONS: u64 = 8;
/// Mean entropy, nats per token, below which samples of one prompt hardly differ, so that their rewards teach nothing.
const LOW_ENTROPY: f64 = 0.01;
/// Share of a full step below which it is worth a word.
const FADED_SHARE: f64 = 0.5;
/// Share of the entropy before a call below which the call itself made the model certain: a step of the right size takes at
/// most a quarter of it (a style learnt on the built-in model, in its fastest calls), so half means that a few more leave nothing to sample.
const COLLAPSE_SHARE: f64 = 0.5;
/// KL to the parent, nats per token, above which the model is another one: twice what a style learnt to 97 % took on the built-in model (0.24
/// after 14 calls of 8 × 8), though it changes every answer.
const FAR_KL: f64 = 0.5;
/// How many times as long as the responses rewarded down those rewarded up are (or the other way round) before it is said.
const LENGTH_FACTOR: f64 = 1.5;
/// Responses on either side without which a difference in length is chance.
const LENGTH_RESPONSES: usize = 4;
/// Standard errors that the difference must have besides: with two, chance alone says so in one of twenty calls.
const LENGTH_ERRORS: f64 = 2.0;

/// Notes that follow from the request and from the running mean of earlier single rewards.
pub(super) fn about_request(groups: &[Group], plan: &Plan, knobs: &Knobs, past: f64) -> Vec<String> {
    let mut notes = Vec::new();
    let indices = |pick: &dyn Fn(usize, &Group) -> bool| -> Vec<usize> {
        groups.iter().enumerate().filter(|(i, g)| pick(*i, g)).map(|(i, _)| i).collect()
    };
    let alone = indices(&|_, g| g.responses.len() == 1);
    if knobs.baseline == Baseline::GroupMean && !alone.is_empty() {
        notes.push(format!(
            "single_response_no_baseline: {} one response and nothing to compare it with{}, so the step is small; with two or more responses to a prompt they are compared with each other, which learns more and steadier",
            subject(&alone, "has", "have"),
            if past < 0.0 { format!(" but the running mean of such rewards, {past:.2}") } else { String::new() }
        ));
    }
    let flat = indices(&|i, _| plan.responses.iter().filter(|r| r.group == i).all(|r| r.advantage == 0.0));
    if !flat.is_empty() {
        let why = if knobs.baseline == Baseline::GroupMean { "equal rewards" } else { "rewards equal to the baseline" };
        let so = if flat.len() == groups.len() { "nothing changes" } else { "the step is smaller by their share" };
        notes.push(format!(
            "zero_advantage: {} {why} and nothing to learn from, for only differences count, so {so}; sample more answers or at a higher temperature, or use a reward that tells them apart",
            subject(&flat, "has", "have")
        ));
    }
    notes.extend(length_drift(plan));
    let responses = || groups.iter().flat_map(|g| &g.responses);
    let staleness = || responses().filter_map(|r| r.recorded.as_ref()).map(|r| r.staleness);
    let stale = staleness().filter(|s| *s > STALE_REVISIONS).count();
    if stale > 0 {
        let (oldest, all) = (staleness().max().unwrap_or(0), plan.responses.len());
        notes.push(format!(
            "stale_samples: {stale} of {all} responses were sampled more than {STALE_REVISIONS} revisions ago (at most {oldest}), so they say little about what the model does now; fresh ones teach more"
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

/// The reward goes with the length. Lengths are compared within their groups, so that a long answer to one prompt and a short one to another
/// say nothing.
fn length_drift(plan: &Plan) -> Option<String> {
    let groups = plan.responses.last().map_or(0, |r| r.group + 1);
    let mut totals = vec![(0, 0); groups];
    for response in &plan.responses {
        totals[response.group].0 += response.tokens;
        totals[response.group].1 += 1;
    }
    let side = |sign: f64| -> Vec<(f64, f64)> {
        let mine = plan.responses.iter().filter(|r| r.advantage * sign > 0.0 && totals[r.group].1 > 1);
        mine.map(|r| (r.tokens as f64, r.tokens as f64 * totals[r.group].1 as f64 / totals[r.group].0 as f64)).collect()
    };
    let (up, down) = (side(1.0), side(-1.0));
    if up.len().min(down.len()) < LENGTH_RESPONSES {
        return None;
    }
    let mean = |side: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| side.iter().map(pick).sum::<f64>() / side.len() as f64;
    let relative = |side: &[(f64, f64)]| {
        let middle = mean(side, |r| r.1);
        (middle, side.iter().map(|r| (r.1 - middle).powi(2)).sum::<f64>() / (side.len() * (side.len() - 1)) as f64)
    };
    let ((longer, error_up), (shorter, error_down)) = (relative(&up), relative(&down));
    let factor = longer / shorter;
    let chance = (longer - shorter).abs() <= LENGTH_ERRORS * (error_up + error_down).sqrt();
    if chance || (factor < LENGTH_FACTOR && factor > 1.0 / LENGTH_FACTOR) {
        return None;
    }
    let (kind, times, word) = if factor > 1.0 { ("long", factor, "longer") } else { ("short", 1.0 / factor, "shorter") };
    Some(format!(
        "length_drift: the responses rewarded up are {times:.1} times {word} than those rewarded down (mean {:.0} against {:.0} tokens), so the reward prefers {kind} answers and the model will drift to them; if that is not what you want, take the length out of the reward",
        mean(&up, |r| r.0),
        mean(&down, |r| r.0)
    ))
}

/// Notes that follow from the numbers of the first step. `fade`: share of the push that its punished responses still have.
pub(super) fn about_step(step: &StepMetrics, fade: f64) -> Vec<String> {
    let mut notes = Vec::new();
    if step.entropy < LOW_ENTROPY {
        notes.push(format!(
            "low_entropy: the model is almost certain of every token ({:.4} nats on average), so samples hardly differ; raise the temperature of the samples or lower the learning rate",
            step.entropy
        ));
    }
    if step.kl_parent > FAR_KL {
        notes.push(format!(
            "far_from_parent: the model is {:.2} nats per token from its parent, above {FAR_KL}, so what the parent could do may be lost; evaluate it on other prompts, raise kl_coefficient, or roll back",
            step.kl_parent
        ));
    }
    if fade < FADED_SHARE {
        notes.push(format!(
            "push_faded: the punished responses are improbable already, so the step is scaled to {:.2} %; reward what you want instead",
            100.0 * fade
        ));
    }
    notes
}

/// Notes that follow from the scores after the last step: mean entropy before the call and after it, nats.
pub(super) fn about_change(before: f64, after: f64) -> Option<String> {
    // Where there was none to lose `low_entropy` has said so.
    (before >= LOW_ENTROPY && after < COLLAPSE_SHARE * before).then(|| {
        format!(
            "entropy_collapse: this call took the entropy from {before:.3} to {after:.3} nats per token, so the next samples will hardly differ; roll back and lower learning_rate or steps, or raise kl_coefficient"
        )
    })
}

/// All steps were taken and the responses moved by more than the call's own bound.
pub(super) fn moved_far(moved: f64, target: f64) -> String {
    format!(
        "moved_far: this call moved the responses by {moved:.4} nats per token, above target_kl {target}, so much that their rewards may not hold for what the model says now; lower learning_rate or steps"
    )
}

/// The model is not trained any further.
pub(super) fn too_far(kl: f64, limit: f64) -> String {
    format!(
        "too_far_from_parent: over the last calls the model was {kl:.2} nats per token from its parent, above kl_limit {limit}, where it soon answers nothing well, so nothing was changed; roll back to an earlier revision and look at the rewards, or set a higher kl_limit if it is meant to go that far"
    )
}

/// The call stopped before all its steps.
pub(super) fn stopped_early(steps: u32, drift: f64, target: f64) -> String {
    format!(
        "stopped_early: after {steps} steps the responses had moved {drift:.4} nats per token since the call began, above target_kl {target}; lower learning_rate if the later steps are wanted"
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

#[cfg(test)]
mod tests {
    use super::super::{Recorded, Response};
    use super::*;

    /// One group: (tokens, reward) of each response, all recorded.
    fn group(responses: &[(usize, f64)]) -> Group {
        let response = |&(tokens, reward): &(usize, f64)| Response {
            tokens: vec![7; tokens],
            reward,
            recorded: Some(Recorded { logprobs: vec![-1.0; tokens], staleness: 1 }),
        };
        Group { prompt: vec![1, 2], responses: responses.iter().map(response).collect() }
    }

    fn of_request(groups: &[Group], knobs: &Knobs) -> Vec<String> {
        about_request(groups, &Plan::new(groups, knobs), knobs, 0.0)
    }

    fn step() -> StepMetrics {
        StepMetrics { entropy: 0.7, kl_parent: 0.2, step_scale: 1.0, ..StepMetrics::default() }
    }

    /// One note with this name and these words.
    fn check(notes: &[String], name: &str, words: &str) {
        assert!(matches!(notes, [one] if one.starts_with(&format!("{name}: ")) && one.contains(words)), "{name}: {notes:?}");
    }

    fn healthy() -> Group {
        group(&[(20, 1.0), (18, 0.0), (25, 0.0), (22, 1.0), (19, 1.0), (24, 0.0), (21, 0.0), (23, 1.0)])
    }

    #[test]
    fn a_healthy_call_is_not_spoken_to() {
        assert_eq!(of_request(&[healthy(), healthy()], &Knobs::default()), Vec::<String>::new());
        assert_eq!(about_step(&step(), 1.0), Vec::<String>::new());
        assert_eq!(about_change(0.7, 0.6), None);
    }

    #[test]
    fn equal_rewards_of_some_and_of_all_groups() {
        let flat = group(&[(3, 0.5), (4, 0.5)]);
        check(&of_request(&[healthy(), flat.clone()], &Knobs::default()), "zero_advantage", "group 1 has equal rewards");
        check(&of_request(&[healthy(), flat.clone()], &Knobs::default()), "zero_advantage", "smaller by their share");
        check(&of_request(&[flat.clone(), flat], &Knobs::default()), "zero_advantage", "nothing changes");
    }

    #[test]
    fn one_response_and_old_samples() {
        check(&of_request(&[group(&[(3, 1.0)])], &Knobs::default()), "single_response_no_baseline", "group 0 has one");
        let mut old = healthy();
        old.responses[2].recorded.as_mut().unwrap().staleness = 9;
        check(
            &of_request(&[old], &Knobs::default()),
            "stale_samples",
            "1 of 8 responses were sampled more than 8 revisions ago (at most 9)",
        );
    }

    #[test]
    fn texts_where_ratios_are_asked_for() {
        let mut texts = healthy();
        texts.responses[0].recorded = None;
        assert_eq!(of_request(&[texts.clone()], &Knobs::default()), Vec::<String>::new());
        check(&of_request(&[texts], &Knobs { objective: Objective::Ppo, ..Knobs::default() }), "text_without_record", "response_id");
    }

    #[test]
    fn a_reward_that_goes_with_the_length() {
        let up = [(40, 1.0), (44, 1.0), (38, 1.0), (47, 1.0)];
        let down = [(20, 0.0), (22, 0.0), (17, 0.0), (24, 0.0)];
        let both: Vec<(usize, f64)> = up.iter().chain(&down).copied().collect();
        check(&of_request(&[group(&both)], &Knobs::default()), "length_drift", "prefers long answers");
        let turned: Vec<(usize, f64)> = both.iter().map(|(tokens, reward)| (*tokens, 1.0 - reward)).collect();
        check(
            &of_request(&[group(&turned)], &Knobs::default()),
            "length_drift",
            "2.0 times shorter than those rewarded down (mean 21 against 42",
        );
        // Few responses, and lengths all over the place, say nothing.
        assert_eq!(of_request(&[group(&both[2..6])], &Knobs::default()), Vec::<String>::new());
        let wild = [(5, 1.0), (9, 1.0), (6, 1.0), (130, 1.0), (8, 0.0), (7, 0.0), (30, 0.0), (12, 0.0)];
        assert_eq!(of_request(&[group(&wild)], &Knobs::default()), Vec::<String>::new());
        // Long answers to the one prompt and short ones to the other: within each the length is the same.
        let long = group(&[(90, 1.0), (90, 1.0), (90, 1.0), (90, 0.0)]);
        let short = group(&[(9, 1.0), (9, 0.0), (9, 0.0), (9, 0.0)]);
        assert_eq!(of_request(&[long, short], &Knobs::default()), Vec::<String>::new());
    }

    #[test]
    fn what_the_numbers_say() {
        check(&about_step(&StepMetrics { entropy: 0.005, ..step() }, 1.0), "low_entropy", "0.0050 nats");
        check(&about_step(&StepMetrics { kl_parent: 1.5, ..step() }, 1.0), "far_from_parent", "1.50 nats per token");
        check(&about_step(&step(), 0.1), "push_faded", "10.00 %");
        check(&about_change(0.7, 0.3).into_iter().collect::<Vec<_>>(), "entropy_collapse", "from 0.700 to 0.300");
        assert_eq!(about_change(0.009, 0.001), None, "low_entropy says it");
        check(&[moved_far(0.3, 0.1)], "moved_far", "0.3000 nats per token, above target_kl 0.1");
    }
}
