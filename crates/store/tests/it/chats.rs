//! Chats: versions, search, pages, limits; and what the end of an account takes with it.

use crate::common::{World, begin, create, ticket, world};
use tiger_store::{AccountId, ChatLimits, ChatPage, Error, InvitationId, NewChat};

const LIMITS: ChatLimits = ChatLimits { chats: 5, bytes: 1000 };

fn chat(title: &str) -> NewChat {
    NewChat { title: title.to_owned(), model: "m".to_owned(), messages: 1, document: format!("{{{title}}}"), search: title.to_lowercase() }
}

fn page(search: Option<&str>, before: Option<(f64, String)>, limit: u32) -> ChatPage {
    ChatPage { search: search.map(str::to_owned), before, limit }
}

async fn bob(w: &World) -> AccountId {
    let invitation = w.store.create_invitation(w.owner, 60.0).await.unwrap();
    w.store.accept_invitation(&invitation.token, "Bob", "correct horse").await.unwrap().id
}

#[tokio::test]
async fn a_chat_is_written_by_whoever_read_it_last_and_seen_by_its_account_alone() {
    let w = world().await;
    let bob = bob(&w).await;
    let made = w.store.create_chat(w.owner, &chat("One"), LIMITS).await.unwrap();
    assert_eq!((made.version, made.created == made.updated, made.id.len()), (1, true, 27));
    let (row, document) = w.store.chat(w.owner, &made.id).await.unwrap().unwrap();
    assert_eq!((row, document.as_str()), (made.clone(), "{One}"));
    assert!(w.store.chat(bob, &made.id).await.unwrap().is_none());
    let write = |account, version| {
        let (store, id) = (w.store.clone(), made.id.clone());
        async move { store.update_chat(account, &id, version, &chat("Two"), LIMITS).await }
    };
    assert!(matches!(write(bob, 1).await, Err(Error::NotFound("the chat"))));
    assert_eq!(write(w.owner, 1).await.unwrap().version, 2);
    assert!(matches!(write(w.owner, 1).await, Err(Error::ChatMoved { expected: 1, current: 2 })));
    assert_eq!(w.store.chat(w.owner, &made.id).await.unwrap().unwrap().1, "{Two}");
    assert!(matches!(w.store.delete_chat(bob, &made.id).await, Err(Error::NotFound(_))));
    w.store.delete_chat(w.owner, &made.id).await.unwrap();
    assert!(matches!(w.store.delete_chat(w.owner, &made.id).await, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn the_list_comes_in_pages_and_is_searched() {
    let w = world().await;
    for title in ["Äpfel", "beta", "Gamma", "delta"] {
        w.store.create_chat(w.owner, &chat(title), LIMITS).await.unwrap();
    }
    let (mut before, mut titles) = (None, Vec::new());
    loop {
        let rows = w.store.chats(w.owner, &page(None, before, 3)).await.unwrap();
        let Some(last) = rows.last() else { break };
        before = Some((last.updated, last.id.clone()));
        titles.extend(rows.into_iter().map(|row| row.title));
    }
    // Written in one millisecond, they come in the order of their ids; each comes once.
    assert_eq!(titles.len(), 4);
    titles.sort();
    assert_eq!(titles, ["Gamma", "beta", "delta", "Äpfel"]);
    for (needle, count) in [("ta", 2), ("äpf", 1), ("%", 0), ("_", 0), ("zeta", 0)] {
        assert_eq!(w.store.chats(w.owner, &page(Some(needle), None, 10)).await.unwrap().len(), count, "{needle}");
    }
    assert_eq!(w.store.delete_chats(w.owner).await.unwrap(), 4);
}

#[tokio::test]
async fn an_account_keeps_so_many_chats_and_bytes_of_them() {
    let w = world().await;
    let bob = bob(&w).await;
    let long = NewChat { document: "x".repeat(960), ..chat("long") };
    let first = w.store.create_chat(w.owner, &chat("1"), LIMITS).await.unwrap();
    w.store.create_chat(w.owner, &long, LIMITS).await.unwrap();
    assert!(matches!(w.store.create_chat(w.owner, &long, LIMITS).await, Err(Error::ChatsFull(_))));
    assert!(matches!(w.store.update_chat(w.owner, &first.id, 1, &long, LIMITS).await, Err(Error::ChatsFull(_))));
    assert_eq!(w.store.chat(w.owner, &first.id).await.unwrap().unwrap().0, first, "a refused write changes nothing");
    for number in 0..3 {
        w.store.create_chat(w.owner, &chat(&number.to_string()), LIMITS).await.unwrap();
    }
    assert!(matches!(w.store.create_chat(w.owner, &chat("6"), LIMITS).await, Err(Error::ChatsFull(_))));
    w.store.create_chat(bob, &long, LIMITS).await.unwrap();
}

#[tokio::test]
async fn the_end_of_an_account_takes_everything_but_what_it_used() {
    let w = world().await;
    let bob = bob(&w).await;
    let key = w.store.create_key(bob, "laptop").await.unwrap();
    assert!(w.store.authenticate(&key.secret).await.unwrap().is_some());
    let session = w.store.create_session(bob, 60.0).await.unwrap();
    let kept = w.store.create_chat(w.owner, &chat("kept"), LIMITS).await.unwrap();
    let gone = w.store.create_chat(bob, &chat("gone"), LIMITS).await.unwrap();
    let model = create(&w.store, bob, "theirs").await;
    let queued = ticket(w.store.begin_train(begin(model.key)).await.unwrap());
    assert!(matches!(w.store.delete_account(w.owner).await, Err(Error::OwnerStays)));

    w.store.delete_account(bob).await.unwrap();
    assert!(matches!(w.store.delete_account(bob).await, Err(Error::NotFound(_))));
    assert!(w.store.authenticate(&key.secret).await.unwrap().is_none());
    assert!(w.store.session(&session).await.unwrap().is_none());
    assert!(w.store.verify_password("Bob", "correct horse").await.unwrap().is_none());
    assert!(w.store.models(bob).await.unwrap().is_empty());
    assert!(matches!(w.store.start(&queued).await, Err(Error::Cancelled)));
    assert!(w.store.chat(bob, &gone.id).await.unwrap().is_none());
    assert!(w.store.chat(w.owner, &kept.id).await.unwrap().is_some());
    assert!(matches!(w.store.create_key(bob, "late").await, Err(Error::NotFound(_))));
    assert!(matches!(w.store.set_password(bob, "battery staple").await, Err(Error::NotFound(_))));
    assert_eq!(w.store.accounts().await.unwrap().len(), 1);
    w.assert_sound().await;

    let again = self::bob(&w).await;
    assert_ne!(again, bob, "the name is free, the account is another one");
    assert!(w.store.keys(again).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_withdrawn_invitation_is_unknown() {
    let w = world().await;
    let made = w.store.create_invitation(w.owner, 60.0).await.unwrap();
    let other = w.store.create_invitation(w.owner, 60.0).await.unwrap();
    w.store.create_invitation(w.owner, -1.0).await.unwrap();
    let pending = w.store.invitations().await.unwrap();
    assert_eq!(pending.len(), 2, "an expired one is not pending");
    assert_eq!(pending[1].expires, made.expires);
    w.store.withdraw_invitation(pending[1].id).await.unwrap();
    assert!(matches!(w.store.withdraw_invitation(pending[1].id).await, Err(Error::NotFound(_))));
    assert!(matches!(w.store.withdraw_invitation(InvitationId(99)).await, Err(Error::NotFound(_))));
    assert!(matches!(w.store.accept_invitation(&made.token, "Bob", "correct horse").await, Err(Error::BadInvitation)));
    w.store.accept_invitation(&other.token, "Bob", "correct horse").await.unwrap();
    assert!(w.store.invitations().await.unwrap().is_empty());
    assert!(matches!(w.store.withdraw_invitation(pending[0].id).await, Err(Error::NotFound(_))), "used");
}
