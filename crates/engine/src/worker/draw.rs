//! Turns hidden states into tokens: logits in small blocks, each row's constraint, draw and log-prob on all threads. Where tokens were
//! drafted, the draws of a sequence go on for as long as each is the token that the next row was computed with.
//! Knows rows and settings; what a token means for its request is decided by the caller.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tiger_kernels::Cpu;
use tiger_kernels::ops::logprob::score_rows;
use tiger_model::{Model, RowScore};

use crate::request::{Constraint, EngineError, Sampling};
use crate::sample::sampler::{self, DrawError, DrawId, Scratch};
use crate::sample::sequence::SequenceKey;

/// Rows of logits that exist at once: enough for the head's matrix product to be bound by arithmetic, 33 MB at V = 128,256.
const LOGITS_ROWS: usize = 64;

/// The draws of one sample in one step.
pub(super) struct Draw {
    /// Sample that gets the tokens.
    pub key: SequenceKey,
    /// Running sequence whose rows they are: `key` itself, or the first sample when the others start.
    pub parent: SequenceKey,
    /// Grant of the parent.
    pub grant: usize,
    /// Rows of the hidden states: the last known token's, then those of drafted tokens.
    pub rows: Range<usize>,
    /// Of the first token.
    pub id: DrawId,
    pub sampling: Sampling,
    /// How many of the most probable tokens are told beside each.
    pub alternatives: usize,
    pub constraint: Option<Box<dyn Constraint>>,
    /// What was drawn, one token a row from the first on.
    pub tokens: Vec<Drawn>,
    pub outcome: Outcome,
}

/// One token.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub id: u32,
    pub logprob: f32,
    /// Most probable first; empty where none were asked for.
    pub alternatives: Vec<(u32, f32)>,
    /// The constraint allows nothing after it.
    pub complete: bool,
}

/// How the draws of a sample ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// The next row is to be drawn from.
    Open,
    /// All rows that are of use gave a token.
    Drawn,
    /// The constraint was finished before.
    Complete,
    Failed(EngineError),
}

/// What a step gives to draw from.
pub(super) struct Rows<'a> {
    /// [R, C]
    pub hidden: &'a [f32],
    /// Tokens of the step.
    pub tokens: &'a [u32],
    /// [R], place in `tokens` of each row of `hidden`.
    pub outputs: &'a [usize],
}

impl Rows<'_> {
    /// The token that a row was computed with.
    fn token(&self, row: usize) -> u32 {
        self.tokens[self.outputs[row]]
    }
}

/// Buffers that live from step to step.
#[derive(Default)]
pub(super) struct DrawBuffers {
    /// The draws of a step, each behind a lock for the thread that draws it.
    pub draws: Vec<Mutex<Draw>>,
    logits: Vec<f32>,
    targets: Vec<u32>,
    scores: Vec<RowScore>,
    scratch: Mutex<Vec<Scratch>>,
}

/// A block of logits [rows, V].
struct Block<'a> {
    first: usize,
    last: usize,
    vocab: usize,
    logits: &'a [f32],
}

impl Block<'_> {
    fn logits(&self, row: usize) -> &[f32] {
        &self.logits[(row - self.first) * self.vocab..][..self.vocab]
    }
}

