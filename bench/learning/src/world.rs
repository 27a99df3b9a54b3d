//! The built-in model, its engine, and the private copy that learns: answers and train calls in text and token ids.
//! Does not know tasks nor rewards.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tiger_engine::train::default_learning_rate;
use tiger_engine::{
    AdapterId, BaseId, Config, Engine, Event, FinishReason, GenerateRequest, Group, Knobs, Progress, Recorded, Response, Sampling, Source,
    TrainEvent, TrainMetrics, TrainRequest,
};
use tiger_formats::{ChatTemplate, Checkpoint, Ending, Message, Render, Tokenizer};
use tiger_kernels::Cpu;
use tiger_model::{Adapter, AdapterState, Model, Precision};

/// Longest answer, tokens: every answer of the built-in model's world is shorter.
const MAX_TOKENS: u32 = 64;
/// The one base.
const BASE: &str = "nano";
/// A fixed date for templates that show one, so that a run repeats.
const NOW: Render<'static> = Render { ending: Ending::GenerationPrompt, tools: None, now_unix_s: 1_700_000_000 };

/// Anything that ends a run.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// One question of the closed world and the word that answers it.
#[derive(Debug, Clone, Deserialize)]
pub struct Question {
    /// The user's message.
    pub question: String,
    /// The key word.
    pub answer: String,
}

#[derive(Deserialize)]
struct QuestionFile {
    train: Vec<Question>,
    unseen: Vec<Question>,
}

/// One sampled answer.
#[derive(Debug, Clone)]
pub struct Said {
    /// Without the end of turn.
    pub text: String,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

/// Holds the model and every adapter revision in use.
struct Shelf {
    model: Arc<Model>,
    adapters: Mutex<HashMap<AdapterId, Arc<Adapter>>>,
}

impl Shelf {
    fn adapters(&self) -> std::sync::MutexGuard<'_, HashMap<AdapterId, Arc<Adapter>>> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Shelf {
    fn base(&self, _: &BaseId, _: Progress<'_>) -> Result<Arc<Model>, String> {
        Ok(Arc::clone(&self.model))
    }

    fn base_bytes(&self, _: &BaseId) -> Result<u64, String> {
        Ok(self.model.bytes())
    }

    fn adapter(&self, _: &BaseId, id: &AdapterId) -> Result<Arc<Adapter>, String> {
        self.adapters().get(id).cloned().ok_or_else(|| "no such revision".to_owned())
    }
}

/// Everything that runs share.
pub struct World {
    engine: Engine,
    shelf: Arc<Shelf>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    end_tokens: Vec<u32>,
    /// Revisions so far, of all learners: the engine keeps adapters by name, so no name may come twice.
    revisions: AtomicU64,
    /// Questions to train on.
    pub train: Vec<Question>,
    /// Questions to judge by.
    pub unseen: Vec<Question>,
}

/// A private copy on its way.
pub struct Learner {
    state: AdapterState,
    id: Option<AdapterId>,
}

impl World {
    /// Opens `models/nano` in `folder`.
    pub fn open(folder: &Path, threads: usize) -> Result<World, Error> {
        let questions: QuestionFile = serde_json::from_slice(&std::fs::read(folder.join("questions.json"))?)?;
        let folder = folder.join("checkpoint");
        let checkpoint = Checkpoint::open(&folder)?;
        let cpu = Cpu::new(threads, None);
        let model = Arc::new(Model::load(&cpu, &checkpoint, Precision::Bf16, &mut |_| {})?);
        let shelf = Arc::new(Shelf { model, adapters: Mutex::default() });
        let engine = Engine::start(Config { threads, ..Config::default() }, Arc::<Shelf>::clone(&shelf));
        let template = ChatTemplate::open(&folder)?.ok_or("the built-in model has a chat template")?;
        let tokenizer = Tokenizer::open(&folder)?;
        let end_tokens = checkpoint.config().eos_ids.clone();
        Ok(World {
            engine,
            shelf,
            tokenizer,
            template,
            end_tokens,
            revisions: AtomicU64::new(0),
            train: questions.train,
            unseen: questions.unseen,
        })
    }

    /// A fresh copy of the base.
    pub fn learner(&self, rank: usize, seed: u64) -> Learner {
        let adapter = Adapter::new(self.shelf.model.architecture(), rank, 2.0 * rank as f32, seed);
        Learner { state: AdapterState::new(adapter), id: None }
    }

    /// The default learning rate of the model.
    pub fn learning_rate(&self) -> f64 {
        default_learning_rate(self.shelf.model.architecture().hidden)
    }

