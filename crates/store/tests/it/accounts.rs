//! Accounts, invitations and sessions.

use crate::common::{world, world_with};
use tiger_store::{Error, Options};

#[tokio::test]
async fn an_owner_made_on_the_command_line_becomes_the_owner_who_signs_in() {
    let w = world().await;
    assert!(!w.store.has_owner().await.unwrap());
    let again = w.store.ensure_owner().await.unwrap();
    assert_eq!((again.id, again.has_password), (w.owner, false));
    assert!(w.store.verify_password("owner", "").await.unwrap().is_none());

    let owner = w.store.create_owner("Ada", Some("correct horse")).await.unwrap();
    assert_eq!((owner.id, owner.name.as_str(), owner.owner, owner.has_password), (w.owner, "Ada", true, true));
    assert!(w.store.has_owner().await.unwrap());
    assert!(matches!(w.store.create_owner("Eve", Some("correct horse")).await, Err(Error::OwnerExists)));
    assert_eq!(w.store.ensure_owner().await.unwrap().name, "Ada");
}

#[tokio::test]
async fn passwords_open_only_their_account() {
    let w = world().await;
    w.store.create_owner("Ada", Some("correct horse")).await.unwrap();
    for (name, password, opens) in
        [("Ada", "correct horse", true), ("ada", "correct horse", true), ("Ada", "wrong horse", false), ("Bob", "correct horse", false)]
    {
        assert_eq!(w.store.verify_password(name, password).await.unwrap().is_some(), opens, "{name} {password}");
    }
    for password in ["short", &"x".repeat(2000)] {
        assert!(matches!(w.store.set_password(w.owner, password).await, Err(Error::Invalid { param: "password", .. })));
    }
    let session = w.store.create_session(w.owner, 60.0).await.unwrap();
    w.store.set_password(w.owner, "battery staple").await.unwrap();
    assert!(w.store.verify_password("Ada", "correct horse").await.unwrap().is_none());
    assert!(w.store.verify_password("Ada", "battery staple").await.unwrap().is_some());
    assert!(w.store.session(&session).await.unwrap().is_none(), "a new password ends the sessions");
}

#[tokio::test]
async fn an_invitation_makes_one_account() {
    let w = world().await;
    let invitation = w.store.create_invitation(w.owner, 3600.0).await.unwrap();
    assert_eq!(invitation.token.len(), 43);
    for (name, password) in [("", "correct horse"), ("a\nb", "correct horse"), ("Bob", "short")] {
        assert!(matches!(w.store.accept_invitation(&invitation.token, name, password).await, Err(Error::Invalid { .. })));
    }
    assert!(matches!(w.store.accept_invitation(&invitation.token, "OWNER", "correct horse").await, Err(Error::NameTaken(_))));
    assert!(matches!(w.store.accept_invitation("guessed", "Bob", "correct horse").await, Err(Error::BadInvitation)));
    let bob = w.store.accept_invitation(&invitation.token, "Bob", "correct horse").await.unwrap();
    assert!(!bob.owner);
    assert!(matches!(w.store.accept_invitation(&invitation.token, "Eve", "correct horse").await, Err(Error::BadInvitation)));
    let names: Vec<_> = w.store.accounts().await.unwrap().into_iter().map(|account| account.name).collect();
    assert_eq!(names, ["owner", "Bob"], "a refused invitation leaves no account");
}

#[tokio::test]
async fn sessions_and_invitations_expire() {
    let w = world().await;
    let session = w.store.create_session(w.owner, 100.0).await.unwrap();
    let revoked = w.store.create_session(w.owner, 100.0).await.unwrap();
    let invitation = w.store.create_invitation(w.owner, 100.0).await.unwrap();
    assert_eq!(w.store.session(&session).await.unwrap().unwrap().account.id, w.owner);
    assert!(w.store.session("guessed").await.unwrap().is_none());
    assert!(w.store.revoke_session(&revoked).await.unwrap());
    assert!(!w.store.revoke_session(&revoked).await.unwrap());
    assert!(w.store.session(&revoked).await.unwrap().is_none());

    let w = w.reopen(Options { clock_offset_s: 99.0, ..Options::default() }).await;
    assert!(w.store.session(&session).await.unwrap().is_some());
    let w = w.reopen(Options { clock_offset_s: 101.0, ..Options::default() }).await;
    assert!(w.store.session(&session).await.unwrap().is_none());
    assert!(matches!(w.store.accept_invitation(&invitation.token, "Bob", "correct horse").await, Err(Error::BadInvitation)));
}

#[tokio::test]
async fn secrets_are_not_in_the_data_directory() {
    let w = world_with(Options::default()).await;
    let key = w.store.create_key(w.owner, "key").await.unwrap().secret;
    let session = w.store.create_session(w.owner, 100.0).await.unwrap();
    let invitation = w.store.create_invitation(w.owner, 100.0).await.unwrap().token;
    w.store.create_owner("Ada", Some("correct horse battery")).await.unwrap();
    let mut stored = Vec::new();
    for file in std::fs::read_dir(w.dir()).unwrap().flatten().filter(|file| file.path().is_file()) {
        stored.extend(std::fs::read(file.path()).unwrap());
    }
    let holds = |needle: &str| stored.windows(needle.len()).any(|window| window == needle.as_bytes());
    assert!(holds("Ada"), "the search finds what is stored");
    for secret in [key.as_str(), &session, &invitation, "correct horse battery"] {
        assert!(!holds(secret));
    }
}
