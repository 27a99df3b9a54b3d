//! The running sequences of one base and the pages they hold: admission, growth, preemption, forks, release.
//! Knows pages and token ids; no tensor, no request, no queue (what does not run is handed back to the caller).

use std::collections::BTreeMap;

use tiger_model::{PAGE_TOKENS, PageId};

use super::pages::{Before, Pages};
use super::plan::{Demand, Grant};
use super::sequence::{Sequence, SequenceKey};

/// What became of a sequence that asked to run.
pub enum Admission {
    /// It runs; this many of its tokens were found computed.
    Runs {
        /// Tokens of the shared prefix.
        cached: usize,
    },
    /// Not enough pages now; others have to end first.
    NoRoom(Box<Sequence>),
    /// More pages than there are.
    Never(Box<Sequence>),
}

/// What [`Lane::reserve`] took away to make room.
#[derive(Default)]
pub struct Displaced {
    /// Youngest sequences, without pages now; to be queued again.
    pub preempted: Vec<(SequenceKey, Sequence)>,
    /// A sequence that is alone and still does not fit.
    pub too_long: Option<(SequenceKey, Sequence)>,
}

/// How a fork begins.
pub enum Fork {
    /// It runs; the pair is a partly filled page to copy before the next step, source first.
    Runs(Option<(PageId, PageId)>),
    /// No page left: it has to be queued.
    NoRoom(Box<Sequence>),
}

/// Running sequences of one base.
pub struct Lane {
    pages: Pages,
    running: BTreeMap<SequenceKey, Sequence>,
}

impl Lane {
    /// An empty lane over `pages` pages.
    pub fn new(pages: usize) -> Lane {
        Lane { pages: Pages::new(pages), running: BTreeMap::new() }
    }

    /// Running sequences, oldest first.
    pub fn running(&self) -> &BTreeMap<SequenceKey, Sequence> {
        &self.running
    }

    /// One running sequence. Its tokens may be added to; pages and counts are the lane's.
    pub fn sequence_mut(&mut self, key: SequenceKey) -> Option<&mut Sequence> {
        self.running.get_mut(&key)
    }

    /// The pages.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Starts a sequence (fresh or preempted): finds its prefix and takes pages for all its tokens.
    pub fn admit(&mut self, key: SequenceKey, mut sequence: Sequence) -> Admission {
        let needed = Sequence::pages_for(sequence.len());
        if needed > self.pages.total() {
            return Admission::Never(Box::new(sequence));
        }
        let prefix = self.pages.find(sequence.adapter, sequence.tokens());
        let missing = needed - prefix.pages.len();
        // A page for the next step's growth of those that run, so that an admission is not undone at once.
        let headroom = self.running.len().div_ceil(PAGE_TOKENS);
        let alone = self.running.is_empty();
        if self.pages.available() < missing + headroom && !(alone && self.pages.available() >= missing) {
            prefix.pages.into_iter().rev().for_each(|page| self.pages.release(page));
            return Admission::NoRoom(Box::new(sequence));
        }
        let cached = prefix.pages.len() * PAGE_TOKENS;
        sequence.computed = cached;
        sequence.published = prefix.pages.len();
        sequence.node = prefix.node;
        sequence.pages = prefix.pages;
        for _ in 0..missing {
            sequence.pages.extend(self.pages.take());
        }
        assert_eq!(sequence.pages.len(), needed, "available pages can be taken");
        self.running.insert(key, sequence);
        Admission::Runs { cached }
    }

    /// What every running sequence could compute now, oldest first.
    pub fn demands(&self, out: &mut Vec<Demand>) {
        out.clear();
        out.extend(self.running.iter().map(|(key, s)| Demand { key: *key, account: s.account, tokens: s.pending() }));
    }

    /// Takes the pages that the grants write to. When pages run out the youngest sequences are preempted, and their grants dropped.
    pub fn reserve(&mut self, grants: &mut Vec<Grant>) -> Displaced {
        let mut displaced = Displaced::default();
        let mut done = 0;
        while let Some(grant) = grants.get(done).copied() {
            let Some(sequence) = self.running.get(&grant.key) else {
                grants.remove(done);
                continue;
            };
            let needed = Sequence::pages_for(sequence.computed + grant.tokens);
            if sequence.pages.len() >= needed {
                done += 1;
                continue;
            }
            if let Some(page) = self.pages.take() {
                self.running.entry(grant.key).and_modify(|s| s.pages.push(page));
                continue;
            }
            let Some(youngest) = self.running.keys().next_back().copied() else { break };
            let alone = self.running.len() == 1;
            let Some(removed) = self.remove(youngest) else { break };
            if alone {
                displaced.too_long = Some((youngest, removed));
            } else {
                displaced.preempted.push((youngest, removed));
            }
        }
        displaced
    }

    /// Takes pages for the drafted rows of a grant, after [`Lane::reserve`]. Nobody is preempted for a draft: it ends where pages do.
    pub fn lend(&mut self, grant: &mut Grant) {
        let Some(sequence) = self.running.get_mut(&grant.key) else { return };
        let known = sequence.computed + grant.tokens;
        while sequence.pages.len() < Sequence::pages_for(known + grant.drafts) {
            match self.pages.take() {
                Some(page) => sequence.pages.push(page),
                None => grant.drafts = sequence.pages.len() * PAGE_TOKENS - known,
            }
        }
    }

