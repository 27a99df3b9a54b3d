//! Negative controls: each rule is tested by a check that passes with the rule and must fail without it.

use crate::common::{BeginTrainExt as _, adapter, begin, outcome, started, ticket, token, train, world_with};
use tiger_store::{Controls, Options};

fn with(controls: Controls) -> Options {
    Options { controls, ..Options::default() }
}

/// A training crashes and is taken over by a second attempt; then the first one, declared dead, wants to commit.
async fn the_dead_attempt_is_refused(controls: Controls) -> bool {
    let w = world_with(with(controls)).await;
    let model = w.model("m").await.key;
    let first = ticket(w.store.begin_train(begin(model).with_request()).await.unwrap());
    let dead = w.store.start(&first).await.unwrap();
    let w = w.reopen(with(controls)).await;
    let recovered = w.store.recover().await.unwrap();
    let alive = w.store.start(&recovered.retry[0].ticket).await.unwrap();
    assert_eq!((dead.id, dead.fence + 1), (alive.id, alive.fence));
    let refused = w.store.commit_train(&dead, outcome("written by the dead", 1)).await.is_err();
    refused && w.store.commit_train(&alive, outcome("m", 1)).await.is_ok() && w.store.check().await.unwrap().problems.is_empty()
}

#[tokio::test]
async fn the_fence() {
    assert!(the_dead_attempt_is_refused(Controls::default()).await);
    assert!(!the_dead_attempt_is_refused(Controls { no_fence: true, ..Controls::default() }).await);
}

/// A rollback moves the model under a training that runs; its commit would lose the rollback.
async fn no_update_is_lost(controls: Controls) -> bool {
    let w = world_with(with(controls)).await;
    let model = w.model("m").await.key;
    train(&w.store, model).await;
    let running = started(&w.store, model).await;
    w.store.rollback(model, 0).await.unwrap();
    let refused = w.store.commit_train(&running, outcome("m", 2)).await.is_err();
    let sound = w.store.check().await.unwrap().problems.is_empty();
    assert_eq!(refused, sound, "the integrity check sees a lost update");
    refused
}

#[tokio::test]
async fn the_compare_and_swap() {
    assert!(no_update_is_lost(Controls::default()).await);
    assert!(!no_update_is_lost(Controls { no_compare_and_swap: true, ..Controls::default() }).await);
}

/// A stream reads its weights for every token while its model is trained, deleted and swept; all tokens must come from the weights
/// that it was admitted with.
async fn a_stream_keeps_its_weights(controls: Controls) -> bool {
    let w = world_with(Options { keep_weights: Some(1), ..with(controls) }).await;
    let model = w.model("m").await.key;
    train(&w.store, model).await;
    let (admitted, pin) = w.store.pin_model(w.owner, "m").await.unwrap().unwrap();
    assert_eq!((admitted.revision, pin.sha256()), (1, admitted.blob_sha256.as_str()));
    let expected = adapter("m", 1);
    for i in 0..4 {
        let Ok(weights) = w.store.blob(pin.sha256()).await else { return false };
        assert_eq!(token(&weights, i), token(&expected, i));
        match i {
            0 | 1 => drop(train(&w.store, model).await),
            _ => drop(w.store.delete_model(model).await),
        }
        let now = w.store.now().await.unwrap();
        w.store.sweep(now, -60.0).await.unwrap();
    }
    drop(pin);
    let now = w.store.now().await.unwrap();
    assert!(w.store.sweep(now, -60.0).await.unwrap().removed > 0, "with its last reader the blob goes");
    true
}

#[tokio::test]
async fn the_pin() {
    assert!(a_stream_keeps_its_weights(Controls::default()).await);
    assert!(!a_stream_keeps_its_weights(Controls { ignore_pins: true, ..Controls::default() }).await);
}
