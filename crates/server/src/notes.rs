//! Warnings of a training that follow from what only the store knows: how samples ended, and how the model was at its first training.
//! Those that follow from the numbers of the call alone are the engine's.

use serde_json::Value;
use tiger_store::NewSample;
use tiger_wire::{ResponseMode, TrainResponse};

/// Share of the entropy of a model's first training below which its answers have become all the same: a style learnt
/// to 97 % on the built-in model leaves 0.3 of it, for there is more to be certain of, and a fifth is less than any success explains.
const COLLAPSE_SHARE: f64 = 0.2;
/// Nats per token below which a first training had no entropy to lose.
const LEAST_ENTROPY: f64 = 0.01;

/// Recorded responses that `max_tokens` ended.
pub fn responses_cut<'a>(samples: impl Iterator<Item = &'a NewSample>) -> Option<String> {
    let (mut all, mut cut) = (0, 0);
    for sample in samples {
        all += 1;
        cut += usize::from(sample.finish == "max_tokens");
    }
    (cut > 0).then(|| {
        format!(
            "responses_cut: {cut} of {all} sampled responses were cut at max_tokens, so their end is neither rewarded nor trained and the model may learn never to stop; raise max_tokens when sampling, or give cut responses a low reward"
        )
    })
}

/// The entropy has fallen since the model's first training, whose answer is `first`. Only sampled responses are comparable: texts from
/// elsewhere surprise the model as they please.
pub fn entropy_fell(first: &Value, now: &TrainResponse) -> Option<String> {
    let sampled = first["responses"].as_array().is_some_and(|all| all.iter().all(|response| response["mode"] == "recorded"));
    let before = first["entropy"].as_f64().filter(|before| sampled && *before >= LEAST_ENTROPY)?;
    let after = now.metrics.entropy;
    let comparable = now.responses.iter().all(|response| response.mode == ResponseMode::Recorded);
    let said = now.warnings.iter().any(|warning| warning.starts_with("low_entropy") || warning.starts_with("entropy_collapse"));
    (comparable && !said && after < COLLAPSE_SHARE * before).then(|| {
        format!(
            "entropy_collapse: the model's entropy is {after:.3} nats per token where it was {before:.3} at its first training, so samples hardly differ and rewards have little to tell apart; roll back, sample at a higher temperature, raise kl_coefficient or lower learning_rate"
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample(finish: &str) -> NewSample {
        NewSample {
            response_id: String::new(),
            account: tiger_store::AccountId(1),
            model: None,
            base_model: String::new(),
            revision: None,
            blob_sha256: None,
            prompt_sha256: String::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            finish: finish.to_owned(),
            text: String::new(),
        }
    }

    fn answer(entropy: f64, mode: &str, warnings: &[&str]) -> TrainResponse {
        let response = json!({"group": 0, "advantage": 1, "tokens": 3, "mode": mode, "staleness": 0, "logprob_before": -1.0});
        serde_json::from_value(json!({
            "id": "", "model": "", "revision": 9, "updated": true, "steps": 1, "loss": 0, "policy_loss": 0, "kl_loss": 0, "kl_parent": 0,
            "kl_sampler": 0, "entropy": entropy, "frac_tapered": 0, "frac_capped": 0, "ratio": {"mean": 1, "max": 1}, "grad_norm": 1,
            "reward": {"mean": 0, "std": 0, "min": 0, "max": 0}, "responses": [response], "learning_rate": 1e-4, "trained_tokens": 3,
            "duration": 0, "warnings": warnings, "usage": {"duration": 0, "input_tokens": 1, "trained_tokens": 3},
        }))
        .expect("an answer")
    }

    #[test]
    fn cut_responses_are_counted() {
        let (whole, cut) = (sample("end_turn"), sample("max_tokens"));
        assert_eq!(responses_cut([&whole, &whole].into_iter()), None);
        let note = responses_cut([&whole, &cut, &cut].into_iter()).expect("a warning");
        assert!(note.starts_with("responses_cut: 2 of 3 ") && note.contains("raise max_tokens"), "{note}");
    }

    #[test]
    fn entropy_is_compared_with_the_first_training() {
        let first = serde_json::to_value(answer(0.8, "recorded", &[])).expect("JSON");
        let note = entropy_fell(&first, &answer(0.1, "recorded", &[])).expect("a warning");
        assert!(note.starts_with("entropy_collapse: ") && note.contains("0.100") && note.contains("0.800"), "{note}");
        assert_eq!(entropy_fell(&first, &answer(0.4, "recorded", &[])), None);
        assert_eq!(entropy_fell(&first, &answer(0.1, "text", &[])), None);
        assert_eq!(entropy_fell(&first, &answer(0.1, "recorded", &["low_entropy: said"])), None);
        let texts = serde_json::to_value(answer(0.8, "text", &[])).expect("JSON");
        assert_eq!(entropy_fell(&texts, &answer(0.1, "recorded", &[])), None);
        assert_eq!(entropy_fell(&Value::Null, &answer(0.1, "recorded", &[])), None);
    }
}