    /// The grants are computed, and the tokens of right drafts are among the sequences' own: counts go up, full pages become findable,
    /// pages that only wrong drafts needed are free again. What those drafts wrote lies behind `computed` and is written over.
    pub fn commit(&mut self, grants: &[Grant]) {
        for grant in grants {
            let Some(sequence) = self.running.get_mut(&grant.key) else { continue };
            sequence.computed += grant.tokens + grant.drafts;
            while (sequence.published + 1) * PAGE_TOKENS <= sequence.computed {
                let first = sequence.published * PAGE_TOKENS;
                let tokens = std::array::from_fn(|i| sequence.token(first + i));
                let before = sequence.node.map_or(Before::Start(sequence.adapter), Before::Page);
                let (node, page) = self.pages.publish(before, tokens, sequence.pages[sequence.published]);
                sequence.pages[sequence.published] = page;
                sequence.node = Some(node);
                sequence.published += 1;
            }
            let needed = Sequence::pages_for(sequence.len());
            sequence.pages.drain(needed.min(sequence.pages.len())..).rev().for_each(|page| self.pages.release(page));
        }
    }

    /// Starts `fork`, another sample of `parent`'s request, whose prompt is just computed: full pages are shared, a partly filled one
    /// is copied. `fork` brings its tokens, `parent`'s prompt first.
    pub fn fork(&mut self, parent: SequenceKey, key: SequenceKey, mut fork: Sequence) -> Fork {
        let Some(from) = self.running.get(&parent) else { return Fork::NoRoom(Box::new(fork)) };
        let computed = fork.prompt.len().min(from.computed);
        let full = computed / PAGE_TOKENS;
        let partial = (computed % PAGE_TOKENS > 0).then(|| from.pages[full]);
        let mut pages: Vec<PageId> = from.pages[..full].to_vec();
        let (published, node) = (from.published.min(full), from.node);
        pages.iter().for_each(|page| self.pages.share(*page));
        let mut copy = None;
        if let Some(source) = partial {
            let Some(target) = self.pages.take() else {
                pages.into_iter().rev().for_each(|page| self.pages.release(page));
                return Fork::NoRoom(Box::new(fork));
            };
            pages.push(target);
            copy = Some((source, target));
        }
        fork.computed = computed;
        fork.pages = pages;
        fork.published = published;
        fork.node = node;
        self.running.insert(key, fork);
        Fork::Runs(copy)
    }

    /// Ends or stops a sequence: its pages lose an owner, it can be admitted again later.
    pub fn remove(&mut self, key: SequenceKey) -> Option<Sequence> {
        let mut sequence = self.running.remove(&key)?;
        // Last page first, so that the tree sees a child rest before its parent and evicts in that order.
        sequence.pages.drain(..).rev().for_each(|page| self.pages.release(page));
        sequence.computed = 0;
        sequence.published = 0;
        sequence.node = None;
        Some(sequence)
    }

    /// Gives a running sequence another sample's name (the first sample was cancelled while it computed the prompt for the others).
    pub fn rename(&mut self, from: SequenceKey, to: SequenceKey) {
        if let Some(sequence) = self.running.remove(&from) {
            self.running.insert(to, sequence);
        }
    }

    /// A sample that has not begun is cancelled: nobody starts it when the prompt is computed. False if there is none of that name.
    pub fn drop_fork(&mut self, key: SequenceKey) -> bool {
        let first = SequenceKey { sample: 0, ..key };
        let last = SequenceKey { sample: u32::MAX, ..key };
        self.running.range_mut(first..=last).any(|(_, sequence)| sequence.drop_fork(key.sample))
    }

    /// Ends all sequences of a request.
    pub fn remove_request(&mut self, request: u64) {
        let (first, last) = (SequenceKey { request, sample: 0 }, SequenceKey { request, sample: u32::MAX });
        let keys: Vec<SequenceKey> = self.running.range(first..=last).map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }

    /// After a failure in the middle of a step nothing about pages is trusted: all are free again, and the sequences are handed back
    /// as if preempted.
    pub fn reset(&mut self) -> Vec<(SequenceKey, Sequence)> {
        self.pages = Pages::new(self.pages.total());
        let running = std::mem::take(&mut self.running);
        let cleared = running.into_iter().map(|(key, mut s)| {
            (s.pages, s.computed, s.published, s.node) = (Vec::new(), 0, 0, None);
            (key, s)
        });
        cleared.collect()
    }

    /// Pages and sequences agree. The error says what does not.
    pub fn check(&self) -> Result<(), String> {
        for (key, s) in &self.running {
            if s.computed >= s.len() {
                return Err(format!("{key:?} has {} of {} tokens computed and none left to draw from", s.computed, s.len()));
            }
            if s.pages.len() > Sequence::pages_for(s.len()) {
                return Err(format!("{key:?} keeps {} pages for {} tokens", s.pages.len(), s.len()));
            }
            if s.pages.len() < Sequence::pages_for(s.computed) || s.published > s.pages.len() {
                return Err(format!("{key:?} has {} pages for {} computed tokens", s.pages.len(), s.computed));
            }
        }
        self.pages.check(self.running.values().flat_map(|s| s.pages.iter().copied()))?;
        self.check_writers()
    }

    /// A page that may still be written (not yet full) has one owner.
    fn check_writers(&self) -> Result<(), String> {
        let mut written = std::collections::HashSet::new();
        for (key, s) in &self.running {
            for page in &s.pages[s.published..] {
                if !written.insert(*page) {
                    return Err(format!("{key:?} shares page {page:?}, which is still written"));
                }
            }
        }
        Ok(())
    }
}
