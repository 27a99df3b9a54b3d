//! How probable the good answers of lines are that were not trained on. Changes nothing on the server: dry runs, in which all rewards are
//! equal, so that the engine only reads the texts.

use indicatif::ProgressBar;
use tiger_client::Client;
use tiger_wire::{ResponseMetrics, TrainGroup, TrainRequest, TrainedResponse};

use crate::data::{Example, Kind};
use crate::failure::Failure;
use crate::training;

/// Lines of one call: few enough for any body limit.
const LINES: usize = 32;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    /// Mean of −log p per token of the good answers, nats.
    pub loss: f64,
    /// Share of pairs whose chosen answer is more probable per token than the rejected one; `None` without pairs.
    pub preferred: Option<f64>,
}

#[derive(Debug, Default)]
struct Sums {
    loss: f64,
    tokens: usize,
    preferred: usize,
    pairs: usize,
}

impl Validation {
    /// Scores the examples with the model as it is. `key` names the measurement.
    pub async fn measure(
        client: &Client,
        model: &str,
        examples: &[Example],
        (key, bar): (&str, &ProgressBar),
    ) -> Result<Validation, Failure> {
        let mut sums = Sums::default();
        for (index, lines) in examples.chunks(LINES).enumerate() {
            let batch = lines.iter().map(|example| unrewarded(&example.group)).collect();
            let request = TrainRequest { model: model.to_owned(), batch: Some(batch), dry_run: true, ..Default::default() };
            let answer = training::call(client, &request, &format!("{key}-{index}"), bar).await?;
            for (at, example) in lines.iter().enumerate() {
                let scored: Vec<&ResponseMetrics> = answer.responses.iter().filter(|response| response.group == at).collect();
                sums.add(example, &scored);
            }
        }
        sums.end().ok_or_else(|| Failure::new("no validation line has an answer that is better than its others; give other lines"))
    }
}

fn unrewarded(group: &TrainGroup) -> TrainGroup {
    let response = |response: &TrainedResponse| TrainedResponse { reward: 0.0, ..response.clone() };
    TrainGroup { messages: group.messages.clone(), responses: group.responses.iter().map(response).collect() }
}

/// Rewarded above the others' mean; one alone: rewarded at all.
fn is_good(rewards: &[f64], at: usize) -> bool {
    let mean = if rewards.len() < 2 { 0.0 } else { rewards.iter().sum::<f64>() / rewards.len() as f64 };
    rewards.get(at).is_some_and(|reward| *reward > mean)
}

impl Sums {
    fn add(&mut self, example: &Example, scored: &[&ResponseMetrics]) {
        let rewards: Vec<f64> = example.group.responses.iter().map(|response| response.reward).collect();
        for (_, response) in scored.iter().enumerate().filter(|(at, _)| is_good(&rewards, *at)) {
            self.loss -= response.logprob_before;
            self.tokens += response.tokens;
        }
        if let (Kind::Pair, [chosen, rejected]) = (example.kind, scored) {
            let per_token = |response: &ResponseMetrics| response.logprob_before / response.tokens.max(1) as f64;
            self.pairs += 1;
            self.preferred += usize::from(per_token(chosen) > per_token(rejected));
        }
    }

    fn end(self) -> Option<Validation> {
        let preferred = (self.pairs > 0).then(|| self.preferred as f64 / self.pairs as f64);
        (self.tokens > 0).then(|| Validation { loss: self.loss / self.tokens as f64, preferred })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use tiger_wire::ResponseMode;

    fn scored(tokens: usize, logprob_before: f64) -> ResponseMetrics {
        ResponseMetrics { group: 0, advantage: 0.0, tokens, mode: ResponseMode::Text, staleness: 0, logprob_before, logprob_after: None }
    }

    fn examples(text: &str) -> Vec<Example> {
        data::examples("f", text, None).unwrap()
    }

    #[test]
    fn the_loss_is_of_the_good_answers_per_token() {
        let rated =
            examples(r#"{"prompt":"q","responses":[{"content":"a","reward":2},{"content":"b","reward":1},{"content":"c","reward":3}]}"#);
        let mut sums = Sums::default();
        sums.add(&rated[0], &[&scored(1, -100.0), &scored(1, -100.0), &scored(4, -2.0)]);
        assert_eq!(sums.end(), Some(Validation { loss: 0.5, preferred: None }));
        let flat = examples(r#"{"prompt":"q","responses":[{"content":"a","reward":1},{"content":"b","reward":1}]}"#);
        let mut sums = Sums::default();
        sums.add(&flat[0], &[&scored(1, -1.0), &scored(1, -1.0)]);
        assert_eq!(sums.end(), None);
    }

    #[test]
    fn pairs_are_compared_per_token() {
        let pairs = examples(r#"{"prompt":"q","chosen":"a","rejected":"b"}"#);
        let mut sums = Sums::default();
        sums.add(&pairs[0], &[&scored(4, -4.0), &scored(1, -2.0)]);
        sums.add(&pairs[0], &[&scored(1, -3.0), &scored(2, -4.0)]);
        assert_eq!(sums.end(), Some(Validation { loss: 7.0 / 5.0, preferred: Some(0.5) }));
    }
}
