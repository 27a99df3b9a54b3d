//! Whose turn it is: sequences that wait, by account, and the deficit round robin between accounts.
//! Knows sequences and token counts, no page and no tensor.
//!
//! Deficit round robin (Shreedhar and Varghese 1995) in its surplus form: the cost of a request is not known before its end, so an
//! account pays tokens as they are admitted and drawn, and waits while it is in debt and others are not.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::sequence::{Sequence, SequenceKey};
use crate::request::BaseId;

/// Tokens that an account may be ahead of another: about one prompt of a chat.
const QUANTUM_TOKENS: i64 = 1024;

/// Accounts whose debt is remembered while they ask for nothing; above it the debts of the absent are forgiven.
const REMEMBERED_ACCOUNTS: usize = 4096;

/// A sequence in line.
pub struct Waiting {
    /// Base it runs on.
    pub base: BaseId,
    /// Fresh or preempted.
    pub sequence: Sequence,
}

#[derive(Default)]
struct Account {
    deficit: i64,
    /// First come first served: request numbers grow.
    waiting: BTreeMap<SequenceKey, Waiting>,
}

/// The sequence whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Account.
    pub account: u64,
    /// Its oldest sequence that can run.
    pub key: SequenceKey,
}

/// Sequences that wait, and accounts' deficits.
#[derive(Default)]
pub struct Scheduler {
    accounts: BTreeMap<u64, Account>,
    /// Account served last; the next one in order is asked first.
    last: Option<u64>,
    waiting: usize,
}

impl Scheduler {
    /// Sequences in line.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Puts a sequence in line; its age decides the place within its account.
    pub fn push(&mut self, key: SequenceKey, waiting: Waiting) {
        let account = self.accounts.entry(waiting.sequence.account).or_default();
        if account.waiting.insert(key, waiting).is_none() {
            self.waiting += 1;
        }
    }

    /// The account pays for tokens computed or drawn.
    pub fn charge(&mut self, account: u64, tokens: usize) {
        let cost = i64::try_from(tokens).unwrap_or(i64::MAX);
        let account = self.accounts.entry(account).or_default();
        account.deficit = account.deficit.saturating_sub(cost);
    }

    /// Whose turn it is among those that `ready` says can run. Asked again before [`Scheduler::served`] the answer stays, so that a large
    /// sequence that waits for pages does not lose its turn.
    pub fn peek(&mut self, mut ready: impl FnMut(SequenceKey, &Waiting) -> bool) -> Option<Turn> {
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let upto = self.last.map_or(Bound::Excluded(0), Bound::Included);
        let ring = self.accounts.range((after, Bound::Unbounded)).chain(self.accounts.range((Bound::Unbounded, upto)));
        let mut candidates = Vec::new();
        for (id, account) in ring {
            if let Some((key, _)) = account.waiting.iter().find(|(key, waiting)| ready(**key, waiting)) {
                candidates.push((Turn { account: *id, key: *key }, account.deficit));
            }
        }
        // All in debt: as many rounds pass as the least indebted needs.
        let best = candidates.iter().map(|(_, deficit)| *deficit).max()?;
        if best <= 0 {
            let rounds = (-best) / QUANTUM_TOKENS + 1;
            for (turn, deficit) in &mut candidates {
                *deficit = (*deficit + rounds * QUANTUM_TOKENS).min(QUANTUM_TOKENS);
                self.accounts.entry(turn.account).and_modify(|a| a.deficit = *deficit);
            }
        }
        candidates.into_iter().find(|(_, deficit)| *deficit > 0).map(|(turn, _)| turn)
    }

    /// Takes a sequence out of line.
    pub fn remove(&mut self, turn: Turn) -> Option<Waiting> {
        let taken = self.accounts.get_mut(&turn.account)?.waiting.remove(&turn.key)?;
        self.waiting -= 1;
        Some(taken)
    }

    /// A removed sequence runs: its account pays for the tokens to compute, and the ring goes on behind it.
    pub fn served(&mut self, account: u64, tokens: usize) {
        self.last = Some(account);
        self.charge(account, tokens);
    }

    /// Whether the sequence is in line.
    pub fn contains(&self, turn: Turn) -> bool {
        self.accounts.get(&turn.account).is_some_and(|account| account.waiting.contains_key(&turn.key))
    }

    /// A sample that has not begun is cancelled. False if there is none of that name.
    pub fn drop_fork(&mut self, account: u64, key: SequenceKey) -> bool {
        let (first, last) = (SequenceKey { sample: 0, ..key }, SequenceKey { sample: u32::MAX, ..key });
        let Some(account) = self.accounts.get_mut(&account) else { return false };
        account.waiting.range_mut(first..=last).any(|(_, waiting)| waiting.sequence.drop_fork(key.sample))
    }

    /// All sequences of one request that wait.
    pub fn remove_request(&mut self, account: u64, request: u64) {
        let Some(account) = self.accounts.get_mut(&account) else { return };
        let before = account.waiting.len();
        account.waiting.retain(|key, _| key.request != request);
        self.waiting -= before - account.waiting.len();
    }

    /// Forgets accounts that neither wait nor owe anything. `busy`: something still runs, so debts are kept for a while.
    pub fn tidy(&mut self, busy: bool) {
        let keep = busy && self.accounts.len() <= REMEMBERED_ACCOUNTS;
        self.accounts.retain(|_, account| !account.waiting.is_empty() || (keep && account.deficit < 0));
    }

    /// Every waiting sequence.
    pub fn iter(&self) -> impl Iterator<Item = (SequenceKey, &Waiting)> {
        self.accounts.values().flat_map(|account| account.waiting.iter().map(|(key, waiting)| (*key, waiting)))
    }

    /// Counts agree. The error says what does not.
    pub fn check(&self) -> Result<(), String> {
        let counted: usize = self.accounts.values().map(|a| a.waiting.len()).sum();
        if counted != self.waiting {
            return Err(format!("{counted} sequences wait, counted {}", self.waiting));
        }
        for (id, account) in &self.accounts {
            if account.deficit > QUANTUM_TOKENS {
                return Err(format!("account {id} has saved up {} tokens", account.deficit));
            }
            if let Some((key, _)) = account.waiting.iter().find(|(_, w)| w.sequence.account != *id || !w.sequence.pages.is_empty()) {
                return Err(format!("{key:?} waits under the wrong account or with pages"));
            }
        }
        Ok(())
    }
}
