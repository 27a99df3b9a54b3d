//! Who may use a data directory: one server, and beside it the command line's key administration.

use crate::common::{begin, new_model, world};
use bytes::Bytes;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use tiger_store::{Error, Store, Weights};

const DIR: &str = "TIGER_STORE_TEST_LOCK_DIR";

/// Not a test of its own: holds a data directory until it is killed.
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let _store = Store::open(dir).await.unwrap();
    println!("ready");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn two_processes_on_one_directory_are_refused_and_keys_are_made_beside_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["locks::child", "--exact", "--nocapture"])
        .env(DIR, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")));

    let refused = Store::open(dir.path()).await.unwrap_err();
    assert!(matches!(refused, Error::Locked { .. }));
    let message = refused.to_string();
    for part in [format!("process {}", holder.id()), dir.path().display().to_string(), "another data directory".to_owned()] {
        assert!(message.contains(&part), "{message}");
    }
    let shared = Store::open_shared(dir.path()).await.unwrap();
    let owner = shared.ensure_owner().await.unwrap().id;
    let key = shared.create_key(owner, "made beside the server").await.unwrap();

    holder.kill().unwrap();
    holder.wait().unwrap();
    let store = Store::open(dir.path()).await.unwrap();
    assert!(store.authenticate(&key.secret).await.unwrap().is_some());
    store.close().await;
}

#[tokio::test]
async fn a_shared_handle_writes_nothing_but_accounts_and_keys() {
    let w = world().await;
    let model = w.model("m").await;
    let shared = Store::open_shared(w.dir()).await.unwrap();
    let key = shared.create_key(w.owner, "key").await.unwrap();
    assert!(w.store.authenticate(&key.secret).await.unwrap().is_some(), "the server sees it at once");
    shared.revoke_key(w.owner, key.row.id).await.unwrap();
    assert!(w.store.authenticate(&key.secret).await.unwrap().is_none(), "and its end as well");
    let blob = w.store.put_blob(Bytes::from_static(b"x")).await.unwrap();
    for refused in [
        shared.put_blob(Bytes::new()).await.map(|_| ()),
        shared.create_model(&new_model(w.owner, "n"), Weights::Fresh(&blob), &[]).await.map(|_| ()),
        shared.begin_train(begin(model.key)).await.map(|_| ()),
        shared.recover().await.map(|_| ()),
        shared.sweep(0.0, 0.0).await.map(|_| ()),
        shared.delete_model(model.key).await,
    ] {
        assert!(matches!(refused, Err(Error::SharedHandle)), "{refused:?}");
    }
    assert_eq!(shared.model_by_key(model.key).await.unwrap(), Some(model));
}

#[tokio::test]
async fn many_first_openings_at_once_make_one_database() {
    let dir = tempfile::tempdir().unwrap();
    let opening: Vec<_> = (0..4).map(|_| tokio::spawn(Store::open_shared(dir.path().to_owned()))).collect();
    let mut owners = Vec::new();
    for store in opening {
        owners.push(store.await.unwrap().unwrap().ensure_owner().await.unwrap().id);
    }
    owners.dedup();
    assert_eq!(owners.len(), 1);
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let w = world().await;
    let database = sqlx::SqlitePool::connect(&format!("sqlite://{}", w.dir().join("tiger.db").display())).await.unwrap();
    let newer =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'newer', 1, x'00', 0)";
    sqlx::query(newer).execute(&database).await.unwrap();
    database.close().await;
    let dir = w.dir().to_owned();
    let closed = w.close().await;
    let refused = Store::open(&dir).await.unwrap_err();
    assert!(matches!(refused, Error::Schema(_)), "{refused}");
    assert!(refused.to_string().contains("newer program"));
    drop(closed);
}
