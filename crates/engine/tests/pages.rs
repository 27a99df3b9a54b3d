//! Random lives of sequences on a lane and a scheduler, everything counted again after each operation.
#![expect(clippy::unwrap_used, reason = "a helper of a test may fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use tiger_engine::sample::lane::{Admission, Displaced, Fork, Lane};
use tiger_engine::sample::pages::{Before, Pages};
use tiger_engine::sample::plan::{Demand, plan};
use tiger_engine::sample::scheduler::{Scheduler, Turn, Waiting};
use tiger_engine::sample::sequence::{Sequence, SequenceKey};
use tiger_engine::{AdapterId, BaseId};

#[derive(Debug, Clone)]
enum Op {
    Arrive { prompt: usize, family: u32, samples: u32, adapter: u8, account: u64 },
    Admit,
    Step { budget: usize, drafts: usize, right: usize },
    End { which: usize },
    Cancel { which: usize },
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1usize..120, 0u32..3, 1u32..4, 0u8..3, 0u64..3)
            .prop_map(|(prompt, family, samples, adapter, account)| Op::Arrive { prompt, family, samples, adapter, account }),
        6 => Just(Op::Admit),
        12 => (1usize..64, 0usize..16, 0usize..20).prop_map(|(budget, drafts, right)| Op::Step { budget, drafts, right }),
        2 => any::<usize>().prop_map(|which| Op::End { which }),
        2 => any::<usize>().prop_map(|which| Op::Cancel { which }),
        1 => Just(Op::Reset),
    ]
}

/// What the worker does, without tensors: a token is a function of what came before.
struct World {
    lane: Lane,
    scheduler: Scheduler,
    next: u64,
    steps: u64,
    base: BaseId,
}

impl World {
    fn new(pages: usize) -> World {
        World { lane: Lane::new(pages), scheduler: Scheduler::default(), next: 0, steps: 0, base: BaseId("b".into()) }
    }

