//! Generate requests as the worker keeps them, from the door to the last event. Knows neither pages nor tensors.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc::UnboundedSender;

use crate::adapters::{AdapterKey, Pin};
use crate::command::Shared;
use crate::request::{BaseId, ConstraintFactory, EngineError, Event, FinishReason, GenerateRequest, Sampling};
use crate::sample::sequence::{Sequence, SequenceKey};

/// One generate request.
pub(super) struct Request {
    pub base: BaseId,
    /// Adapter it samples from.
    pub adapter: Option<AdapterKey>,
    /// The adapter once it runs, to its end: a newer revision never mixes in.
    pub pin: Option<Pin>,
    pub account: u64,
    /// Tokens of the prompt.
    pub prompt_len: usize,
    pub max_tokens: u32,
    pub sampling: Sampling,
    pub alternatives: usize,
    pub end_tokens: Vec<u32>,
    pub constraint: Option<ConstraintFactory>,
    /// Prompt tokens found in the prefix cache at the first admission.
    pub cached: u32,
    /// `Started` was sent.
    pub started: bool,
    events: UnboundedSender<Event>,
    cancelled: Arc<[AtomicBool]>,
    /// Samples not ended.
    open: u32,
    /// Still has its place in the line of the gate.
    in_line: bool,
}

impl Request {
    pub(super) fn send(&self, event: Event) {
        // A closed channel is a hang-up; it is noticed when the next batch is built.
        let _ = self.events.send(event);
    }

    /// Samples not ended.
    pub(super) fn open(&self) -> u32 {
        self.open
    }

    pub(super) fn in_line(&self) -> bool {
        self.in_line
    }

    fn cancellations(&self) -> impl Iterator<Item = u32> + '_ {
        // `swap` so that a cancellation is acted on once.
        let flags =
            self.cancelled.iter().enumerate().filter(|(_, flag)| flag.load(Ordering::Relaxed) && flag.swap(false, Ordering::Relaxed));
        flags.map(|(sample, _)| sample as u32)
    }
}

/// What callers did since the last step.
#[derive(Default)]
pub(super) struct Reaped {
    /// Requests whose caller hung up.
    pub hung_up: Vec<u64>,
    /// Samples cancelled one by one.
    pub cancelled: Vec<SequenceKey>,
}

/// All generate requests by number; numbers grow with arrival.
pub(super) struct Requests {
    all: BTreeMap<u64, Request>,
    shared: Arc<Shared>,
}

impl Requests {
    pub(super) fn new(shared: Arc<Shared>) -> Requests {
        Requests { all: BTreeMap::new(), shared }
    }

    /// Takes a request in; its first sequence stands for all samples until the prompt is computed.
    pub(super) fn accept(
        &mut self,
        number: u64,
        request: GenerateRequest,
        events: UnboundedSender<Event>,
        cancelled: Arc<[AtomicBool]>,
    ) -> (SequenceKey, Sequence) {
        let forks = (1..request.samples).collect();
        let prompt_len = request.prompt.len();
        let sequence = Sequence::new(request.account, request.adapter, request.prompt.into(), forks);
        let entry = Request {
            adapter: request.adapter.map(|id| (request.base.clone(), id)),
            base: request.base,
            pin: None,
            account: request.account,
            prompt_len,
            max_tokens: request.max_tokens,
            sampling: request.sampling,
            alternatives: request.alternatives,
            end_tokens: request.end_tokens,
            constraint: request.constraint,
            cached: 0,
            started: false,
            events,
            cancelled,
            open: request.samples,
            in_line: true,
        };
        self.all.insert(number, entry);
        (SequenceKey { request: number, sample: 0 }, sequence)
    }

    pub(super) fn get(&self, number: u64) -> Option<&Request> {
        self.all.get(&number)
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Request> {
        self.all.get_mut(&number)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Request)> {
        self.all.iter().map(|(number, request)| (*number, request))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The request runs: it leaves the line.
    pub(super) fn start(&mut self, number: u64) {
        if let Some(request) = self.all.get_mut(&number)
            && std::mem::take(&mut request.in_line)
        {
            self.shared.leave(request.account);
        }
    }

    /// Ends one sample, and the request with its last one. The caller frees the sequence.
    pub(super) fn finish(&mut self, key: SequenceKey, reason: FinishReason) {
        let Some(request) = self.all.get_mut(&key.request) else { return };
        request.send(Event::Finished { sample: key.sample, reason });
        request.open -= 1;
        if request.open == 0 {
            request.send(Event::Done);
            self.remove(key.request);
        }
    }

    /// Ends a request without an answer. The caller frees its sequences.
    pub(super) fn fail(&mut self, number: u64, error: EngineError) {
        if let Some(request) = self.all.get(&number) {
            request.send(Event::Failed(error));
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        self.start(number);
        self.all.remove(&number);
    }

    /// Hang-ups and cancellations since the last call.
    pub(super) fn reap(&self) -> Reaped {
        let mut reaped = Reaped::default();
        for (number, request) in &self.all {
            if request.events.is_closed() {
                reaped.hung_up.push(*number);
            } else {
                reaped.cancelled.extend(request.cancellations().map(|sample| SequenceKey { request: *number, sample }));
            }
        }
        reaped
    }

    /// Requests of a base that have not run yet.
    pub(super) fn in_line_for<'a>(&'a self, base: &'a BaseId) -> impl Iterator<Item = (u64, &'a Request)> {
        self.iter().filter(move |(_, request)| request.in_line && request.base == *base)
    }

    /// The gate counts as many in line as there are, all and by account.
    pub(super) fn check(&self) -> Result<(), String> {
        let (waiting, by_account) = self.shared.waiting();
        let counted = self.all.values().filter(|r| r.in_line).count();
        // Requests still on their way through the channel are in the gate already.
        if counted > waiting || by_account.values().sum::<usize>() != waiting {
            return Err(format!("{counted} requests are in line, the gate counts {waiting}"));
        }
        Ok(())
    }
}