/// Draws every token; the draws ascend by row.
pub(super) fn draw_all(cpu: &Cpu, model: &Model, rows: &Rows<'_>, draws: &mut [Mutex<Draw>], buffers: &mut DrawBuffers) {
    let (c, vocab) = (model.architecture().hidden, model.architecture().vocab);
    let mut logits = std::mem::take(&mut buffers.logits);
    for (block, hidden) in rows.hidden.chunks(LOGITS_ROWS * c).enumerate() {
        model.logits(cpu, hidden, &mut logits);
        let first = block * LOGITS_ROWS;
        let block = Block { first, last: first + hidden.len() / c, vocab, logits: &logits };
        let before = draws.iter_mut().map(own).take_while(|draw| draw.rows.end <= block.first).count();
        let within = draws[before..].iter_mut().map(own).take_while(|draw| draw.rows.start < block.last).count();
        let draws = &mut draws[before..before + within];
        cpu.run(draws.len(), &|i| {
            let mut own = lock(&buffers.scratch).pop().unwrap_or_default();
            draw_rows(rows, &block, &mut lock(&draws[i]), &mut own);
            lock(&buffers.scratch).push(own);
        });
        score(cpu, &block, draws, buffers);
    }
    buffers.logits = logits;
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own<T>(slot: &mut Mutex<T>) -> &mut T {
    slot.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Draws for one sample from the rows that it has in this block.
fn draw_rows(rows: &Rows<'_>, block: &Block<'_>, draw: &mut Draw, scratch: &mut Scratch) {
    while draw.outcome == Outcome::Open {
        let row = draw.rows.start + draw.tokens.len();
        if row >= block.last {
            return;
        }
        // Constraints are foreign code: a panic there ends one request, not the step.
        let drawn = catch_unwind(AssertUnwindSafe(|| draw_one(block.logits(row), draw, scratch))).unwrap_or_else(|panic| {
            tracing::error!(panic = super::panic_text(&*panic), "a draw panicked");
            Err(Outcome::Failed(EngineError::Internal))
        });
        match drawn {
            Ok(token) => {
                let goes_on = !token.complete && row + 1 < draw.rows.end && rows.token(row + 1) == token.id;
                draw.tokens.push(token);
                if !goes_on {
                    draw.outcome = Outcome::Drawn;
                }
            }
            Err(outcome) => draw.outcome = outcome,
        }
    }
}

/// Log-probs of the tokens drawn from this block, by the same function as in training: a sampled token's and the trainer's are the same
/// number.
fn score(cpu: &Cpu, block: &Block<'_>, draws: &mut [Mutex<Draw>], buffers: &mut DrawBuffers) {
    let DrawBuffers { targets, scores, .. } = buffers;
    targets.clear();
    targets.resize(block.last - block.first, 0);
    scores.clear();
    scores.resize(block.last - block.first, RowScore::default());
    // Other samples that begin from their parent's row come after; what an earlier block gave is scored.
    let firsts = |draw: &Draw| draw.key == draw.parent;
    let from = |draw: &Draw| block.first.saturating_sub(draw.rows.start);
    for draw in draws.iter_mut().map(own).filter(|draw| firsts(draw)) {
        for (i, drawn) in draw.tokens.iter().enumerate().skip(from(draw)) {
            targets[draw.rows.start + i - block.first] = drawn.id;
        }
    }
    score_rows(cpu, block.logits, block.vocab, targets, scores);
    for draw in draws.iter_mut().map(own) {
        let (start, from) = (draw.rows.start, from(draw));
        let (own_rows, alternatives) = (firsts(draw), draw.alternatives);
        for (i, drawn) in draw.tokens.iter_mut().enumerate().skip(from) {
            let mut score = [RowScore::default()];
            if own_rows {
                score[0] = scores[start + i - block.first];
            } else {
                score_rows(cpu, block.logits(start + i), block.vocab, &[drawn.id], &mut score);
            }
            drawn.logprob = score[0].logprob;
            let best = sampler::most_probable(block.logits(start + i), alternatives).into_iter();
            // The drawn token has one log-prob, wherever it is told.
            let logprob = |(logit, token): (f32, u32)| if token == drawn.id { drawn.logprob } else { (logit - score[0].lse).min(0.0) };
            drawn.alternatives = best.map(|(logit, token)| (token, logprob((logit, token)))).collect();
        }
    }
}

/// The next token of a sample, its log-prob still open.
fn draw_one(logits: &[f32], draw: &mut Draw, scratch: &mut Scratch) -> Result<Drawn, Outcome> {
    let refused = |text: String| Outcome::Failed(EngineError::Constraint(text));
    let mut mask = None;
    if let Some(constraint) = &mut draw.constraint {
        if constraint.is_done() {
            return Err(Outcome::Complete);
        }
        mask = Some(constraint.mask().map_err(refused)?);
    }
    let place = DrawId { position: draw.id.position + draw.tokens.len(), ..draw.id };
    let id = match sampler::draw(logits, mask.as_ref(), &draw.sampling, place, scratch) {
        Ok(id) => id,
        Err(DrawError::NothingAllowed) => return Err(refused("the grammar allows no token here".into())),
        Err(DrawError::NotFinite) => {
            tracing::error!(request = draw.key.request, "the model's logits are not finite");
            return Err(Outcome::Failed(EngineError::Internal));
        }
    };
    let mut complete = false;
    if let Some(constraint) = &mut draw.constraint {
        constraint.accept(id).map_err(refused)?;
        complete = constraint.is_done();
    }
    Ok(Drawn { id, logprob: 0.0, alternatives: Vec::new(), complete })
}