    fn push(&mut self, key: SequenceKey, sequence: Sequence) {
        self.scheduler.push(key, Waiting { base: self.base.clone(), sequence });
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Arrive { prompt, family, samples, adapter, account } => {
                self.next += 1;
                // Families share beginnings.
                let tokens: Vec<u32> = (0..prompt as u32).map(|i| if i < 40 { family } else { i + family }).collect();
                let adapter = (adapter > 0).then_some(AdapterId([adapter; 32]));
                let sequence = Sequence::new(account, adapter, tokens.into(), (1..samples).collect());
                self.push(SequenceKey { request: self.next, sample: 0 }, sequence);
            }
            Op::Admit => self.admit(),
            Op::Step { budget, drafts, right } => self.step(budget, drafts, right),
            Op::End { which } => {
                let keys: Vec<SequenceKey> = self.lane.running().keys().copied().collect();
                if !keys.is_empty() {
                    self.lane.remove(keys[which % keys.len()]);
                }
            }
            Op::Cancel { which } => {
                let keys: Vec<SequenceKey> = self.lane.running().keys().copied().collect();
                if keys.is_empty() {
                    return;
                }
                let key = keys[which % keys.len()];
                match self.lane.sequence_mut(key).and_then(Sequence::hand_over) {
                    Some(heir) => self.lane.rename(key, SequenceKey { sample: heir, ..key }),
                    None => self.lane.remove_request(key.request),
                }
            }
            Op::Reset => {
                for (key, sequence) in self.lane.reset() {
                    self.push(key, sequence);
                }
            }
        }
    }

    fn admit(&mut self) {
        while let Some(turn) = self.scheduler.peek(|_, _| true) {
            let waiting = self.scheduler.remove(turn).unwrap();
            let tokens = waiting.sequence.len();
            match self.lane.admit(turn.key, waiting.sequence) {
                Admission::Runs { cached } => {
                    assert!(cached < tokens, "a token is always left to compute");
                    self.scheduler.served(turn.account, tokens - cached);
                }
                Admission::NoRoom(sequence) => {
                    assert!(!self.lane.running().is_empty(), "an empty lane has room for all that can ever run");
                    self.push(turn.key, *sequence);
                    return;
                }
                Admission::Never(sequence) => assert!(Sequence::pages_for(sequence.len()) > self.lane.pages().total()),
            }
        }
    }

    /// Decodes draft `drafts` tokens, of which the first `right` are right.
    fn step(&mut self, budget: usize, drafts: usize, right: usize) {
        self.steps += 1;
        let mut demands = Vec::new();
        self.lane.demands(&mut demands);
        let mut grants = plan(&demands, budget, self.steps);
        assert!(grants.iter().map(|g| g.tokens).sum::<usize>() <= budget);
        let oldest = self.lane.running().keys().next().copied();
        let Displaced { preempted, too_long } = self.lane.reserve(&mut grants);
        let alone = preempted.iter().all(|(key, _)| Some(*key) != oldest) || too_long.is_some();
        assert!(alone, "the oldest is never preempted for a younger one");
        for (key, sequence) in preempted {
            self.push(key, sequence);
        }
        let mut forks = Vec::new();
        for grant in &mut grants {
            let Some(sequence) = self.lane.sequence_mut(grant.key) else { continue };
            if sequence.pending() > grant.tokens {
                continue;
            }
            if sequence.forks.is_empty() {
                grant.drafts = drafts;
                self.lane.lend(grant);
                assert!(grant.drafts <= drafts);
                grant.drafts = grant.drafts.min(right);
            }
            let Some(sequence) = self.lane.sequence_mut(grant.key) else { continue };
            for sample in std::mem::take(&mut sequence.forks) {
                let mut fork = Sequence::new(sequence.account, sequence.adapter, sequence.prompt.clone(), Vec::new());
                fork.generated.push(sequence.len() as u32 % 5 + sample);
                forks.push((grant.key, sample, fork));
            }
            (0..=grant.drafts).for_each(|_| sequence.generated.push(sequence.len() as u32 % 5));
        }
        self.lane.commit(&grants);
        for (parent, sample, fork) in forks {
            {
                let key = SequenceKey { sample, ..parent };
                if let Fork::NoRoom(fork) = self.lane.fork(parent, key, fork) {
                    self.push(key, *fork);
                }
            }
        }
    }

    fn check(&self) {
        self.lane.check().unwrap();
        self.scheduler.check().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn pages_and_queues_agree_after_every_operation(pages in 4usize..40, ops in prop::collection::vec(op(), 1..120)) {
        let mut world = World::new(pages);
        for op in ops {
            world.apply(op);
            world.check();
        }
        // Everyone leaves: nothing may stay held.
        let keys: Vec<SequenceKey> = world.lane.running().keys().copied().collect();
        keys.into_iter().for_each(|key| { world.lane.remove(key); });
        world.check();
        prop_assert_eq!(world.lane.pages().available(), pages);
    }

    #[test]
    fn everything_that_fits_ends(pages in 8usize..24, requests in prop::collection::vec((1usize..100, 0u64..3), 1..20)) {
        let mut world = World::new(pages);
        for (prompt, account) in requests {
            world.apply(Op::Arrive { prompt, family: 0, samples: 2, adapter: 0, account });
        }
        // Preemption must not go round in circles: each sequence ends after eight tokens.
        for _ in 0..20_000 {
            world.apply(Op::Admit);
            world.apply(Op::Step { budget: 16, drafts: 3, right: 1 });
            let done: Vec<SequenceKey> = world.lane.running().iter().filter(|(_, s)| s.generated.len() >= 8).map(|(k, _)| *k).collect();
            done.into_iter().for_each(|key| { world.lane.remove(key); });
            if world.lane.running().is_empty() && world.scheduler.waiting() == 0 {
                return Ok(());
            }
        }
        prop_assert!(false, "{} wait, {} run", world.scheduler.waiting(), world.lane.running().len());
    }

    #[test]
    fn a_plan_keeps_the_budget_and_starves_nobody(
        demands in prop::collection::vec((0u64..4, prop_oneof![Just(1usize), 2usize..300]), 1..60),
        budget in 1usize..100,
    ) {
        let demands: Vec<Demand> = demands
            .into_iter()
            .enumerate()
            .map(|(i, (account, tokens))| Demand { key: SequenceKey { request: i as u64, sample: 0 }, account, tokens })
            .collect();
        let by_key: BTreeMap<SequenceKey, Demand> = demands.iter().map(|d| (d.key, *d)).collect();
        let mut served = BTreeSet::new();
        for turn in 0..200 {
            let grants = plan(&demands, budget, turn);
            let keys: BTreeSet<SequenceKey> = grants.iter().map(|g| g.key).collect();
            prop_assert_eq!(keys.len(), grants.len());
            prop_assert!(grants.iter().all(|g| g.tokens >= 1 && g.tokens <= by_key[&g.key].tokens));
            let sum: usize = grants.iter().map(|g| g.tokens).sum();
            prop_assert!(sum <= budget && sum >= 1);
            served.extend(grants.iter().map(|g| by_key[&g.key]).filter(|d| d.tokens == 1).map(|d| d.key));
            served.extend(grants.iter().map(|g| g.key));
        }
        // Each decode and each account's oldest prompt came to its turn.
        for demand in &demands {
            let first = demands.iter().find(|d| d.account == demand.account && d.tokens > 1);
            if demand.tokens == 1 || first == Some(demand) {
                prop_assert!(served.contains(&demand.key), "{:?} was never served", demand);
            }
        }
    }
}

