//! What a run must remember to go on after it was stopped or killed: one JSON file, replaced as a whole. Does not know how steps are made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tiger_wire::TrainRequest;

use crate::best::Best;
use crate::failure::{CONFLICT, Failure};

/// One step that was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// From 1.
    pub step: u32,
    /// Mean reward of its responses.
    pub reward: f64,
    /// The model's revision after it.
    pub revision: u64,
}

/// One look at the held-out prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Steps trained before it.
    pub step: u32,
    /// Mean reward.
    pub reward: f64,
    /// Revision that answered.
    pub revision: u64,
}

/// Responses that are sampled and rewarded, on their way to be trained. Kept until the server has answered, so that a call whose answer was
/// lost is repeated letter for letter, which the server trains once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    /// The whole train request.
    pub request: TrainRequest,
    /// Mean reward of the responses in it.
    pub reward: f64,
    /// Responses without a reward, left out.
    pub skipped: usize,
    /// Seconds that sampling and rewarding took.
    pub sampling_s: f64,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// What makes it this run and no other, by the names of the command line.
    pub settings: Map<String, Value>,
    /// Begins every idempotency key.
    pub run: String,
    /// The model's revision when nothing is pending.
    pub revision: u64,
    /// Steps so far.
    pub steps: Vec<Step>,
    /// Looks so far.
    pub evaluations: Vec<Evaluation>,
    /// The best look so far, if there were any.
    pub best: Option<Best>,
    /// A step between sampling and the end of its training.
    pub pending: Option<Pending>,
}

impl State {
    /// A run that has done nothing yet.
    pub fn new(settings: Map<String, Value>, run: String, revision: u64) -> State {
        State { settings, run, revision, steps: Vec::new(), evaluations: Vec::new(), best: None, pending: None }
    }

    /// Steps trained.
    pub fn step(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Adds a look. Of equal ones the later is the best, whose training rewards are usually higher.
    pub fn evaluated(&mut self, reward: f64) {
        self.evaluations.push(Evaluation { step: self.step(), reward, revision: self.revision });
        if self.best.is_none_or(|best| reward >= best.score) {
            self.best = Some(Best { score: reward, revision: self.revision });
        }
    }
}

/// Where a run is kept.
pub struct Store {
    path: PathBuf,
}

impl Store {
    /// At this path.
    pub fn new(path: PathBuf) -> Store {
        Store { path }
    }

    /// For messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kept run, if there is one, and if it is the one with these settings.
    pub fn open(&self, settings: &Map<String, Value>) -> Result<Option<State>, Failure> {
        let name = self.path.display();
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::because(name, error)),
        };
        let state: State = serde_json::from_str(&text).map_err(|error| {
            Failure::new(format!(
                "{name} is no run of `tiger rl` ({error}); --state PATH keeps this run elsewhere, --restart writes over it"
            ))
        })?;
        let changed = differences(&state.settings, settings);
        if changed.is_empty() {
            return Ok(Some(state));
        }
        let message = format!(
            "{name} is a run with other arguments: {}. Give those to go on with it, --restart to begin anew, or --state PATH to keep this run beside it",
            changed.join("; ")
        );
        Err(Failure { code: CONFLICT, ..Failure::new(message) })
    }

    /// Writes the run: a new file beside it, flushed, then renamed, so that a crash leaves the old one or the new one.
    pub fn save(&self, state: &State) -> Result<(), Failure> {
        let write = || {
            let mut part = self.path.clone().into_os_string();
            part.push(".part");
            let mut file = std::fs::File::create(&part)?;
            std::io::Write::write_all(&mut file, &serde_json::to_vec(state)?)?;
            file.sync_all()?;
            std::fs::rename(&part, &self.path)
        };
        write().map_err(|error: std::io::Error| Failure::because(format!("cannot keep the run in {}", self.path.display()), error))
    }
}

fn differences(kept: &Map<String, Value>, now: &Map<String, Value>) -> Vec<String> {
    let names = now.keys().chain(kept.keys().filter(|name| !now.contains_key(*name)));
    let shown = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(value) => value.to_string(),
    };
    let changed = names.filter(|name| kept.get(*name) != now.get(*name));
    let describe = |name: &String| match name.strip_suffix(" sha256") {
        Some(file) => format!("{file} has other lines"),
        None => format!("{name} was {}, is {}", shown(kept.get(name)), shown(now.get(name))),
    };
    changed.map(describe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_run_comes_back_as_it_was_kept_and_only_with_its_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().join("run.json"));
        let mine = settings(serde_json::json!({"--samples": 8, "FILE sha256": "aa", "--learning-rate": null}));
        assert_eq!(store.open(&mine).unwrap(), None);
        let mut state = State::new(mine.clone(), "r".into(), 3);
        state.evaluated(0.1 + 0.2);
        state.steps.push(Step { step: 1, reward: 1.0 / 3.0, revision: 4 });
        store.save(&state).unwrap();
        assert_eq!(store.open(&mine).unwrap(), Some(state));
        let other = settings(serde_json::json!({"--samples": 4, "FILE sha256": "bb", "--learning-rate": 0.1}));
        let refused = store.open(&other).unwrap_err();
        assert_eq!(refused.code, CONFLICT);
        for says in ["--samples was 8, is 4", "FILE has other lines", "--learning-rate was nothing, is 0.1", "--restart"] {
            assert!(refused.message.contains(says), "{}", refused.message);
        }
        std::fs::write(store.path(), "{").unwrap();
        assert!(store.open(&mine).unwrap_err().message.contains("is no run"));
    }

    #[test]
    fn of_equal_looks_the_later_is_the_best() {
        let mut state = State::new(Map::new(), "r".into(), 0);
        for (revision, reward) in [(0, 0.5), (1, 0.7), (2, 0.7), (3, 0.6)] {
            state.revision = revision;
            state.evaluated(reward);
        }
        assert_eq!(state.best, Some(Best { score: 0.7, revision: 2 }));
    }
}
