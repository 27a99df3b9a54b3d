//! What a run tells: a bar with the curve, a line a step where there is no terminal, JSON where asked for, a chart at the end.

use indicatif::ProgressBar;
use serde_json::json;
use tiger_wire::TrainResponse;

use super::curve;
use super::state::{Pending, State};
use crate::failure::Failure;
use crate::output;

/// Steps of the line of blocks.
const SPARKS: usize = 60;

/// Where it is told.
pub struct Report {
    /// JSON on standard output.
    pub json: bool,
    /// Standard error.
    pub bar: ProgressBar,
    /// What has been said once.
    pub notes: output::Notes,
}

impl Report {
    /// Draws the curve as far as it is.
    pub fn step(&self, state: &State) {
        let rewards: Vec<f64> = state.steps.iter().map(|step| step.reward).collect();
        let last = rewards.last().map_or_else(String::new, |reward| format!(" {reward:.3}"));
        let held_out = state.evaluations.last().map_or_else(String::new, |look| format!("   held out {:.3}", look.reward));
        self.bar.set_prefix(format!("{}{last}{held_out}", curve::sparkline(&rewards, SPARKS)));
        self.bar.set_position(u64::from(state.step()));
    }

    /// A look at the held-out prompts.
    pub fn evaluation(&self, state: &State) -> Result<(), Failure> {
        self.step(state);
        let Some(look) = state.evaluations.last() else { return Ok(()) };
        output::say(
            &self.bar,
            format!("after step {}: reward {:.3} on held-out prompts (revision {})", look.step, look.reward, look.revision),
        );
        self.line(&json!({"type": "evaluation", "step": look.step, "reward": look.reward, "revision": look.revision}))
    }

    /// A step that was trained.
    pub fn trained(&self, state: &State, pending: &Pending, answer: &TrainResponse, training_s: f64) -> Result<(), Failure> {
        self.step(state);
        let (step, metrics) = (state.step(), &answer.metrics);
        if self.bar.is_hidden() {
            eprintln!("step {step}: reward {:.3}  kl {:.4}  revision {}", pending.reward, metrics.kl_parent, answer.revision);
        }
        // Some prompts whose answers are all as good as each other are usual, and a step without any difference is said below.
        let notes = answer.warnings.iter().filter(|warning| !warning.starts_with("zero_advantage"));
        self.notes.say(&self.bar, &format!("step {step}"), notes);
        if !answer.updated {
            let why = match answer.reason.as_deref() {
                Some("zero_advantage") => "all answers to each prompt have the same reward, so there is nothing to prefer",
                Some("far_from_parent") => "the model is too far from its parent to be trained any further, so the run ends here",
                reason => reason.unwrap_or("the server gives no reason"),
            };
            output::say(&self.bar, format!("step {step} changed nothing: {why}"));
        }
        self.line(&json!({
            "type": "step",
            "step": step,
            "reward": pending.reward,
            "reward_std": answer.reward.std,
            "responses": answer.responses.len(),
            "skipped": pending.skipped,
            "updated": answer.updated,
            "revision": answer.revision,
            "loss": metrics.loss,
            "kl_parent": metrics.kl_parent,
            "entropy": metrics.entropy,
            "grad_norm": metrics.grad_norm,
            "learning_rate": answer.learning_rate,
            "trained_tokens": answer.trained_tokens,
            "sampling_s": pending.sampling_s,
            "training_s": training_s,
        }))
    }

    /// The chart, and which weights the model has now. `rolled_back_from`: the last revision of the run, where it was not the best.
    pub fn end(&self, model: &str, state: &State, rolled_back_from: Option<u64>) -> Result<(), Failure> {
        let (steps, looks) = (&state.steps, &state.evaluations);
        if self.json {
            let best = state.best.map(|best| best.score);
            return output::json(&json!({
                "type": "end", "model": model, "steps": state.step(), "revision": state.revision,
                "reward": steps.last().map(|step| step.reward), "held_out": looks.last().map(|look| look.reward), "best_held_out": best,
                "rolled_back_from": rolled_back_from,
            }));
        }
        let training: Vec<(u32, f64)> = steps.iter().map(|step| (step.step, step.reward)).collect();
        let held_out: Vec<(u32, f64)> = looks.iter().map(|look| (look.step, look.reward)).collect();
        println!("{}", curve::chart(&training, &held_out));
        let mut summary = format!("{model}: {} steps", state.step());
        let mut from_to = |what: &str, curve: &[(u32, f64)]| {
            if let (Some((_, first)), Some((_, last))) = (curve.first(), curve.last()) {
                summary.push_str(&format!(", {what} {first:.3} → {last:.3}"));
            }
        };
        from_to("reward", &training);
        from_to("on held-out prompts", &held_out);
        println!("{summary}; revision {}", state.revision);
        if let (Some(last), Some(best)) = (rolled_back_from, state.best) {
            println!(
                "the best on held-out prompts was {:.3}, before the last step: the model has those weights again, as revision {} (the last were {last})",
                best.score, best.revision
            );
        }
        Ok(())
    }

    fn line(&self, value: &serde_json::Value) -> Result<(), Failure> {
        if self.json { self.bar.suspend(|| output::json(value)) } else { Ok(()) }
    }
}
