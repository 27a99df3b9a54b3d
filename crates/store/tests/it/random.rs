//! Random sequences of operations against a model of what must be, with the integrity check after each.

use crate::common::{begin, new_model, started, world_with};
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use tiger_store::{Error, ModelKey, Options, Outcome, Running, Weights};

/// Models of one case, by number.
const MODELS: usize = 3;
/// Newest revisions that keep their weights; small, so that cases reach it.
const KEEP: u32 = 3;

#[derive(Clone, Debug)]
enum Op {
    Create(usize),
    Copy { from: usize, to: usize },
    Train(usize),
    Unchanged(usize),
    Fail(usize),
    Start(usize),
    Commit(usize),
    Abandon(usize),
    Rollback(usize, i64),
    Delete(usize),
    Sweep,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let model = || 0..MODELS;
    prop_oneof![
        3 => model().prop_map(Op::Create),
        2 => (model(), model()).prop_map(|(from, to)| Op::Copy { from, to }),
        6 => model().prop_map(Op::Train),
        1 => model().prop_map(Op::Unchanged),
        1 => model().prop_map(Op::Fail),
        3 => model().prop_map(Op::Start),
        3 => model().prop_map(Op::Commit),
        1 => model().prop_map(Op::Abandon),
        2 => (model(), 0..6i64).prop_map(|(model, to)| Op::Rollback(model, to)),
        1 => model().prop_map(Op::Delete),
        2 => Just(Op::Sweep),
        1 => Just(Op::Restart),
    ]
}

/// What a model must be: the weights of every revision.
struct Expected {
    key: ModelKey,
    weights: Vec<Bytes>,
}

impl Expected {
    fn revision(&self) -> i64 {
        self.weights.len() as i64 - 1
    }
}

fn options() -> Options {
    Options { keep_weights: Some(KEEP), keep_optimizers: Some(2), ..Options::default() }
}

struct Case {
    w: crate::common::World,
    models: BTreeMap<usize, Expected>,
    running: BTreeMap<usize, Running>,
    made: u32,
}

impl Case {
    fn fresh(&mut self) -> Bytes {
        self.made += 1;
        Bytes::from(format!("weights {}", self.made))
    }

    async fn commit(&mut self, running: &Running) -> (Bytes, Result<i64, Error>) {
        let adapter = self.fresh();
        let optimizer = Bytes::from(format!("moments {}", self.made));
        let outcome = Outcome { adapter: adapter.clone(), optimizer, metrics: true.into(), answer: true.into() };
        (adapter, self.w.store.commit_train(running, outcome).await)
    }

    async fn create(&mut self, n: usize, parent: Option<usize>) {
        let new = new_model(self.w.owner, &format!("m{n}"));
        let parent = parent.map(|from| (self.models[&from].key, self.models[&from].weights.last().unwrap().clone()));
        let adapter = parent.as_ref().map_or_else(|| self.fresh(), |(_, weights)| weights.clone());
        let blob = self.w.store.put_blob(adapter.clone()).await.unwrap();
        let weights = parent.map_or(Weights::Fresh(&blob), |(key, _)| Weights::CopyOf(key));
        let made = self.w.store.create_model(&new, weights, &[]).await;
        match self.models.entry(n) {
            Entry::Occupied(_) => assert!(matches!(made, Err(Error::NameTaken(_)))),
            Entry::Vacant(free) => {
                free.insert(Expected { key: made.unwrap().key, weights: vec![adapter] });
            }
        }
    }

    async fn end(&mut self, n: usize) {
        let Some(running) = self.running.remove(&n) else { return };
        let (adapter, committed) = self.commit(&running).await;
        match self.models.get_mut(&n).filter(|model| model.key == running.model.key) {
            None => assert!(matches!(committed, Err(Error::Cancelled)), "{committed:?}"),
            Some(model) if model.revision() != running.model.revision => {
                assert!(matches!(committed, Err(Error::RevisionMoved { .. })), "{committed:?}");
                self.w.store.fail_train(&running, "moved").await.unwrap();
            }
            Some(model) => {
                model.weights.push(adapter);
                assert_eq!(committed.unwrap(), model.revision());
            }
        }
    }

