//! API keys.

use crate::common::world;
use tiger_store::{Error, KeyId, Options, Store};

#[tokio::test]
async fn a_key_opens_its_account_until_it_is_revoked() {
    let w = world().await;
    let key = w.store.create_key(w.owner, " laptop ").await.unwrap();
    let other = w.store.create_key(w.owner, "server").await.unwrap();
    assert_eq!((key.secret.len(), key.row.name.as_str(), key.row.prefix.as_str()), (6 + 43, "laptop", &key.secret[..12]));
    assert!(key.secret.starts_with("tiger_"));

    let found = w.store.authenticate(&key.secret).await.unwrap().unwrap();
    assert_eq!((found.account, found.key), (w.owner, key.row.id));
    let wrong_end = format!("{}{}", &key.secret[..48], if key.secret.ends_with('A') { 'B' } else { 'A' });
    let wrong_case = key.secret.to_uppercase();
    let longer = format!("{}A", key.secret);
    for wrong in ["", "tiger_", &key.secret[1..], &key.secret[..48], &longer, &wrong_end, &wrong_case, &"é".repeat(24)] {
        assert!(w.store.authenticate(wrong).await.unwrap().is_none(), "{wrong}");
    }

    assert!(matches!(w.store.revoke_key(w.owner, KeyId(999)).await, Err(Error::NotFound(_))));
    w.store.revoke_key(w.owner, key.row.id).await.unwrap();
    w.store.revoke_key(w.owner, key.row.id).await.unwrap();
    assert!(w.store.authenticate(&key.secret).await.unwrap().is_none());
    assert!(w.store.authenticate(&other.secret).await.unwrap().is_some());

    let list = w.store.keys(w.owner).await.unwrap();
    let list: Vec<_> = list.iter().map(|row| (row.name.as_str(), row.revoked.is_some(), row.last_used.is_some())).collect();
    assert_eq!(list, [("server", false, true), ("laptop", true, true)]);
}

/// The server remembers keys that it has just seen; `tiger keys revoke` runs beside it.
#[tokio::test]
async fn a_key_revoked_through_another_handle_opens_nothing_at_once() {
    let w = world().await;
    let (key, other) = (w.store.create_key(w.owner, "a").await.unwrap(), w.store.create_key(w.owner, "b").await.unwrap());
    let beside = Store::open_shared(w.dir()).await.unwrap();
    for _ in 0..3 {
        assert!(w.store.authenticate(&key.secret).await.unwrap().is_some());
        assert!(w.store.authenticate(&other.secret).await.unwrap().is_some());
    }
    beside.revoke_key(w.owner, key.row.id).await.unwrap();
    assert!(w.store.authenticate(&key.secret).await.unwrap().is_none());
    assert!(w.store.authenticate(&other.secret).await.unwrap().is_some());
    w.store.revoke_key(w.owner, other.row.id).await.unwrap();
    assert!(w.store.authenticate(&other.secret).await.unwrap().is_none());
    let third = beside.create_key(w.owner, "c").await.unwrap();
    assert!(w.store.authenticate(&third.secret).await.unwrap().is_some());
    beside.close().await;
}

#[tokio::test]
async fn another_account_cannot_revoke_or_list_a_key() {
    let w = world().await;
    let key = w.store.create_key(w.owner, "mine").await.unwrap();
    let invitation = w.store.create_invitation(w.owner, 60.0).await.unwrap();
    let bob = w.store.accept_invitation(&invitation.token, "Bob", "correct horse").await.unwrap();
    assert!(matches!(w.store.revoke_key(bob.id, key.row.id).await, Err(Error::NotFound(_))));
    assert!(w.store.keys(bob.id).await.unwrap().is_empty());
    assert!(w.store.authenticate(&key.secret).await.unwrap().is_some());
}

#[tokio::test]
async fn last_use_is_noted_once_a_minute() {
    let w = world().await;
    let key = w.store.create_key(w.owner, "key").await.unwrap();
    w.store.authenticate(&key.secret).await.unwrap();
    let first = w.store.keys(w.owner).await.unwrap()[0].last_used.unwrap();
    w.store.authenticate(&key.secret).await.unwrap();
    assert_eq!(w.store.keys(w.owner).await.unwrap()[0].last_used, Some(first));
    let w = w.reopen(Options { clock_offset_s: 61.0, ..Options::default() }).await;
    w.store.authenticate(&key.secret).await.unwrap();
    assert!(w.store.keys(w.owner).await.unwrap()[0].last_used.unwrap() >= first + 60.0);
}

#[tokio::test]
async fn bad_key_names_are_refused() {
    let w = world().await;
    for name in ["", "   ", "a\u{7}b", &"x".repeat(65)] {
        assert!(matches!(w.store.create_key(w.owner, name).await, Err(Error::Invalid { param: "name", .. })), "{name:?}");
    }
}
