//! Blobs: once, checked, pinned, swept; and a disk that is full.

use crate::common::{adapter, begin, outcome, started, ticket, train, world, world_with};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tiger_store::{Error, FAILPOINTS, Options, TrainState, sha256_hex};

#[tokio::test]
async fn blobs_are_named_by_their_content() {
    let w = world().await;
    for (bytes, sha256) in [
        (&b""[..], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ] {
        let blob = w.store.put_blob(Bytes::from_static(bytes)).await.unwrap();
        assert_eq!((blob.sha256.as_str(), blob.bytes), (sha256, bytes.len() as u64));
        assert_eq!(w.store.blob(sha256).await.unwrap(), bytes);
        assert_eq!(std::fs::read(w.dir().join("blobs").join(&sha256[..2]).join(&sha256[2..])).unwrap(), bytes);
    }
    assert_eq!(std::fs::read_dir(w.dir().join("blobs/tmp")).unwrap().count(), 0);
    for name in ["", "../../etc/passwd", &"A".repeat(64), &"é".repeat(32)] {
        assert!(matches!(w.store.blob(name).await, Err(Error::Invalid { .. })), "{name}");
    }
}

#[tokio::test]
async fn damage_is_found_on_reading_and_healed_by_storing_again() {
    let w = world().await;
    let model = w.model("m").await;
    let file = w.dir().join("blobs").join(&model.blob_sha256[..2]).join(&model.blob_sha256[2..]);
    for damage in [Some(&b"torn"[..]), None] {
        match damage {
            Some(bytes) => std::fs::write(&file, bytes).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let read = w.store.blob(&model.blob_sha256).await;
        assert!(matches!(read, Err(Error::DamagedBlob { .. })), "{read:?}");
        assert_eq!(w.store.check().await.unwrap().problems.len(), 1);
        drop(w.store.put_blob(adapter("m", 0)).await.unwrap());
        w.assert_sound().await;
    }
}

#[tokio::test]
async fn a_sweep_takes_what_is_old_unnamed_and_unpinned() {
    let w = world().await;
    let model = w.model("m").await;
    train(&w.store, model.key).await;
    let now = w.store.now().await.unwrap();
    let unnamed = w.store.put_blob(Bytes::from_static(b"nobody's")).await.unwrap();
    let sha256 = unnamed.sha256.clone();
    let removed = async |older_than_s| w.store.sweep(now, older_than_s).await.unwrap().removed;
    assert_eq!(removed(-60.0).await, 0, "held by its maker");
    drop(unnamed);
    assert_eq!(removed(86_400.0).await, 0, "young");
    let (first, second) = (w.store.pin(&sha256).await, w.store.pin(&sha256).await);
    drop(first);
    assert_eq!(removed(-60.0).await, 0, "pinned");
    drop(second);
    let swept = w.store.sweep(now, -60.0).await.unwrap();
    assert_eq!((swept.removed, swept.bytes, swept.kept), (1, 8, 3));
    assert!(matches!(w.store.blob(&sha256).await, Err(Error::DamagedBlob { .. })));
    w.assert_sound().await;
    w.store.delete_model(model.key).await.unwrap();
    assert_eq!(removed(-60.0).await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_stored_while_a_sweep_runs_is_there() {
    let w = world().await;
    let now = w.store.now().await.unwrap();
    let sweeper = {
        let store = w.store.clone();
        tokio::spawn(async move {
            loop {
                store.sweep(now, -600.0).await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for _ in 0..100 {
        // The same bytes each time: swept as soon as nobody holds them, found again or written again by the next.
        let blob = w.store.put_blob(Bytes::from_static(b"contended")).await.unwrap();
        tokio::task::yield_now().await;
        assert_eq!(w.store.blob(&blob.sha256).await.unwrap(), &b"contended"[..]);
    }
    sweeper.abort();
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_cleared_at_opening() {
    let w = world().await;
    let left = w.dir().join("blobs/tmp/left#1");
    std::fs::write(&left, b"half").unwrap();
    let w = w.reopen(Options::default()).await;
    assert!(!left.exists());
    w.assert_sound().await;
}

/// Every place where a disk can be full in a training: nothing changes, the error says so, and the training can be repeated.
#[tokio::test]
async fn a_full_disk_changes_nothing() {
    let points = FAILPOINTS.iter().filter(|name| !["train_begun", "train_started", "after_commit"].contains(name));
    for &point in points {
        let full = Arc::new(AtomicBool::new(false));
        let hook =
            {
                let full = Arc::clone(&full);
                Arc::new(move |name: &'static str| {
                    if name == point && full.load(Ordering::Relaxed) { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
                })
            };
        let w = world_with(Options { failpoint: Some(hook), ..Options::default() }).await;
        let model = w.model("m").await;
        train(&w.store, model.key).await;
        let before = w.now(model.key).await;
        full.store(true, Ordering::Relaxed);
        let running = started(&w.store, model.key).await;
        let refused = w.store.commit_train(&running, outcome("m", 2)).await.unwrap_err();
        assert!(matches!(refused, Error::DiskFull), "{point}: {refused}");
        assert!(refused.to_string().contains("free some space"));
        drop(running);
        assert_eq!(w.store.reap_abandoned().await.unwrap(), 1);
        assert_eq!(w.now(model.key).await, before, "{point}");
        assert_eq!(std::fs::read_dir(w.dir().join("blobs/tmp")).unwrap().count(), 0, "{point}: no leftovers");
        w.assert_sound().await;
        full.store(false, Ordering::Relaxed);
        assert_eq!(train(&w.store, model.key).await, 2);
        w.assert_sound().await;
    }
}

/// The database itself runs full: the same promise, made by SQLite's own error.
#[tokio::test]
async fn a_full_database_changes_nothing() {
    let w = world_with(Options { max_database_pages: Some(60), ..Options::default() }).await;
    let model = w.model("m").await;
    let large = serde_json::Value::String("x".repeat(20_000));
    let mut acknowledged = 0;
    let refused = loop {
        let begun = match w.store.begin_train(begin(model.key)).await {
            Ok(begun) => ticket(begun),
            Err(error) => break error,
        };
        let running = w.store.start(&begun).await.unwrap();
        let mut outcome = outcome("m", running.new_revision());
        outcome.metrics = large.clone();
        match w.store.commit_train(&running, outcome).await {
            Ok(revision) => acknowledged = revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::DiskFull), "{refused}");
    assert!(acknowledged > 1);
    assert_eq!(w.now(model.key).await.revision, acknowledged);
    assert!(w.store.trains(model.key, 100).await.unwrap().iter().filter(|t| t.state == TrainState::Done).count() as i64 == acknowledged);
    w.assert_sound().await;
    let w = w.reopen(Options::default()).await;
    w.store.recover().await.unwrap();
    assert_eq!(train(&w.store, model.key).await, acknowledged + 1);
    assert_eq!(w.now(model.key).await.blob_sha256, sha256_hex(&adapter("m", acknowledged + 1)));
    w.assert_sound().await;
}
