//! What callers ask of the engine and what it answers, in token ids.
//! Does not know how a request is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::train::{Outcome, StepMetrics};

/// Names a base model to the [`Source`](crate::Source); the engine never looks inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BaseId(pub Arc<str>);

/// Content id (sha256) of one adapter revision. Prefixes and slots are keyed by it, never by a model's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub [u8; 32]);

/// How a token is drawn from the logits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; else logits are divided by it.
    pub temperature: f32,
    /// Nucleus: smallest set of most probable tokens with at least this probability; 1 keeps all.
    pub top_p: f32,
    /// The k most probable tokens; 0 keeps all.
    pub top_k: u32,
    /// Tokens at least this fraction of the most probable one's probability; 0 keeps all.
    pub min_p: f32,
    /// Key of the counter-based generator: draw (seed, sample, position) is independent of everything else in the batch.
    pub seed: u64,
}

/// Which tokens may come next: one bit a token, 32 a word, lowest bit first.
pub type TokenMask = Vec<u32>;

/// Constrains one sample's tokens (a grammar, outside the engine).
pub trait Constraint: Send {
    /// Allowed next tokens. An error ends the request.
    fn mask(&mut self) -> Result<TokenMask, String>;
    /// Tells which token was drawn. An error ends the request.
    fn accept(&mut self, token: u32) -> Result<(), String>;
    /// The text may end here and nothing else may follow.
    fn is_done(&self) -> bool;
}

/// Makes a fresh constraint for each sample of a request.
pub type ConstraintFactory = Box<dyn Fn() -> Result<Box<dyn Constraint>, String> + Send>;

/// Asks for `samples` independent continuations of one prompt.
pub struct GenerateRequest {
    /// Base model.
    pub base: BaseId,
    /// Adapter revision, None for the base itself.
    pub adapter: Option<AdapterId>,
    /// Whose turn it is: the key of fair scheduling.
    pub account: u64,
    /// Prompt; at least one token.
    pub prompt: Vec<u32>,
    /// Number of continuations, ≥ 1; the prompt is computed once.
    pub samples: u32,
    /// Most tokens of one continuation, ≥ 1; the caller has checked it against the context length.
    pub max_tokens: u32,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// A continuation ends after any of these (the token itself is reported).
    pub end_tokens: Vec<u32>,
    /// Grammar, if any.
    pub constraint: Option<ConstraintFactory>,
    /// How many of the most probable tokens are told beside each drawn one; at most [`MAX_ALTERNATIVES`].
    pub alternatives: usize,
}

/// Most alternatives of a token: each answer's size grows with it.
pub const MAX_ALTERNATIVES: usize = 64;

/// Why a continuation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// One of the end tokens, or a finished constraint.
    EndOfTurn,
    /// `max_tokens` reached.
    MaxTokens,
    /// The caller cancelled this sample.
    Cancelled,
}

/// What happens to a generate request, in order. After `Done` or `Failed` nothing follows.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Something loads or the request waits in line.
    Info {
        /// Stage in a few words, e.g. `Loading model`.
        message: String,
        /// 0..1 where known.
        progress: Option<f32>,
    },
    /// The prompt is computed; `cached_tokens` of it came from the prefix cache.
    Started {
        /// Tokens not computed again.
        cached_tokens: u32,
    },
    /// One token of one sample, end tokens included.
    Token {
        /// Index of the sample.
        sample: u32,
        /// Token id.
        id: u32,
        /// Natural log of its probability at temperature 1, untruncated.
        logprob: f32,
        /// The most probable tokens in its place with theirs, falling; as many as were asked for.
        alternatives: Vec<(u32, f32)>,
    },
    /// A sample ended.
    Finished {
        /// Index of the sample.
        sample: u32,
        /// Why.
        reason: FinishReason,
    },
    /// All samples ended.
    Done,
    /// The request ended without an answer.
    Failed(EngineError),
}

/// Why a request failed after it was admitted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The base or adapter could not be loaded; the text is for the operator and the caller.
    #[error("{0}")]
    Load(String),
    /// A constraint refused to go on.
    #[error("{0}")]
    Constraint(String),
    /// Training produced a loss or gradient that is not finite; nothing changed.
    #[error("training diverged: {0}")]
    Diverged(String),
    /// The caller's request is invalid in a way only the engine could see.
    #[error("{0}")]
    Invalid(String),
    /// The memory budget cannot hold this request at all.
    #[error("{0}")]
    OutOfMemory(String),
    /// The caller hung up or the engine is stopping.
    #[error("cancelled")]
    Cancelled,
    /// Our fault; details are in the log only.
    #[error("internal error")]
    Internal,
}

/// A running generate request. Dropping it is a hang-up: its place and pages are freed when the next batch is built.
pub struct Generation {
    /// Events in order.
    pub events: UnboundedReceiver<Event>,
    pub(crate) cancelled: Arc<[AtomicBool]>,
}

impl Generation {
    /// Ends one sample (a stop string was seen); it is reported as [`FinishReason::Cancelled`].
    pub fn cancel(&self, sample: u32) {
        if let Some(flag) = self.cancelled.get(sample as usize) {
            flag.store(true, Ordering::Relaxed);
        }
    }
}

/// What happens to a train request, in order. After `Done` or `Failed` nothing follows.
#[derive(Debug)]
pub enum TrainEvent {
    /// Something loads or the request waits in line.
    Info {
        /// Stage in a few words.
        message: String,
        /// 0..1 where known.
        progress: Option<f32>,
    },
    /// One optimizer step ended (or a micro-batch, where `metrics` is None).
    Progress {
        /// Steps done, 1-based.
        step: u32,
        /// Steps asked for.
        steps: u32,
        /// Numbers of this step.
        metrics: Option<StepMetrics>,
    },
    /// Training ended well.
    Done(Box<Outcome>),
    /// Training ended without a result; nothing changed.
    Failed(EngineError),
}

/// A running train request. Dropping it cancels at the next micro-batch border.
pub struct Training {
    /// Events in order.
    pub events: UnboundedReceiver<TrainEvent>,
}
