//! Drafts: what a sequence will probably say next, because it said the same before (prompt lookup), and how often that was right.
//! Knows one sequence's tokens. Whether a draft is worth a row is decided elsewhere; a wrong one costs time, never a result.

use std::collections::HashMap;

/// Most tokens of one draft: with the certain token one page of rows, beyond which a row is as dear as in a prompt.
pub const MAX_DRAFT: usize = 15;

/// Tokens of a sequence in which repetition is looked for: at most 40 bytes each, 1.3 MB a sequence.
const INDEXED_TOKENS: usize = 1 << 15;

/// Earlier places of the last two tokens that are compared when a match is looked for; later ones are more alike.
const PLACES: usize = 16;

/// Longest match that is measured: odds hardly grow beyond it.
const LONGEST_MATCH: usize = 32;

/// Kinds of matches with a record of their own, by length: 2 and 3, 4 to 7, 8 to 15, more.
const KINDS: usize = 4;

/// Share of its record that a kind keeps at each guess: about the last 32 count.
const KEPT: f32 = 31.0 / 32.0;

/// Odds of the shortest matches before anything is known, and guesses that this counts for (likewise of a kind for the next longer one).
const FIRST_ODDS: f32 = 0.25;
const FIRST_GUESSES: f32 = 2.0;

/// A draft ends where a row would be used less often than this: no machine computes it for so little.
const LEAST_ODDS: f32 = 0.05;

/// The tokens of a sequence.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// Prompt.
    pub prompt: &'a [u32],
    /// Tokens drawn.
    pub generated: &'a [u32],
}

impl Text<'_> {
    fn len(self) -> usize {
        self.prompt.len() + self.generated.len()
    }

    fn token(self, position: usize) -> u32 {
        match self.prompt.get(position) {
            Some(token) => *token,
            None => self.generated[position - self.prompt.len()],
        }
    }
}

/// The end of the text is like an earlier part of it.
#[derive(Debug, Clone, Copy)]
struct Match {
    /// Position of the token that followed then.
    next: usize,
    /// Tokens that are alike.
    length: usize,
}

/// How often guesses of one kind were right; older ones count less.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    guesses: f32,
    right: f32,
}

/// Guesses the next tokens of one sequence. Every drawn token is compared with the guess for it, drafted or not: so the odds are known
/// before the first row is spent on a draft.
#[derive(Debug, Default)]
pub struct Drafter {
    /// Latest place of each pair of neighbours: the second one's position less `first`.
    latest: HashMap<(u32, u32), u32>,
    /// For each token from position `first` on the place before with the same pair; its own place if there is none.
    earlier: Vec<u32>,
    first: usize,
    guess: Option<Match>,
    records: [Record; KINDS],
    draft: Vec<u32>,
}

impl Drafter {
    /// The last draft.
    pub fn draft(&self) -> &[u32] {
        &self.draft
    }

    /// Chance that each token of the last draft is reached and right, falling.
    pub fn odds(&self) -> impl Iterator<Item = f32> + '_ {
        let length = self.guess.map_or(0, |guess| guess.length);
        let chances = (0..self.draft.len()).map(move |i| self.chance(kind(length + i)));
        chances.scan(1.0, |all, one| {
            *all *= one;
            Some(*all)
        })
    }

    /// Drafts what comes after `text`, at most `limit` tokens; none where nothing repeats. The text may only have grown since the last
    /// call. An end token is never drafted, nor anything behind it: no row comes after it.
    pub fn propose(&mut self, text: Text<'_>, limit: usize, end_tokens: &[u32]) {
        self.follow(text);
        self.draft.clear();
        let Some(guess) = self.guess else { return };
        let mut odds = 1.0;
        for i in 0..limit.min(MAX_DRAFT) {
            odds *= self.chance(kind(guess.length + i));
            if odds < LEAST_ODDS {
                break;
            }
            self.repeat(text, guess.next + i);
            if self.draft.last().is_some_and(|token| end_tokens.contains(token)) {
                self.draft.pop();
                break;
            }
        }
    }

    /// A draft whatever the odds and wherever the answer ends, for tests: the guess, or what the text begins with; its length changes from
    /// step to step.
    pub fn propose_anything(&mut self, text: Text<'_>) {
        self.follow(text);
        self.draft.clear();
        let next = self.guess.map_or(0, |guess| guess.next);
        for position in next..next + 1 + text.len() % MAX_DRAFT {
            self.repeat(text, position);
        }
    }

    /// Drafts the token of an earlier position. A repetition that reaches the end of the text goes on in the draft itself.
    fn repeat(&mut self, text: Text<'_>, position: usize) {
        self.draft.push(if position < text.len() { text.token(position) } else { self.draft[position - text.len()] });
    }

    /// Takes in what the text grew by.
    fn follow(&mut self, text: Text<'_>) {
        if text.len() - self.first > INDEXED_TOKENS {
            // The older half is forgotten; the records stay.
            self.latest.clear();
            self.earlier.clear();
            self.first = text.len() - INDEXED_TOKENS / 2;
            self.guess = None;
        }
        for at in self.first + self.earlier.len()..text.len() {
            self.take(text, at);
        }
    }

    fn take(&mut self, text: Text<'_>, at: usize) {
        let token = text.token(at);
        if let Some(guess) = self.guess.take() {
            let right = text.token(guess.next) == token;
            let record = &mut self.records[kind(guess.length)];
            record.guesses = record.guesses * KEPT + 1.0;
            record.right = record.right * KEPT + f32::from(u8::from(right));
            self.guess = right.then_some(Match { next: guess.next + 1, length: guess.length + 1 });
        }
        let place = (at - self.first) as u32;
        let before = if place > 0 { self.latest.insert((text.token(at - 1), token), place) } else { None };
        self.earlier.push(before.unwrap_or(place));
        // Guesses within the prompt would say how it repeats, not how the answer does.
        if self.guess.is_none() && at + 1 >= text.prompt.len() {
            self.guess = self.search(text, at);
        }
    }

    /// The longest match of the text up to position `at`, the latest among equals.
    fn search(&self, text: Text<'_>, at: usize) -> Option<Match> {
        let mut best: Option<Match> = None;
        let mut place = at - self.first;
        for _ in 0..PLACES {
            let before = self.earlier[place] as usize;
            if before == place {
                break;
            }
            place = before;
            let there = self.first + place;
            let more = (2..LONGEST_MATCH.min(place + 1)).take_while(|back| text.token(there - back) == text.token(at - back));
            let length = 2 + more.count();
            if best.is_none_or(|best| length > best.length) {
                best = Some(Match { next: there + 1, length });
            }
        }
        best
    }

    /// Odds of a guess. What is not known of longer matches is taken from the shorter ones.
    fn chance(&self, kind: usize) -> f32 {
        let known = self.records[..=kind].iter();
        known.fold(FIRST_ODDS, |odds, record| (record.right + FIRST_GUESSES * odds) / (record.guesses + FIRST_GUESSES))
    }
}

fn kind(length: usize) -> usize {
    (length.max(2).ilog2() as usize - 1).min(KINDS - 1)
}
