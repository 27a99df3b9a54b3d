//! One continuation: its tokens, how many of them are computed, and the pages that hold them.
//! Does not know whether it runs or waits; whoever owns it decides that.

use std::sync::Arc;

use tiger_model::{PAGE_TOKENS, PageId};

use super::draft::{Drafter, Text};
use super::pages::NodeId;
use crate::request::{AdapterId, Constraint};

/// Names one sample of one request. Ordered by age: requests count up as they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceKey {
    /// Number of the request.
    pub request: u64,
    /// Index of the sample.
    pub sample: u32,
}

/// One continuation.
pub struct Sequence {
    /// Whose turn it takes.
    pub account: u64,
    /// Weights on top of the base; part of a prefix's identity.
    pub adapter: Option<AdapterId>,
    /// Prompt, shared by the samples of a request.
    pub prompt: Arc<[u32]>,
    /// Tokens drawn so far.
    pub generated: Vec<u32>,
    /// Tokens whose keys and values lie in `pages`.
    pub computed: usize,
    /// Pages of positions 0 .. 16 · len.
    pub pages: Vec<PageId>,
    /// Leading pages that the prefix tree knows.
    pub published: usize,
    /// Node of the last published page.
    pub node: Option<NodeId>,
    /// Other samples of the request that start from the same prompt once it is computed.
    pub forks: Vec<u32>,
    /// Grammar of this sample; made when its first token is drawn.
    pub constraint: Option<Box<dyn Constraint>>,
    /// What it will probably say next.
    pub drafter: Drafter,
}

impl Sequence {
    /// Nothing computed; samples `forks` start with it.
    pub fn new(account: u64, adapter: Option<AdapterId>, prompt: Arc<[u32]>, forks: Vec<u32>) -> Sequence {
        Sequence {
            account,
            adapter,
            prompt,
            generated: Vec::new(),
            computed: 0,
            pages: Vec::new(),
            published: 0,
            node: None,
            forks,
            constraint: None,
            drafter: Drafter::default(),
        }
    }

    /// Tokens, prompt and drawn.
    pub fn len(&self) -> usize {
        self.prompt.len() + self.generated.len()
    }

    /// A sequence has at least one token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Token at an absolute position below `len`.
    pub fn token(&self, position: usize) -> u32 {
        match self.prompt.get(position) {
            Some(token) => *token,
            None => self.generated[position - self.prompt.len()],
        }
    }

    /// All tokens in order.
    pub fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        self.prompt.iter().chain(&self.generated).copied()
    }

    /// Tokens still to compute before the next one can be drawn; at least one.
    pub fn pending(&self) -> usize {
        self.len() - self.computed
    }

    /// Drafts what may come next, see [`Drafter::propose`].
    pub fn propose(&mut self, limit: usize, end_tokens: &[u32]) {
        self.drafter.propose(Text { prompt: &self.prompt, generated: &self.generated }, limit, end_tokens);
    }

    /// Drafts even what will hardly come, see [`Drafter::propose_anything`].
    pub fn propose_anything(&mut self) {
        self.drafter.propose_anything(Text { prompt: &self.prompt, generated: &self.generated });
    }

    /// The sample that goes on in this one's place when this one is cancelled while it computes the prompt for others.
    pub fn hand_over(&mut self) -> Option<u32> {
        (!self.forks.is_empty()).then(|| self.forks.remove(0))
    }

    /// Takes a sample out of those that start later; false if it is not among them.
    pub fn drop_fork(&mut self, sample: u32) -> bool {
        let before = self.forks.len();
        self.forks.retain(|fork| *fork != sample);
        self.forks.len() < before
    }

    /// Pages that `tokens` positions need.
    pub fn pages_for(tokens: usize) -> usize {
        tokens.div_ceil(PAGE_TOKENS)
    }
}