    fn prompt(&self, question: &Question) -> Result<Vec<u32>, Error> {
        let text = self.template.render(&[Message::new("user", &question.question)], &NOW)?;
        Ok(self.tokenizer.encode(&text, false)?)
    }

    /// `samples` answers to each question; question i draws with seed `seed + i`.
    pub fn ask(
        &self,
        learner: &Learner,
        questions: &[Question],
        (samples, temperature, seed): (u32, f32, u64),
    ) -> Result<Vec<Vec<Said>>, Error> {
        let mut running = Vec::with_capacity(questions.len());
        for (i, question) in questions.iter().enumerate() {
            let sampling = Sampling { temperature, top_p: 1.0, top_k: 0, min_p: 0.0, seed: seed.wrapping_add(i as u64) };
            running.push(self.engine.handle().generate(GenerateRequest {
                base: BaseId(BASE.into()),
                adapter: learner.id,
                account: 0,
                prompt: self.prompt(question)?,
                samples,
                max_tokens: MAX_TOKENS,
                sampling,
                end_tokens: self.end_tokens.clone(),
                constraint: None,
                alternatives: 0,
            })?);
        }
        running.into_iter().map(|generation| self.collect(generation, samples)).collect()
    }

    fn collect(&self, mut generation: tiger_engine::Generation, samples: u32) -> Result<Vec<Said>, Error> {
        let mut said = vec![Said { text: String::new(), tokens: Vec::new(), logprobs: Vec::new() }; samples as usize];
        loop {
            match generation.events.blocking_recv() {
                Some(Event::Token { sample, id, logprob }) => {
                    said[sample as usize].tokens.push(id);
                    said[sample as usize].logprobs.push(logprob);
                }
                Some(Event::Finished { reason: FinishReason::Cancelled, .. }) | None => return Err("the engine stopped".into()),
                Some(Event::Failed(error)) => return Err(error.into()),
                Some(Event::Done) => break,
                Some(_) => {}
            }
        }
        for said in &mut said {
            let text: Vec<u32> = said.tokens.iter().copied().filter(|id| !self.end_tokens.contains(id)).collect();
            said.text = self.tokenizer.decode(&text);
        }
        Ok(said)
    }

    /// A question with sampled answers and their rewards.
    pub fn sampled(&self, question: &Question, said: Vec<(Said, f64)>) -> Result<Group, Error> {
        let response = |(said, reward): (Said, f64)| Response {
            tokens: said.tokens,
            reward,
            recorded: Some(Recorded { logprobs: said.logprobs, staleness: 0 }),
        };
        Ok(Group { prompt: self.prompt(question)?, responses: said.into_iter().map(response).collect() })
    }

    /// An answer that somebody wrote.
    pub fn written(&self, question: &Question, text: &str, reward: f64) -> Result<Response, Error> {
        let messages = [Message::new("user", &question.question)];
        let parts = self.template.prompt_parts(&messages, text, &NOW)?;
        let mut tokens = self.tokenizer.encode(&parts.response, false)?;
        if let Some(end) = tokens.iter().rposition(|token| self.end_tokens.contains(token)) {
            tokens.truncate(end + 1);
        }
        Ok(Response { tokens, reward, recorded: None })
    }

    /// One train call: the learner has the new weights, or the old ones where nothing was to be learnt.
    pub fn train(&self, learner: &mut Learner, groups: Vec<Group>, knobs: &Knobs) -> Result<TrainMetrics, Error> {
        let request = TrainRequest {
            base: BaseId(BASE.into()),
            account: 0,
            state: learner.state.clone(),
            reference: None,
            dropout: 0.0,
            groups,
            knobs: knobs.clone(),
        };
        let mut training = self.engine.handle().train(request)?;
        loop {
            match training.events.blocking_recv() {
                Some(TrainEvent::Done(outcome)) => {
                    if let Some(state) = outcome.state {
                        self.publish(learner, state);
                    }
                    return Ok(outcome.metrics);
                }
                Some(TrainEvent::Failed(error)) => return Err(error.into()),
                Some(_) => {}
                None => return Err("the engine stopped".into()),
            }
        }
    }

    fn publish(&self, learner: &mut Learner, state: AdapterState) {
        let mut name = [0; 32];
        name[..8].copy_from_slice(&self.revisions.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let mut adapters = self.shelf.adapters();
        if let Some(old) = learner.id.replace(AdapterId(name)) {
            adapters.remove(&old);
        }
        adapters.insert(AdapterId(name), Arc::new(state.adapter.clone()));
        learner.state = state;
    }
}
