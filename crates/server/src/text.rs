//! From sampled tokens to text: whole characters only, the reasoning part apart, stop strings cut off, wherever token borders fall.
//! The outcome depends on the text alone, never on how it was cut into pieces. Does not know requests or chunks.

use tiger_formats::DecodeStream;

use crate::bases::{THINK_CLOSE, THINK_OPEN};

/// Text that became certain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// Of the answer.
    pub content: String,
    /// Of the reasoning before it.
    pub reasoning: String,
}

/// Turns one response's tokens into pieces.
pub struct Assembler {
    decoder: Option<DecodeStream>,
    split: Option<ThinkSplit>,
    stops: StopMatcher,
    /// Content bytes that the matcher had before and after each token.
    spans: Vec<(usize, usize)>,
    seen_bytes: usize,
}

impl Assembler {
    /// `split` for reasoning models.
    pub fn new(decoder: DecodeStream, split: Option<ThinkSplit>, stops: &[String]) -> Assembler {
        Assembler { decoder: Some(decoder), split, stops: StopMatcher::new(stops), spans: Vec::new(), seen_bytes: 0 }
    }

    /// A stop string was found; nothing more is text.
    pub fn stopped(&self) -> bool {
        self.stops.stopped
    }

    /// Takes a token that is no end token.
    pub fn push(&mut self, token: u32) -> Piece {
        let text = self.decoder.as_mut().and_then(|decoder| decoder.push(token)).unwrap_or_default();
        let before = self.seen_bytes;
        let piece = self.text(&text);
        self.spans.push((before, self.seen_bytes));
        piece
    }

    /// Takes a token that adds no text (an end token).
    pub fn push_silent(&mut self) {
        self.spans.push((self.seen_bytes, self.seen_bytes));
    }

    fn text(&mut self, text: &str) -> Piece {
        let (reasoning, content) = match &mut self.split {
            None => (String::new(), text.to_owned()),
            Some(split) => split.push(text),
        };
        self.seen_bytes += content.len();
        Piece { content: self.stops.push(&content), reasoning }
    }

    /// Gives what was held back. A character of which only a part was sampled is dropped.
    pub fn finish(&mut self) -> Piece {
        let rest = self.decoder.take().map(DecodeStream::finish).unwrap_or_default();
        let mut piece = self.text(rest.trim_end_matches(char::REPLACEMENT_CHARACTER));
        if let Some(split) = &mut self.split {
            let (reasoning, content) = split.finish();
            piece.reasoning.push_str(&reasoning);
            self.seen_bytes += content.len();
            piece.content.push_str(&self.stops.push(&content));
        }
        piece.content.push_str(&self.stops.finish());
        piece
    }

    /// How many tokens the recorded response keeps: all, or with a stop string those that begin before it.
    pub fn kept_tokens(&self) -> usize {
        if self.stops.stopped { self.certain_tokens() } else { self.spans.len() }
    }

    /// How many tokens certainly stay, whatever follows: those that begin before what is held back.
    pub fn certain_tokens(&self) -> usize {
        let cut = self.stops.emitted_bytes;
        let beyond = |&(before, after): &(usize, usize)| before >= cut && after > 0;
        self.spans.iter().position(beyond).unwrap_or(self.spans.len())
    }
}

/// Finds stop strings in text that comes in pieces. The match that ends first wins; of those that end together, the one that begins first.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    stopped: bool,
    emitted_bytes: usize,
}

impl StopMatcher {
    /// Empty strings are ignored.
    pub fn new(stops: &[String]) -> StopMatcher {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        StopMatcher { stops, held: String::new(), stopped: false, emitted_bytes: 0 }
    }

    /// Takes text, gives what can no longer be part of a stop string.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str()).map(|at| (at + stop.len(), at))).min();
        let certain = match found {
            Some((_, at)) => {
                self.stopped = true;
                at
            }
            None => self.held.len() - self.stops.iter().map(|stop| held_back(&self.held, stop)).max().unwrap_or(0),
        };
        let rest = self.held.split_off(certain);
        let out = std::mem::replace(&mut self.held, rest);
        self.emitted_bytes += out.len();
        out
    }

    /// Gives what was held back.
    pub fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        let out = std::mem::take(&mut self.held);
        self.emitted_bytes += out.len();
        out
    }
}

/// Bytes at the end of `text` that may begin `mark`: the longest proper beginning of `mark` that `text` ends with.
fn held_back(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest).rev().find(|&n| mark.is_char_boundary(n) && text.ends_with(&mark[..n])).unwrap_or(0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nothing but white space so far: `<think>` may follow.
    Start,
    /// Right behind `<think>`: white space is dropped.
    Opened,
    Thinking,
    /// Right behind `</think>`: white space is dropped.
    Closed,
    Content,
}

/// Separates `<think>…</think>` at the beginning of a response from what follows; white space around both is dropped.
#[derive(Debug, Clone)]
pub struct ThinkSplit {
    part: Part,
    held: String,
}

impl ThinkSplit {
    /// `opened`: the prompt ends with `<think>` already.
    pub fn new(opened: bool) -> ThinkSplit {
        ThinkSplit { part: if opened { Part::Opened } else { Part::Start }, held: String::new() }
    }

    /// Takes text, gives (reasoning, content) that became certain.
    pub fn push(&mut self, text: &str) -> (String, String) {
        let (mut reasoning, mut content) = (String::new(), String::new());
        self.held.push_str(text);
        loop {
            let before = (self.part, self.held.len());
            self.advance(&mut reasoning, &mut content);
            if before == (self.part, self.held.len()) {
                return (reasoning, content);
            }
        }
    }

    fn advance(&mut self, reasoning: &mut String, content: &mut String) {
        match self.part {
            Part::Start => {
                let trimmed = self.held.trim_start();
                if let Some(rest) = trimmed.strip_prefix(THINK_OPEN) {
                    self.held = rest.to_owned();
                    self.part = Part::Opened;
                } else if !THINK_OPEN.starts_with(trimmed) {
                    self.part = Part::Content;
                }
            }
            Part::Opened | Part::Closed => {
                self.held = self.held.trim_start().to_owned();
                if !self.held.is_empty() {
                    self.part = if self.part == Part::Opened { Part::Thinking } else { Part::Content };
                }
            }
            Part::Thinking => {
                if let Some((thought, rest)) = self.held.split_once(THINK_CLOSE) {
                    reasoning.push_str(thought.trim_end());
                    self.held = rest.to_owned();
                    self.part = Part::Closed;
                } else {
                    // White space may turn out to be the last before the mark.
                    let certain = self.held[..self.held.len() - held_back(&self.held, THINK_CLOSE)].trim_end().len();
                    let rest = self.held.split_off(certain);
                    reasoning.push_str(&std::mem::replace(&mut self.held, rest));
                }
            }
            Part::Content => content.push_str(&std::mem::take(&mut self.held)),
        }
    }

    /// Gives what was held back.
    pub fn finish(&mut self) -> (String, String) {
        let held = std::mem::take(&mut self.held);
        match self.part {
            Part::Start | Part::Content => (String::new(), held),
            Part::Opened | Part::Closed => (String::new(), String::new()),
            Part::Thinking => (held, String::new()),
        }
    }
}

#[cfg(test)]
#[path = "text_tests.rs"]
mod tests;
