//! The queue of a model, idempotency, and the ends of a training.

use crate::common::{adapter, begin, optimizer, outcome, started, ticket, train, world};
use serde_json::json;
use std::time::Duration;
use tiger_store::{BeginTrain, Begun, Error, MAX_QUEUED_PER_MODEL, Options, StoredAnswer, TrainState, sha256_hex};

#[tokio::test]
async fn a_training_moves_the_model_by_one() {
    let w = world().await;
    let model = w.model("m").await;
    for revision in 1..=3 {
        assert_eq!(train(&w.store, model.key).await, revision);
        let now = w.now(model.key).await;
        assert_eq!((now.revision, &now.blob_sha256), (revision, &sha256_hex(&adapter("m", revision))));
        assert_eq!(now.optimizer_sha256, Some(sha256_hex(&optimizer("m", revision))));
        assert_eq!(now.reference_sha256, sha256_hex(&adapter("m", 0)));
        assert_eq!(now.blob_bytes, adapter("m", revision).len() as i64);
    }
    w.assert_sound().await;
}

#[tokio::test]
async fn trainings_of_one_model_run_in_order_of_arrival() {
    let w = world().await;
    let model = w.model("m").await;
    let tickets = [0; 5].map(|_| begin(model.key));
    let mut waiting = Vec::new();
    for begin in tickets {
        let ticket = ticket(w.store.begin_train(begin).await.unwrap());
        assert_eq!(w.store.queue_position(&ticket).await.unwrap(), waiting.len());
        waiting.push(ticket);
    }
    assert!(w.now(model.key).await.training);
    let (order, mut arrived) = tokio::sync::mpsc::unbounded_channel();
    // The last asks first: only the order of arrival counts.
    let tasks: Vec<_> = waiting
        .into_iter()
        .rev()
        .map(|ticket| {
            let (store, order) = (w.store.clone(), order.clone());
            tokio::spawn(async move {
                let running = store.start(&ticket).await.unwrap();
                order.send((ticket.id, running.model.revision)).unwrap();
                let outcome = outcome("m", running.new_revision());
                store.commit_train(&running, outcome).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let mut last = None;
    for base in 0..5 {
        let (id, revision) = arrived.recv().await.unwrap();
        assert_eq!(revision, base);
        assert!(last < Some(id));
        last = Some(id);
    }
    assert!(!w.now(model.key).await.training);
    w.assert_sound().await;
}

#[tokio::test]
async fn different_models_train_at_once() {
    let w = world().await;
    let (a, b) = (w.model("a").await, w.model("b").await);
    let (a, b) = (started(&w.store, a.key).await, started(&w.store, b.key).await);
    w.store.commit_train(&b, outcome("b", 1)).await.unwrap();
    w.store.commit_train(&a, outcome("a", 1)).await.unwrap();
    w.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_the_old_revision_or_the_new_one() {
    let w = world().await;
    let model = w.model("m").await;
    let trainer = {
        let (store, key) = (w.store.clone(), model.key);
        tokio::spawn(async move {
            for _ in 0..10 {
                train(&store, key).await;
            }
        })
    };
    let mut last = 0;
    while !trainer.is_finished() {
        let (row, pin) = w.store.pin_model(w.owner, "m").await.unwrap().unwrap();
        assert!(row.revision >= last, "what was seen once is seen ever after");
        last = row.revision;
        assert_eq!(w.store.blob(pin.sha256()).await.unwrap(), adapter("m", row.revision));
        let moments = (row.revision > 0).then(|| sha256_hex(&optimizer("m", row.revision)));
        assert_eq!(row.optimizer_sha256, moments);
    }
    trainer.await.unwrap();
    assert_eq!(w.now(model.key).await.revision, 10);
}

/// A caller who hangs up drops the call wherever it is: nothing is half done, nobody waits for him, and what he saw is true.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_leaves_nothing_half_done() {
    let w = world().await;
    let model = w.model("m").await.key;
    let (mut dropped, mut made) = (0, 0);
    for i in 0..60 {
        let before = w.now(model).await.revision;
        let call = async {
            let running = started(&w.store, model).await;
            let outcome = outcome("m", running.new_revision());
            w.store.commit_train(&running, outcome).await.unwrap()
        };
        let acknowledged = tokio::time::timeout(Duration::from_micros(400 * i), call).await.ok();
        dropped += usize::from(acknowledged.is_none());
        let report = tokio::spawn({
            let store = w.store.clone();
            async move { store.check().await }
        });
        assert_eq!(report.await.unwrap().unwrap().problems, Vec::<String>::new());
        let after = w.now(model).await.revision;
        assert!(acknowledged.map_or(after - before <= 1, |revision| revision == after), "{acknowledged:?} {before} {after}");
        made = after;
    }
    assert!(dropped > 0);
    assert_eq!(train(&w.store, model).await, made + 1, "the queue is free");
    w.assert_sound().await;
}

#[tokio::test]
async fn ends_without_new_weights_leave_the_model_as_it_was() {
    let w = world().await;
    let model = w.model("m").await;
    train(&w.store, model.key).await;
    let before = w.now(model.key).await;

    let running = started(&w.store, model.key).await;
    w.store.finish_unchanged(&running, &json!({"updated": false})).await.unwrap();
    let failed = started(&w.store, model.key).await;
    w.store.fail_train(&failed, "training_diverged").await.unwrap();
    let cancelled = started(&w.store, model.key).await;
    assert!(w.store.cancel_train(cancelled.id).await.unwrap());
    assert!(!w.store.cancel_train(cancelled.id).await.unwrap());
    for (ended, cancel) in [(&running, false), (&failed, false), (&cancelled, true)] {
        let refused = w.store.commit_train(ended, outcome("m", 2)).await;
        assert!(if cancel { matches!(refused, Err(Error::Cancelled)) } else { matches!(refused, Err(Error::Fenced)) }, "{refused:?}");
    }
    let states: Vec<_> = w.store.trains(model.key, 10).await.unwrap().into_iter().map(|t| (t.state, t.new_revision)).collect();
    let expected = [(TrainState::Cancelled, None), (TrainState::Failed, None), (TrainState::Done, None), (TrainState::Done, Some(1))];
    assert_eq!(states, expected);
    assert_eq!(w.store.train(failed.id).await.unwrap().unwrap().error.as_deref(), Some("training_diverged"));
    assert_eq!(w.now(model.key).await, before);
    w.assert_sound().await;
}

fn keyed(model: tiger_store::ModelKey, key: &str, body: &str) -> BeginTrain {
    BeginTrain { idempotency_key: Some(key.to_owned()), request_sha256: sha256_hex(body.as_bytes()), ..begin(model) }
}

#[tokio::test]
async fn an_idempotency_key_trains_once() {
    let w = world().await;
    let (model, other) = (w.model("m").await.key, w.model("other").await.key);
    let first = ticket(w.store.begin_train(keyed(model, "k", "body")).await.unwrap());
    assert!(matches!(w.store.begin_train(keyed(model, "k", "body")).await.unwrap(), Begun::InFlight));
    let running = w.store.start(&first).await.unwrap();
    assert!(matches!(w.store.begin_train(keyed(model, "k", "body")).await.unwrap(), Begun::InFlight));
    assert!(matches!(w.store.begin_train(keyed(model, "k", "changed")).await.unwrap(), Begun::OtherRequest));
    let answer = outcome("m", 1).answer;
    w.store.commit_train(&running, outcome("m", 1)).await.unwrap();

    let w = w.reopen(Options::default()).await;
    let expected = StoredAnswer { id: first.id, revision: Some(1), answer: answer.clone() };
    // The condition held when it counted; the retry of an answered request is answered, not judged again.
    for if_revision in [None, Some(0)] {
        let retry = BeginTrain { if_revision, ..keyed(model, "k", "body") };
        match w.store.begin_train(retry).await.unwrap() {
            Begun::Replay(stored) => {
                assert_eq!(stored, expected);
                assert_eq!(stored.answer.to_string(), answer.to_string(), "byte for byte");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(w.store.begin_train(keyed(model, "k", "changed")).await.unwrap(), Begun::OtherRequest));
    assert!(matches!(w.store.begin_train(keyed(other, "k", "changed")).await.unwrap(), Begun::Queued(_)), "keys are a model's own");
    assert_eq!(w.now(model).await.revision, 1);

    let unchanged = ticket(w.store.begin_train(keyed(model, "same", "body")).await.unwrap());
    let running = w.store.start(&unchanged).await.unwrap();
    w.store.finish_unchanged(&running, &json!({"updated": false})).await.unwrap();
    let replay = w.store.begin_train(keyed(model, "same", "body")).await.unwrap();
    assert!(matches!(replay, Begun::Replay(StoredAnswer { revision: None, .. })), "{replay:?}");
    for key in ["", &"k".repeat(256)] {
        assert!(matches!(w.store.begin_train(keyed(model, key, "")).await, Err(Error::Invalid { .. })));
    }
    w.assert_sound().await;
}

#[tokio::test]
async fn a_failed_or_abandoned_training_frees_its_key_and_its_place() {
    let w = world().await;
    let model = w.model("m").await.key;
    let failed = ticket(w.store.begin_train(keyed(model, "k", "body")).await.unwrap());
    let running = w.store.start(&failed).await.unwrap();
    w.store.fail_train(&running, "no luck").await.unwrap();
    let dropped = ticket(w.store.begin_train(keyed(model, "k", "body")).await.unwrap());
    drop(w.store.start(&dropped).await.unwrap());
    // Its ticket still holds the place.
    assert!(matches!(w.store.begin_train(keyed(model, "k", "body")).await.unwrap(), Begun::InFlight));
    let next = ticket(w.store.begin_train(begin(model)).await.unwrap());
    let store = w.store.clone();
    let waiter = tokio::spawn(async move { store.start(&next).await.map(|running| running.model.revision) });
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    drop(dropped);
    // Dropping rings at once: well before the waiting training would look by itself.
    assert_eq!(tokio::time::timeout(Duration::from_secs(4), waiter).await.unwrap().unwrap().unwrap(), 0);
    assert!(matches!(w.store.begin_train(keyed(model, "k", "body")).await.unwrap(), Begun::Queued(_)));
    assert_eq!(w.store.reap_abandoned().await.unwrap(), 1, "beginning passed the other one by");
    assert!(!w.now(model).await.training);
    w.assert_sound().await;
}

#[tokio::test]
async fn if_revision_is_judged_at_arrival_and_at_the_turn() {
    let w = world().await;
    let model = w.model("m").await.key;
    let wrong = BeginTrain { if_revision: Some(1), ..begin(model) };
    assert!(matches!(w.store.begin_train(wrong).await, Err(Error::RevisionMoved { expected: 1, current: 0 })));
    let conditional = || BeginTrain { if_revision: Some(0), ..begin(model) };
    let first = ticket(w.store.begin_train(conditional()).await.unwrap());
    let second = ticket(w.store.begin_train(conditional()).await.unwrap());
    let running = w.store.start(&first).await.unwrap();
    w.store.commit_train(&running, outcome("m", 1)).await.unwrap();
    assert!(matches!(w.store.start(&second).await, Err(Error::RevisionMoved { expected: 0, current: 1 })));
    assert_eq!(w.store.train(second.id).await.unwrap().unwrap().state, TrainState::Failed);
    assert_eq!(train(&w.store, model).await, 2);
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let w = world().await;
    let model = w.model("m").await.key;
    let mut waiting = Vec::new();
    for _ in 0..MAX_QUEUED_PER_MODEL {
        waiting.push(ticket(w.store.begin_train(begin(model)).await.unwrap()));
    }
    assert!(matches!(w.store.begin_train(begin(model)).await, Err(Error::QueueFull(MAX_QUEUED_PER_MODEL))));
    waiting.pop();
    assert!(w.store.begin_train(begin(model)).await.is_ok());
}

#[tokio::test]
async fn a_restart_keeps_the_order_and_fails_what_cannot_be_repeated() {
    let w = world().await;
    let model = w.model("m").await.key;
    let request = |text: &str| BeginTrain { request: Some(text.to_owned()), ..begin(model) };
    let first = ticket(w.store.begin_train(request("one")).await.unwrap());
    let running = w.store.start(&first).await.unwrap();
    let second = ticket(w.store.begin_train(request("two")).await.unwrap());
    let lost = ticket(w.store.begin_train(begin(model)).await.unwrap());

    let w = w.reopen(Options::default()).await;
    let recovered = w.store.recover().await.unwrap();
    let retry: Vec<_> = recovered.retry.iter().map(|i| (i.ticket.id, i.request.as_str(), i.attempts)).collect();
    assert_eq!(retry, [(first.id, "one", 1), (second.id, "two", 0)]);
    assert_eq!(recovered.failed, [lost.id]);
    assert!(matches!(w.store.commit_train(&running, outcome("m", 1)).await, Err(Error::Fenced)));
    for interrupted in &recovered.retry {
        let running = w.store.start(&interrupted.ticket).await.unwrap();
        let outcome = outcome("m", running.new_revision());
        w.store.commit_train(&running, outcome).await.unwrap();
    }
    let again = w.store.recover().await.unwrap();
    assert!(again.retry.is_empty() && again.failed.is_empty());
    assert_eq!(w.now(model).await.revision, 2);
    w.assert_sound().await;
}
