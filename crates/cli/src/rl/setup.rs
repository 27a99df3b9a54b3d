//! What a run begins with: prompts and held-out prompts, the model, the kept run, and whether all of them belong together.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tiger_client::Client;
use tiger_wire::{CreateModelRequest, ModelInfo, Objective};

use super::state::{State, Store};
use crate::args::{Keep, Rl};
use crate::data;
pub use crate::data::Prompt;
use crate::failure::{CONFLICT, Failure};

/// The prompts of a run.
pub struct Setup {
    /// Trained on.
    pub prompts: Vec<Prompt>,
    /// Only looked at.
    pub held_out: Vec<Prompt>,
    files: Map<String, Value>,
}

impl Setup {
    /// Reads the files and checks the arguments that clap cannot.
    pub fn read(args: &Rl) -> Result<Setup, Failure> {
        let mut files = Map::new();
        let mut read = |name: &str, path: &Path| {
            let shown = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| Failure::because(&shown, e))?;
            let sha256: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
            files.insert(format!("{name} sha256"), sha256.into());
            data::prompts(&shown, &text)
        };
        let all = read("FILE", &args.prompts)?;
        let (prompts, held_out) = match (&args.look.eval, args.look.eval_share) {
            (Some(path), _) => (all, read("--eval", path)?),
            (None, Some(share)) => data::cut(all, share, |prompt| &prompt.messages)?,
            (None, None) if args.look.keep == Some(Keep::Best) => {
                return Err(Failure::new(
                    "--keep best needs held-out prompts (--eval or --eval-share): training rewards do not tell which revision is best",
                ));
            }
            (None, None) => (all, Vec::new()),
        };
        if let Some(shared) = held_out.iter().find(|held| prompts.iter().any(|prompt| prompt.messages == held.messages)) {
            return Err(Failure::new(format!(
                "the held-out prompt of line {} is one of the training prompts too; take it out of one file",
                shared.line
            )));
        }
        Ok(Setup { prompts, held_out, files })
    }

    /// What makes a run this run: everything that its results depend on but its length, and where it ends by itself.
    fn settings(&self, args: &Rl, model: &str) -> Map<String, Value> {
        let (sampling, knobs) = (&args.sampling, &args.knobs);
        let rest = json!({
            "--model": model,
            "--reward": args.reward.reward,
            "--reward-url": args.reward.reward_url,
            "--reward-failures": format!("{:?}", args.reward.reward_failures).to_lowercase(),
            "--prompts-per-step": sampling.prompts_per_step,
            "--samples": sampling.samples,
            "--temperature": sampling.temperature,
            "--max-tokens": sampling.max_tokens,
            "--seed": sampling.seed,
            "--eval-share": args.look.eval_share,
            "--eval-temperature": args.look.eval_temperature,
            "--learning-rate": knobs.learning_rate,
            "--kl-coefficient": knobs.kl_coefficient,
            "--objective": knobs.objective.map(Objective::from),
            "--optimizer-steps": args.optimizer_steps,
        });
        let mut settings = self.files.clone();
        if let Value::Object(rest) = rest {
            settings.extend(rest);
        }
        settings
    }
}

/// The model, made from `--base` if it is not there.
pub async fn find_or_make(client: &Client, args: &Rl) -> Result<ModelInfo, Failure> {
    match (client.model(&args.model).await, &args.base) {
        (Ok(model), _) if model.read_only => Err(Failure::new(format!(
            "{} is a base model, which cannot be trained: give --model a new name, and --base {}",
            model.name, model.id
        ))),
        (Ok(model), _) => Ok(model),
        (Err(error), Some(base)) if error.status() == Some(404) => {
            let request = CreateModelRequest {
                name: args.model.clone(),
                description: format!("made by tiger rl from {}", args.prompts.display()),
                parent_model: base.clone(),
                seed: Some(args.sampling.seed),
                ..Default::default()
            };
            let model = client.create(&request).await?;
            eprintln!("made {} as a copy of {base}", model.id);
            Ok(model)
        }
        (Err(error), None) if error.status() == Some(404) => {
            let failure = Failure::from(error);
            Err(Failure { message: format!("{}; --base MODEL makes it as a copy of that one", failure.message), ..failure })
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// `FILE.MODEL.rl.json` beside the prompts.
pub fn beside(prompts: &Path, model: &str) -> PathBuf {
    let mut name = prompts.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{model}.rl.json"));
    prompts.with_file_name(name)
}

/// The kept run where it fits the arguments and the model, else a new one.
pub async fn open_state(client: &Client, store: &Store, args: &Rl, (setup, model): (&Setup, &ModelInfo)) -> Result<State, Failure> {
    let settings = setup.settings(args, &model.id);
    let revision = model.revision.unwrap_or(0);
    let kept = if args.restart { None } else { store.open(&settings)? };
    let Some(mut state) = kept else {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let state = State::new(settings, format!("rl-{}-{now}", std::process::id()), revision);
        // Written at once, so that a place that cannot be written is known before the work.
        store.save(&state)?;
        return Ok(state);
    };
    // A pending step may have been trained: its call, repeated, tells.
    if state.pending.is_some() || state.revision == revision {
        return Ok(state);
    }
    let revisions = client.revisions(&model.id).await?;
    if revisions.first().is_some_and(|newest| newest.revision == revision && newest.rolled_back_to == Some(state.revision)) {
        state.revision = revision;
        return Ok(state);
    }
    Err(moved_on(&model.id, state.revision, &format!("{} is at revision {revision} now", model.id)))
}

/// Somebody else changed the model.
pub fn moved_on(model: &str, left_at: u64, found: &str) -> Failure {
    let message = format!(
        "the run left {model} at revision {left_at}, but {found}. `tiger models rollback {model} {left_at}` makes the run's weights the newest again, \
         then it goes on; --restart begins a new run with the model as it is"
    );
    Failure { code: CONFLICT, ..Failure::new(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_lies_beside_the_prompts() {
        assert_eq!(beside(Path::new("a/b.jsonl"), "m"), Path::new("a/b.jsonl.m.rl.json"));
        assert_eq!(beside(Path::new("b"), "m"), Path::new("b.m.rl.json"));
    }
}
