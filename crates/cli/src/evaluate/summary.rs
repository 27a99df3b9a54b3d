//! What an evaluation says in numbers. Does not know where answers and rewards came from.

use serde::Serialize;
use tiger_wire::{EvaluateResult, EvaluatedAnswer};

/// Standard normal quantile of a two-sided 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Rewards of one prompt's answers, in their order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PromptRewards {
    /// Of the revision in question.
    pub model: Vec<f64>,
    /// Of what it is compared with.
    pub against: Vec<f64>,
}

/// A share with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WinRate {
    /// Share of pairs that the revision won; ties count half.
    pub rate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// All prompts together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Mean log-prob of a token of the given responses, of either side.
    pub mean_logprob: Option<f64>,
    /// See above.
    pub mean_logprob_against: Option<f64>,
    /// Mean tokens of an answer.
    pub mean_tokens: Option<f64>,
    /// See above.
    pub mean_tokens_against: Option<f64>,
    /// Estimate of the KL per token from the revision's own answers.
    pub kl: Option<f64>,
    /// Mean reward.
    pub mean_reward: Option<f64>,
    /// See above.
    pub mean_reward_against: Option<f64>,
    /// With rewards.
    pub win_rate: Option<WinRate>,
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    weighted(values.map(|value| (value, 1.0)))
}

/// Mean of (value, weight).
fn weighted(values: impl Iterator<Item = (f64, f64)>) -> Option<f64> {
    let (sum, weight) = values.fold((0.0, 0.0), |(sum, all), (value, weight)| (sum + value * weight, all + weight));
    (weight > 0.0).then(|| sum / weight)
}

/// Sums up; `rewards` has one entry a prompt, or none at all.
pub fn summarize(results: &[EvaluateResult], rewards: &[PromptRewards]) -> Summary {
    let given = || results.iter().flat_map(|r| &r.responses);
    let ours = || results.iter().flat_map(|r| &r.answers.model);
    let tokens = |answer: &EvaluatedAnswer| answer.tokens as f64;
    Summary {
        mean_logprob: weighted(given().map(|r| (r.logprob, r.tokens as f64))),
        mean_logprob_against: weighted(given().map(|r| (r.logprob_against, r.tokens as f64))),
        mean_tokens: mean(ours().map(tokens)),
        mean_tokens_against: mean(results.iter().flat_map(|r| &r.answers.against).map(tokens)),
        kl: weighted(ours().map(|a| (a.logprob - a.logprob_other, tokens(a)))),
        mean_reward: mean(rewards.iter().flat_map(|r| r.model.iter().copied())),
        mean_reward_against: mean(rewards.iter().flat_map(|r| r.against.iter().copied())),
        win_rate: win_rate(rewards),
    }
}

/// Wins of answers over those of the same number, which were drawn with the same random numbers. Answers to one prompt are not independent, so
/// a prompt is one observation with its share of wins; such a share varies at most as much as a win or a loss would, so Wilson's interval
/// ("Probable Inference", 1927) is not too narrow, nor empty where everything was won.
pub fn win_rate(rewards: &[PromptRewards]) -> Option<WinRate> {
    let share = |prompt: &PromptRewards| {
        let win = |(ours, theirs): (&f64, &f64)| if ours == theirs { 0.5 } else { f64::from(u8::from(ours > theirs)) };
        mean(prompt.model.iter().zip(&prompt.against).map(win))
    };
    let shares: Vec<f64> = rewards.iter().filter_map(share).collect();
    let (rate, n) = (mean(shares.iter().copied())?, shares.len() as f64);
    let middle = (rate + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (rate * (1.0 - rate) / n + Z * Z / (4.0 * n * n)).sqrt();
    Some(WinRate { rate, low: (middle - half).max(0.0), high: (middle + half).min(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(pairs: &[(f64, f64)]) -> Vec<PromptRewards> {
        pairs.iter().map(|(model, against)| PromptRewards { model: vec![*model], against: vec![*against] }).collect()
    }

    #[test]
    fn a_win_rate_is_wilsons() {
        // 8 wins of 10: the interval is [0.4902, 0.9433] (Brown, Cai and DasGupta 2001 give the formula; these are its values).
        let eight: Vec<(f64, f64)> = (0..10).map(|i| if i < 8 { (1.0, 0.0) } else { (0.0, 1.0) }).collect();
        let rate = win_rate(&prompts(&eight)).unwrap();
        assert!((rate.rate - 0.8).abs() < 1e-12 && (rate.low - 0.4902).abs() < 1e-4 && (rate.high - 0.9433).abs() < 1e-4, "{rate:?}");
        let all = win_rate(&prompts(&[(2.0, 1.0); 10])).unwrap();
        assert!(all.rate == 1.0 && (all.low - 0.7225).abs() < 1e-4 && (all.high - 1.0).abs() < 1e-12, "{all:?}");
        assert_eq!(win_rate(&prompts(&[(1.0, 1.0), (0.0, 0.0)])).unwrap().rate, 0.5, "ties count half");
        assert_eq!(win_rate(&[]), None);
    }

    #[test]
    fn more_answers_to_a_prompt_are_no_more_prompts() {
        let one = win_rate(&prompts(&[(1.0, 0.0), (0.0, 1.0)])).unwrap();
        let twice = [([1.0, 1.0], [0.0, 0.0]), ([0.0, 0.0], [1.0, 1.0])];
        let twice: Vec<PromptRewards> = twice.map(|(m, a)| PromptRewards { model: m.to_vec(), against: a.to_vec() }).into();
        assert_eq!(win_rate(&twice), Some(one));
    }
}