#[test]
fn a_prefix_is_found_by_content_only() {
    let mut pages = Pages::new(8);
    let tokens = |first: u32| std::array::from_fn(|i| first + i as u32);
    let one = pages.take().unwrap();
    let (node, _) = pages.publish(Before::Start(None), tokens(0), one);
    let two = pages.take().unwrap();
    pages.publish(Before::Page(node), tokens(100), two);
    let find = |pages: &mut Pages, adapter, first: &[u32], extra: usize| {
        let tokens = first.iter().flat_map(|f| *f..*f + 16).chain(0..extra as u32);
        let found = pages.find(adapter, tokens);
        let count = found.pages.len();
        found.pages.into_iter().rev().for_each(|page| pages.release(page));
        count
    };
    assert_eq!(find(&mut pages, None, &[0, 100], 1), 2);
    // The last token is always computed.
    assert_eq!(find(&mut pages, None, &[0, 100], 0), 1);
    assert_eq!(find(&mut pages, None, &[0], 0), 0);
    assert_eq!(find(&mut pages, None, &[0, 101], 1), 1);
    assert_eq!(find(&mut pages, None, &[100], 1), 0);
    assert_eq!(find(&mut pages, Some(AdapterId([1; 32])), &[0, 100], 1), 0);
    pages.check([one, two].into_iter()).unwrap();
}

#[test]
fn equal_content_ends_in_one_page_and_the_oldest_prefix_goes_first() {
    let mut pages = Pages::new(3);
    let tokens = [7u32; 16];
    let (one, two) = (pages.take().unwrap(), pages.take().unwrap());
    assert_eq!(pages.publish(Before::Start(None), tokens, one).1, one);
    assert_eq!(pages.publish(Before::Start(None), tokens, two).1, one, "the second owner moves to the first page");
    pages.release(one);
    pages.release(one);
    pages.check(std::iter::empty()).unwrap();
    let other = pages.take().unwrap();
    let (_, other) = pages.publish(Before::Start(None), [8; 16], other);
    pages.release(other);
    // Two taken from free, the third evicts the prefix that rested longest.
    let taken: Vec<_> = (0..2).map(|_| pages.take().unwrap()).collect();
    assert_eq!(pages.find(None, [8u32; 17].into_iter()).pages.len(), 1);
    assert_eq!(pages.find(None, [7u32; 17].into_iter()).pages.len(), 0);
    assert!(pages.take().is_none());
    pages.check(taken.into_iter().chain([other])).unwrap();
}

#[test]
fn accounts_take_turns_by_tokens() {
    let mut scheduler = Scheduler::default();
    let mut number = 0;
    let prompts: BTreeMap<u64, usize> = BTreeMap::from([(1, 100), (2, 1000), (3, 100)]);
    for (account, prompt) in &prompts {
        for _ in 0..400 {
            number += 1;
            let sequence = Sequence::new(*account, None, Arc::from(vec![0; *prompt]), Vec::new());
            scheduler.push(SequenceKey { request: number, sample: 0 }, Waiting { base: BaseId("b".into()), sequence });
        }
    }
    let mut tokens: BTreeMap<u64, usize> = BTreeMap::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for _ in 0..300 {
        let Turn { account, key } = scheduler.peek(|_, _| true).unwrap();
        scheduler.remove(Turn { account, key }).unwrap();
        scheduler.served(account, prompts[&account]);
        *tokens.entry(account).or_default() += prompts[&account];
        assert!(last.insert(account, key.request).is_none_or(|before| before < key.request), "first come first served within an account");
        scheduler.check().unwrap();
        scheduler.tidy(true);
    }
    let (least, most) = (tokens.values().min().unwrap(), tokens.values().max().unwrap());
    assert!(most - least <= 3 * 1024, "{tokens:?}");
}