    async fn rollback(&mut self, n: usize, to: i64) {
        let Some(model) = self.models.get_mut(&n) else { return };
        let rolled = self.w.store.rollback(model.key, to).await;
        if to > model.revision() {
            assert!(matches!(rolled, Err(Error::NotFound(_))));
        } else if to > 0 && to <= model.revision() - i64::from(KEEP) {
            assert!(matches!(rolled, Err(Error::WeightsGone(_))));
        } else {
            model.weights.push(model.weights[to as usize].clone());
            assert_eq!(rolled.unwrap().revision, model.revision());
        }
    }

    async fn apply(mut self, op: Op) -> Self {
        let free =
            |n| self.models.get(n).filter(|model| self.running.get(n).is_none_or(|r| r.model.key != model.key)).map(|model| model.key);
        match op {
            Op::Create(n) => self.create(n, None).await,
            Op::Copy { from, to } if self.models.contains_key(&from) => self.create(to, Some(from)).await,
            Op::Train(n) | Op::Start(n) => {
                if let Some(key) = free(&n) {
                    let running = started(&self.w.store, key).await;
                    self.running.insert(n, running);
                    if matches!(op, Op::Train(_)) {
                        self.end(n).await;
                    }
                }
            }
            Op::Unchanged(n) | Op::Fail(n) => {
                if let Some(key) = free(&n) {
                    let running = started(&self.w.store, key).await;
                    match op {
                        Op::Fail(_) => self.w.store.fail_train(&running, "bad").await.unwrap(),
                        _ => self.w.store.finish_unchanged(&running, &false.into()).await.unwrap(),
                    }
                }
            }
            Op::Commit(n) => self.end(n).await,
            Op::Abandon(n) => drop(self.running.remove(&n)),
            Op::Rollback(n, to) => self.rollback(n, to).await,
            Op::Delete(n) => {
                if let Some(model) = self.models.remove(&n) {
                    self.w.store.delete_model(model.key).await.unwrap();
                }
            }
            Op::Sweep => {
                let now = self.w.store.now().await.unwrap();
                self.w.store.sweep(now, -60.0).await.unwrap();
            }
            Op::Restart => {
                self.running.clear();
                self.w = self.w.reopen(options()).await;
                self.w.store.recover().await.unwrap();
            }
            Op::Copy { .. } => {}
        }
        self
    }

    async fn check(&self) {
        self.w.assert_sound().await;
        let mut live = self.w.store.models(self.w.owner).await.unwrap();
        live.sort_by_key(|model| model.name.clone());
        assert_eq!(live.len(), self.models.len());
        for (row, expected) in live.iter().zip(self.models.values()) {
            assert_eq!((row.key, row.revision), (expected.key, expected.revision()));
            assert_eq!(self.w.store.blob(&row.blob_sha256).await.unwrap(), expected.weights.last().unwrap());
            assert_eq!(self.w.store.blob(&row.reference_sha256).await.unwrap(), expected.weights[0]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_the_invariants(ops in prop::collection::vec(op(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut case = Case { w: world_with(options()).await, models: BTreeMap::new(), running: BTreeMap::new(), made: 0 };
            for op in ops {
                case = case.apply(op).await;
                case.check().await;
            }
        });
    }
}

#[tokio::test]
async fn a_begun_training_of_a_deleted_model_cannot_reach_its_namesake() {
    let w = world_with(options()).await;
    let old = w.model("m").await.key;
    let running = started(&w.store, old).await;
    w.store.delete_model(old).await.unwrap();
    let new = w.model("m").await;
    assert!(w.store.begin_train(begin(old)).await.is_err());
    let outcome = crate::common::outcome("m", 1);
    assert!(matches!(w.store.commit_train(&running, outcome).await, Err(Error::Cancelled)));
    assert_eq!(w.now(new.key).await, new);
}
