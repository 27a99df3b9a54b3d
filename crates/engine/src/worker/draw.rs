//! Turns hidden states into tokens: logits in small blocks, each row's constraint, draw and log-prob on all threads.
//! Knows rows and settings; what a token means for its request is decided by the caller.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use tiger_kernels::Cpu;
use tiger_kernels::ops::logprob::score_rows;
use tiger_model::{Model, RowScore};

use crate::request::{Constraint, EngineError, Sampling};
use crate::sample::sampler::{self, DrawError, DrawId, Scratch};
use crate::sample::sequence::SequenceKey;

/// Rows of logits that exist at once: enough for the head's matrix product to be bound by arithmetic, 33 MB at V = 128,256.
const LOGITS_ROWS: usize = 64;

/// One token to draw.
pub(super) struct Draw {
    /// Sample that gets it.
    pub key: SequenceKey,
    /// Running sequence whose row it is: `key` itself, or the first sample when the others start.
    pub parent: SequenceKey,
    /// Row of the hidden states.
    pub row: usize,
    pub id: DrawId,
    pub sampling: Sampling,
    pub constraint: Option<Box<dyn Constraint>>,
    pub outcome: Outcome,
}

/// What a draw gave.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Not drawn yet.
    Open,
    /// A token; `complete`: the constraint allows nothing after it.
    Token {
        id: u32,
        logprob: f32,
        complete: bool,
    },
    /// The constraint was finished before.
    Complete,
    Failed(EngineError),
}

/// Buffers that live from step to step.
#[derive(Default)]
pub(super) struct DrawBuffers {
    logits: Vec<f32>,
    targets: Vec<u32>,
    scores: Vec<RowScore>,
    scratch: Mutex<Vec<Scratch>>,
}

/// Draws every token; `hidden` is [rows, C], `draws` ascend by row.
pub(super) fn draw_all(cpu: &Cpu, model: &Model, hidden: &[f32], draws: Vec<Draw>, buffers: &mut DrawBuffers) -> Vec<Draw> {
    let c = model.architecture().hidden;
    let mut done = Vec::with_capacity(draws.len());
    let mut draws = draws.into_iter().peekable();
    for (block, hidden) in hidden.chunks(LOGITS_ROWS * c).enumerate() {
        let first = block * LOGITS_ROWS;
        let mut slots = Vec::new();
        while let Some(draw) = draws.next_if(|d| d.row < first + LOGITS_ROWS) {
            slots.push(Mutex::new(draw));
        }
        model.logits(cpu, hidden, &mut buffers.logits);
        draw_block(cpu, model.architecture().vocab, first, &slots, buffers);
        done.extend(slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)));
    }
    done
}

/// Draws from one block of logits, whose first row is row `first` of the step.
fn draw_block(cpu: &Cpu, v: usize, first: usize, slots: &[Mutex<Draw>], buffers: &mut DrawBuffers) {
    let DrawBuffers { logits, targets, scores, scratch } = buffers;
    let scratch = &*scratch;
    let rows = logits.len() / v;
    let row = |draw: &Draw| &logits[(draw.row - first) * v..][..v];
    cpu.run(slots.len(), &|i| {
        let mut draw = slots[i].lock().unwrap_or_else(PoisonError::into_inner);
        if draw.outcome != Outcome::Open {
            return;
        }
        let mut own = scratch.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let logits = row(&draw);
        // Constraints are foreign code: a panic there ends one request, not the step.
        draw.outcome = catch_unwind(AssertUnwindSafe(|| draw_one(logits, &mut draw, &mut own))).unwrap_or_else(|panic| {
            tracing::error!(panic = super::panic_text(&*panic), "a draw panicked");
            Outcome::Failed(EngineError::Internal)
        });
        scratch.lock().unwrap_or_else(PoisonError::into_inner).push(own);
    });
    // The same function as in training: a sampled token's log-prob and the trainer's are the same number.
    targets.clear();
    targets.resize(rows, 0);
    scores.clear();
    scores.resize(rows, RowScore::default());
    let mut scored = vec![false; rows];
    let mut more = Vec::new();
    for slot in slots {
        let draw = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let Outcome::Token { id, .. } = draw.outcome else { continue };
        if std::mem::replace(&mut scored[draw.row - first], true) {
            more.push(slot);
        } else {
            targets[draw.row - first] = id;
        }
    }
    score_rows(cpu, logits, v, targets, scores);
    for slot in slots {
        let mut draw = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let score = scores[draw.row - first].logprob;
        if let Outcome::Token { logprob, .. } = &mut draw.outcome {
            *logprob = score;
        }
    }
    // Other samples that begin from the same row.
    for slot in more {
        let mut draw = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let mut score = [RowScore::default()];
        let logits = row(&draw);
        if let Outcome::Token { id, logprob, .. } = &mut draw.outcome {
            score_rows(cpu, logits, v, &[*id], &mut score);
            *logprob = score[0].logprob;
        }
    }
}

fn draw_one(logits: &[f32], draw: &mut Draw, scratch: &mut Scratch) -> Outcome {
    let refused = |text: String| Outcome::Failed(EngineError::Constraint(text));
    let mut mask = None;
    if let Some(constraint) = &mut draw.constraint {
        if constraint.is_done() {
            return Outcome::Complete;
        }
        match constraint.mask() {
            Ok(allowed) => mask = Some(allowed),
            Err(text) => return refused(text),
        }
    }
    let id = match sampler::draw(logits, mask.as_ref(), &draw.sampling, draw.id, scratch) {
        Ok(id) => id,
        Err(DrawError::NothingAllowed) => return refused("the grammar allows no token here".into()),
        Err(DrawError::NotFinite) => {
            tracing::error!(request = draw.key.request, "the model's logits are not finite");
            return Outcome::Failed(EngineError::Internal);
        }
    };
    let mut complete = false;
    if let Some(constraint) = &mut draw.constraint {
        if let Err(text) = constraint.accept(id) {
            return refused(text);
        }
        complete = constraint.is_done();
    }
    Outcome::Token { id, logprob: 0.0, complete }
}
