//! A data directory that is gone after the test, an account and models in it, and an engine whose weights are a function of the
//! revision that they belong to.

use bytes::Bytes;
use serde_json::json;
use std::path::Path;
use tempfile::TempDir;
use tiger_store::{
    AccountId, BeginTrain, Begun, ModelKey, ModelRow, NewModel, Options, Outcome, Running, Sampling, Store, Ticket, Weights, sha256_hex,
};

/// A store with an owner in a temporary data directory.
pub struct World {
    pub store: Store,
    pub owner: AccountId,
    dir: TempDir,
}

/// A data directory that nobody uses.
pub struct Closed {
    owner: AccountId,
    dir: TempDir,
}

impl Closed {
    pub async fn open(self, options: Options) -> World {
        World { store: Store::open_with(self.dir.path(), options).await.unwrap(), owner: self.owner, dir: self.dir }
    }
}

pub async fn world() -> World {
    world_with(Options::default()).await
}

pub async fn world_with(options: Options) -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), options).await.unwrap();
    let owner = store.ensure_owner().await.unwrap().id;
    World { store, owner, dir }
}

impl World {
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends this process's use of the directory and begins another, as a restart does.
    pub async fn reopen(self, options: Options) -> World {
        self.close().await.open(options).await
    }

    /// Gives the directory up.
    pub async fn close(self) -> Closed {
        self.store.close().await;
        Closed { owner: self.owner, dir: self.dir }
    }

    pub async fn model(&self, name: &str) -> ModelRow {
        create(&self.store, self.owner, name).await
    }

    /// The model again, as it is now.
    pub async fn now(&self, key: ModelKey) -> ModelRow {
        self.store.model_by_key(key).await.unwrap().unwrap()
    }

    pub async fn assert_sound(&self) {
        assert_sound(&self.store).await;
    }
}

pub async fn assert_sound(store: &Store) {
    let report = store.check().await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
}

pub fn new_model(account: AccountId, name: &str) -> NewModel {
    NewModel {
        account,
        name: name.to_owned(),
        description: String::new(),
        base_model: "base".to_owned(),
        parent: "base".to_owned(),
        rank: 4,
        alpha: 8.0,
        dropout: 0.0,
        sampling: Sampling::default(),
        learning_rate: None,
        seed: 7,
    }
}

pub async fn create(store: &Store, account: AccountId, name: &str) -> ModelRow {
    let blob = store.put_blob(adapter(name, 0)).await.unwrap();
    store.create_model(&new_model(account, name), Weights::Fresh(&blob), &[]).await.unwrap()
}

/// The fake engine's weights of a model at a revision.
pub fn adapter(name: &str, revision: i64) -> Bytes {
    Bytes::from(format!("weights of {name} at revision {revision};").repeat(100))
}

/// The fake engine's optimizer state of a model at a revision.
pub fn optimizer(name: &str, revision: i64) -> Bytes {
    Bytes::from(format!("moments of {name} at revision {revision};").repeat(200))
}

/// The fake engine's token `i`: a function of the weights' bytes, so that a stream from two revisions shows.
pub fn token(weights: &[u8], i: u32) -> String {
    sha256_hex(&[weights, &i.to_le_bytes()].concat())
}

pub fn outcome(name: &str, revision: i64) -> Outcome {
    Outcome {
        adapter: adapter(name, revision),
        optimizer: optimizer(name, revision),
        metrics: json!({"loss": 1.0 / revision as f64, "revision": revision}),
        answer: json!({"id": "train", "revision": revision, "updated": true}),
    }
}

pub fn begin(model: ModelKey) -> BeginTrain {
    BeginTrain { model, idempotency_key: None, request_sha256: sha256_hex(b"body"), request: None, if_revision: None }
}

pub fn ticket(begun: Begun) -> Ticket {
    match begun {
        Begun::Queued(ticket) => ticket,
        other => panic!("not queued: {other:?}"),
    }
}

pub async fn started(store: &Store, model: ModelKey) -> Running {
    let ticket = ticket(store.begin_train(begin(model)).await.unwrap());
    store.start(&ticket).await.unwrap()
}

/// One whole training with the fake engine.
pub async fn train(store: &Store, model: ModelKey) -> i64 {
    let running = started(store, model).await;
    let outcome = outcome(&running.model.name, running.new_revision());
    store.commit_train(&running, outcome).await.unwrap()
}

/// Requests of tests.
pub trait BeginTrainExt {
    /// With a request that is kept, so that a crash is retried.
    fn with_request(self) -> Self;
}

impl BeginTrainExt for BeginTrain {
    fn with_request(self) -> Self {
        Self { request: Some("{}".to_owned()), ..self }
    }
}
