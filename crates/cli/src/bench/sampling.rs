//! Times steps of sampling: prompts, decodes of many streams, long contexts. Does not know the machine's limits.

use std::time::Instant;

use tiger_kernels::Cpu;
use tiger_model::{Adapter, Kv, Model, PAGE_TOKENS, PageId, Segment, Step, Workspace};

/// Tokens of each stream before decoding, and tokens decoded per round.
pub(super) const PROMPT: usize = 64;
pub(super) const DECODED: usize = 16;
/// Shortest context whose last tokens can be timed.
pub(super) const SHORTEST: usize = PAGE_TOKENS + DECODED;
/// Rank of the adapters.
const RANK: usize = 16;
/// Rows of a step of a long prompt.
const CHUNK: usize = 512;

/// A model with its cache and buffers.
pub(super) struct Sampling<'a> {
    model: &'a Model,
    kv: Kv,
    workspace: Workspace,
    logits: Vec<f32>,
    adapters: Vec<Adapter>,
}

impl<'a> Sampling<'a> {
    pub(super) fn new(model: &'a Model) -> Self {
        Self { model, kv: Kv::new(model, 0), workspace: Workspace::default(), logits: Vec::new(), adapters: Vec::new() }
    }

    /// Seconds of one prompt.
    pub(super) fn prefill(&mut self, cpu: &Cpu, tokens: usize) -> f64 {
        self.pages(tokens.div_ceil(PAGE_TOKENS));
        // The first touches fresh memory.
        self.prompt(cpu, 0, tokens.min(CHUNK));
        let started = Instant::now();
        self.prompt(cpu, 0, tokens);
        started.elapsed().as_secs_f64()
    }

    /// Seconds of [`DECODED`] steps of a token for each stream behind `context` tokens.
    pub(super) fn decode(&mut self, cpu: &Cpu, streams: usize, adapters: usize, context: usize) -> f64 {
        let each = (context + DECODED).div_ceil(PAGE_TOKENS);
        self.pages(streams * each);
        while self.adapters.len() < adapters {
            let seed = self.adapters.len() as u64 + 1;
            self.adapters.push(Adapter::new(self.model.architecture(), RANK, 2.0 * RANK as f32, seed));
        }
        // One computed page stands for all: their numbers do not matter, but that they lie apart does.
        self.prompt(cpu, 0, PAGE_TOKENS);
        for page in 1..streams * each {
            self.kv.copy_page(PageId(0), PageId(page as u32));
        }
        self.step(cpu, streams, adapters, context, each);
        let started = Instant::now();
        for i in 0..DECODED {
            self.step(cpu, streams, adapters, context + i, each);
        }
        started.elapsed().as_secs_f64()
    }

    /// Seconds of a token behind a page, of one of the last [`DECODED`] of a context of so many, and bytes that the process grew by for it.
    pub(super) fn behind(&mut self, cpu: &Cpu, tokens: usize) -> [f64; 3] {
        let near = self.decode(cpu, 1, 0, PAGE_TOKENS);
        self.kv = Kv::new(self.model, 0);
        let before = super::status_bytes("VmRSS:");
        let far = self.decode(cpu, 1, 0, tokens - DECODED);
        let grown = super::status_bytes("VmRSS:").saturating_sub(before);
        [near / DECODED as f64, far / DECODED as f64, grown as f64]
    }

    /// Seconds of a whole prompt, and of its last page alone.
    pub(super) fn cached(&mut self, cpu: &Cpu, tokens: usize) -> [f64; 2] {
        let whole = self.prefill(cpu, tokens);
        let started = Instant::now();
        self.prompt(cpu, tokens - PAGE_TOKENS, tokens);
        [whole, started.elapsed().as_secs_f64()]
    }

    /// Bytes of the first `count` adapters.
    pub(super) fn adapter_bytes(&self, count: usize) -> f64 {
        self.adapters.iter().take(count).map(|a| a.bytes() as f64).sum()
    }

    fn pages(&mut self, count: usize) {
        if self.kv.pages() < count {
            self.kv = Kv::new(self.model, count);
        }
    }

    fn prompt(&mut self, cpu: &Cpu, from: usize, to: usize) {
        let pages: Vec<PageId> = (0..to.div_ceil(PAGE_TOKENS) as u32).map(PageId).collect();
        for start in (from..to).step_by(CHUNK) {
            let count = CHUNK.min(to - start);
            let tokens: Vec<u32> = (start..start + count).map(|i| self.token(i)).collect();
            let segments = [Segment { rows: 0..count, start, pages: &pages, adapter: None }];
            // Only the end of a prompt needs the head.
            let outputs = if start + count == to { vec![count - 1] } else { Vec::new() };
            let step = Step { tokens: &tokens, segments: &segments, outputs: &outputs };
            let hidden = self.model.forward(cpu, &mut self.kv, &step, &mut self.workspace);
            self.model.logits(cpu, &hidden, &mut self.logits);
        }
    }

    fn step(&mut self, cpu: &Cpu, streams: usize, adapters: usize, start: usize, pages_each: usize) {
        let tokens: Vec<u32> = (0..streams).map(|s| self.token(start + s)).collect();
        let outputs: Vec<usize> = (0..streams).collect();
        let pages: Vec<PageId> = (0..(streams * pages_each) as u32).map(PageId).collect();
        let segments: Vec<Segment<'_>> = outputs
            .iter()
            .map(|&s| Segment {
                rows: s..s + 1,
                start,
                pages: &pages[s * pages_each..][..pages_each],
                adapter: (adapters > 0).then(|| &self.adapters[s * adapters / streams]),
            })
            .collect();
        let step = Step { tokens: &tokens, segments: &segments, outputs: &outputs };
        let hidden = self.model.forward(cpu, &mut self.kv, &step, &mut self.workspace);
        self.model.logits(cpu, &hidden, &mut self.logits);
    }

    fn token(&self, i: usize) -> u32 {
        (i as u32).wrapping_mul(7919) % self.model.architecture().vocab as u32
    }
}
