//! Times answers with and without drafts, in turns: one that copies, one that misleads the drafts, one that repeats nothing.
//! Knows what the answers say; neither how drafts are made nor the machine's limits.

use std::sync::Arc;

use tiger_engine::{BaseId, Constraint, GenerateRequest, Sampling, Speculation, TokenMask};
use tiger_model::Model;

use super::engine::{Drafted, timed};
use crate::failure::Failure;

/// Tokens of the prompt and of the answer.
const PROMPT: u32 = 256;
const ANSWER: u32 = 192;
/// A copied text has another token after so many: an edit of a program.
const EDIT: u32 = 32;
/// Tokens that a misleading answer is drawn from: nearly every pair of them came before, and says nothing of what follows.
const FEW: u32 = 16;

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The prompt again, every so often with another token.
    Copy,
    /// Few different tokens in no order: much seems to repeat and nothing does.
    Traps,
    /// Whatever the model draws at temperature 1.
    New,
}

impl Answer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Copy => "copied text",
            Self::Traps => "misleading text",
            Self::New => "new text",
        }
    }

    /// The answer, where it does not come of the model.
    fn script(self, prompt: &[u32], vocab: u32) -> Option<Vec<u32>> {
        let token = |i: u32| match self {
            Self::Copy if i % EDIT == EDIT - 1 => noise(i ^ (1 << 20)) % vocab,
            Self::Copy => prompt[i as usize % prompt.len()],
            _ => noise(i ^ (1 << 21)) % FEW,
        };
        (self != Self::New).then(|| (0..ANSWER).map(token).collect())
    }
}

/// Allows one token after the other of a script: synthetic weights copy nothing of themselves, and every model shall be measured alike.
struct Script {
    tokens: Vec<u32>,
    at: usize,
    vocab: usize,
}

impl Constraint for Script {
    fn mask(&mut self) -> Result<TokenMask, String> {
        let token = *self.tokens.get(self.at).ok_or("the script is over")?;
        let mut mask = vec![0; self.vocab.div_ceil(32)];
        mask[token as usize / 32] = 1 << (token % 32);
        Ok(mask)
    }

    fn accept(&mut self, _: u32) -> Result<(), String> {
        self.at += 1;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.at == self.tokens.len()
    }
}

/// Seconds per token of so many streams together with drafts, and without; the drafts.
pub(super) fn seconds_per_token(model: &Arc<Model>, threads: usize, answer: Answer, streams: u32) -> Result<([f64; 2], Drafted), Failure> {
    let vocab = model.architecture().vocab;
    let prompt: Vec<u32> = (0..PROMPT).map(|i| noise(i) % vocab as u32).collect();
    let ask = |speculation| {
        let script = answer.script(&prompt, vocab as u32);
        let request = GenerateRequest {
            base: BaseId("bench".into()),
            adapter: None,
            account: 0,
            prompt: prompt.clone(),
            samples: streams,
            max_tokens: ANSWER,
            sampling: Sampling { temperature: 1.0, top_p: 1.0, top_k: 0, min_p: 0.0, seed: 1 },
            end_tokens: Vec::new(),
            constraint: script.map(|tokens| -> Box<dyn Fn() -> _ + Send> {
                Box::new(move || Ok(Box::new(Script { tokens: tokens.clone(), at: 0, vocab }) as Box<dyn Constraint>))
            }),
            alternatives: 0,
        };
        timed(model, threads, speculation, request)
    };
    let (without, _) = ask(Speculation::Off)?;
    let (with, drafted) = ask(Speculation::Auto)?;
    Ok(([with, without], drafted))
}

/// Numbers without an order, the same on every machine (the finaliser of MurmurHash3).
fn noise(i: u32) -> u32 {
    let mut x = i.wrapping_mul(0x9e37_79b9);
    for factor in [0x85eb_ca6b, 0xc2b2_ae35_u32] {
        x = (x ^ (x >> 15)).wrapping_mul(factor);
    }
    x ^ (x >> 16)
}
