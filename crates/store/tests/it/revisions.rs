//! The list of revisions and the way back.

use crate::common::{adapter, begin, optimizer, outcome, started, ticket, train, world, world_with};
use serde_json::json;
use tiger_store::{Error, Options, sha256_hex};

#[tokio::test]
async fn revisions_are_listed_with_their_metrics() {
    let w = world().await;
    let model = w.model("m").await;
    for _ in 0..3 {
        train(&w.store, model.key).await;
    }
    let list = w.store.revisions(model.key, 10, None).await.unwrap();
    let numbers: Vec<_> = list.iter().map(|row| row.revision).collect();
    assert_eq!(numbers, [3, 2, 1, 0]);
    assert_eq!((list[0].metrics.clone(), list[3].metrics.clone()), (Some(json!({"loss": 1.0 / 3.0, "revision": 3})), None));
    let page = w.store.revisions(model.key, 2, Some(3)).await.unwrap();
    assert_eq!(page.iter().map(|row| row.revision).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(w.store.revision(model.key, 2).await.unwrap().unwrap(), page[0]);
    assert!(w.store.revision(model.key, 4).await.unwrap().is_none());
    let now = w.now(model.key).await;
    assert!(now.last_modified.unwrap() >= now.created);
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_old_weights() {
    let w = world().await;
    let model = w.model("m").await;
    for _ in 0..2 {
        train(&w.store, model.key).await;
    }
    let back = w.store.rollback(model.key, 1).await.unwrap();
    assert_eq!((back.revision, back.blob_sha256), (3, sha256_hex(&adapter("m", 1))));
    assert_eq!(back.optimizer_sha256, Some(sha256_hex(&optimizer("m", 1))), "training goes on from the moments of then");
    assert_eq!(w.store.revision(model.key, 3).await.unwrap().unwrap().restored_from, Some(1));
    assert_eq!(w.store.rollback(model.key, 0).await.unwrap().optimizer_sha256, None);
    assert_eq!(train(&w.store, model.key).await, 5);
    assert!(matches!(w.store.rollback(model.key, 6).await, Err(Error::NotFound(_))));
    assert!(matches!(w.store.rollback(model.key, -1).await, Err(Error::NotFound(_))));
    w.assert_sound().await;
}

/// What is compared with an old revision reads its weights, however many trainings come meanwhile.
#[tokio::test]
async fn a_pinned_revision_keeps_its_weights() {
    let w = world_with(Options { keep_weights: Some(2), ..Options::default() }).await;
    let model = w.model("m").await;
    train(&w.store, model.key).await;
    let (row, pin) = w.store.pin_revision(model.key, 1).await.unwrap();
    assert_eq!((row.revision, pin.sha256()), (1, sha256_hex(&adapter("m", 1)).as_str()));
    for _ in 0..4 {
        train(&w.store, model.key).await;
    }
    w.store.sweep(w.store.now().await.unwrap(), -10.0).await.unwrap();
    assert_eq!(w.store.blob(pin.sha256()).await.unwrap(), adapter("m", 1));
    assert!(matches!(w.store.pin_revision(model.key, 1).await, Err(Error::WeightsGone(1))));
    assert!(matches!(w.store.pin_revision(model.key, 6).await, Err(Error::NotFound("the revision"))));
    let name = pin.sha256().to_owned();
    drop(pin);
    w.store.sweep(w.store.now().await.unwrap(), -10.0).await.unwrap();
    assert!(w.store.blob(&name).await.is_err(), "nothing keeps it any longer");
}

#[tokio::test]
async fn a_rollback_wins_over_a_training_that_runs() {
    let w = world().await;
    let model = w.model("m").await;
    train(&w.store, model.key).await;
    let running = started(&w.store, model.key).await;
    let waiting = ticket(w.store.begin_train(begin(model.key)).await.unwrap());
    w.store.rollback(model.key, 0).await.unwrap();
    let refused = w.store.commit_train(&running, outcome("m", 2)).await;
    assert!(matches!(refused, Err(Error::RevisionMoved { expected: 1, current: 2 })), "{refused:?}");
    w.store.fail_train(&running, "a rollback came first").await.unwrap();
    assert_eq!(w.now(model.key).await.blob_sha256, sha256_hex(&adapter("m", 0)));
    assert_eq!(w.store.start(&waiting).await.unwrap().model.revision, 2, "the next one builds on the rollback");
    w.assert_sound().await;
}

#[tokio::test]
async fn old_weights_are_let_go_and_revision_zero_stays() {
    let w = world_with(Options { keep_weights: Some(3), keep_optimizers: Some(2), ..Options::default() }).await;
    let model = w.model("m").await;
    for _ in 0..6 {
        train(&w.store, model.key).await;
    }
    let list = w.store.revisions(model.key, 10, None).await.unwrap();
    let kept: Vec<_> = list.iter().map(|row| (row.revision, row.blob_sha256.is_some(), row.optimizer_sha256.is_some())).collect();
    assert_eq!(
        kept,
        [(6, true, true), (5, true, true), (4, true, false), (3, false, false), (2, false, false), (1, false, false), (0, true, false)]
    );
    assert!(matches!(w.store.rollback(model.key, 3).await, Err(Error::WeightsGone(3))));
    let now = w.store.now().await.unwrap();
    assert_eq!(w.store.sweep(now, -10.0).await.unwrap().removed, 3 + 4);
    w.assert_sound().await;
    w.store.rollback(model.key, 4).await.unwrap();
    w.store.rollback(model.key, 0).await.unwrap();
    w.assert_sound().await;
}
