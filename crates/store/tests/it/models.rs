//! Names, ids, copies, patches and deletion of models.

use crate::common::{World, adapter, begin, create, new_model, outcome, started, ticket, train, world};
use tiger_store::{Error, ModelPatch, Weights, slug};

#[test]
fn slugs_follow_the_contract() {
    for (name, id) in [
        ("MyCustomModel", "mycustommodel"),
        ("my model 2", "my-model-2"),
        ("a.b_c-d", "a.b_c-d"),
        ("Größe", "gr--e"),
        ("日本", "--"),
        ("  x  ", "--x--"),
    ] {
        assert_eq!(slug(name), id);
    }
}

async fn created(w: &World, name: &str, reserved: &[&str]) -> Result<String, Error> {
    let reserved: Vec<String> = reserved.iter().map(|name| (*name).to_owned()).collect();
    let blob = w.store.put_blob(adapter(name, 0)).await.unwrap();
    w.store.create_model(&new_model(w.owner, name), Weights::Fresh(&blob), &reserved).await.map(|model| model.id)
}

#[tokio::test]
async fn a_taken_id_gets_a_number_and_a_taken_name_is_refused() {
    let w = world().await;
    let base = ["Llama-3.1-8b", "llama-3.1-8b"];
    for (name, id) in [
        ("My Model", Some("my-model")),
        ("my model", Some("my-model-2")),
        ("my?model", Some("my-model-3")),
        ("My Model", None),
        // Another model's id may not become a name: it would not be clear which one is meant.
        ("my-model", None),
        ("my-model-2", None),
        ("MY-MODEL", Some("my-model-4")),
        ("Llama-3.1-8b", None),
        ("LLAMA-3.1-8B", None),
        ("Llama 3.1 8b", Some("llama-3.1-8b-2")),
        (".", Some(".-2")),
        ("..", Some("..-2")),
    ] {
        let made = created(&w, name, &base).await;
        match id {
            Some(id) => assert_eq!(made.unwrap(), id, "{name}"),
            None => assert!(matches!(made, Err(Error::NameTaken(_))), "{name}: {made:?}"),
        }
    }
    for name in ["", "a/b", "a\0b", "a\nb", &"x".repeat(65)] {
        assert!(matches!(created(&w, name, &[]).await, Err(Error::Invalid { param: "name", .. })), "{name:?}");
    }
    assert_eq!(created(&w, &"é".repeat(64), &[]).await.unwrap().len(), 64);
    w.assert_sound().await;
}

#[tokio::test]
async fn models_are_found_by_id_and_by_name_in_their_account_only() {
    let w = world().await;
    let model = w.model("My Model").await;
    for (name, found) in [("my-model", true), ("My Model", true), ("my model", false), ("", false)] {
        assert_eq!(w.store.model(w.owner, name).await.unwrap().map(|m| m.key), found.then_some(model.key), "{name}");
    }
    let invitation = w.store.create_invitation(w.owner, 60.0).await.unwrap();
    let bob = w.store.accept_invitation(&invitation.token, "Bob", "correct horse").await.unwrap().id;
    assert!(w.store.model(bob, "my-model").await.unwrap().is_none());
    let theirs = create(&w.store, bob, "My Model").await;
    assert_eq!((theirs.id.as_str(), theirs.key == model.key), ("my-model", false));
    let refused = w.store.create_model(&new_model(bob, "copy"), Weights::CopyOf(model.key), &[]).await;
    assert!(matches!(refused, Err(Error::NotFound(_))), "another account's model cannot be copied");
}

#[tokio::test]
async fn models_are_listed_newest_first() {
    let w = world().await;
    for name in ["a", "b", "c"] {
        w.model(name).await;
    }
    let names: Vec<_> = w.store.models(w.owner).await.unwrap().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["c", "b", "a"]);
}

#[tokio::test]
async fn copies_are_independent() {
    let w = world().await;
    let parent = w.model("parent").await;
    train(&w.store, parent.key).await;
    let copy = w.store.create_model(&new_model(w.owner, "copy"), Weights::CopyOf(parent.key), &[]).await.unwrap();
    let parent = w.now(parent.key).await;
    assert_eq!((copy.revision, &copy.blob_sha256, &copy.optimizer_sha256), (0, &parent.blob_sha256, &parent.optimizer_sha256));
    assert_eq!(copy.reference_sha256, parent.blob_sha256, "the copy's KL reference is the parent as it was copied");

    train(&w.store, copy.key).await;
    assert_eq!(w.now(parent.key).await, parent, "training the copy leaves the parent as it was");
    train(&w.store, parent.key).await;
    assert_eq!(w.store.blob(&w.now(copy.key).await.blob_sha256).await.unwrap(), adapter("copy", 1));

    w.store.delete_model(parent.key).await.unwrap();
    let now = w.store.now().await.unwrap();
    w.store.sweep(now, -10.0).await.unwrap();
    w.assert_sound().await;
    assert_eq!(w.store.blob(&copy.reference_sha256).await.unwrap(), adapter("parent", 1), "the copy keeps what it was made from");
    w.store.rollback(copy.key, 0).await.unwrap();
    w.assert_sound().await;
}

#[tokio::test]
async fn patches_change_what_they_name() {
    let w = world().await;
    let (a, b) = (w.model("a").await, w.model("b").await);
    let patch = ModelPatch {
        description: Some("new".to_owned()),
        temperature: Some(Some(0.5)),
        top_k: Some(Some(40)),
        learning_rate: Some(Some(1e-4)),
        default_model: Some(true),
        ..ModelPatch::default()
    };
    let patched = w.store.patch_model(a.key, &patch).await.unwrap();
    assert_eq!((patched.description.as_str(), patched.sampling.temperature, patched.sampling.top_k), ("new", Some(0.5), Some(40)));
    assert_eq!((patched.learning_rate, patched.default_model, patched.revision), (Some(1e-4), true, 0));
    assert_eq!(w.store.patch_model(a.key, &ModelPatch::default()).await.unwrap(), patched);

    let clear = ModelPatch { temperature: Some(None), ..ModelPatch::default() };
    let cleared = w.store.patch_model(a.key, &clear).await.unwrap();
    assert_eq!((cleared.sampling.temperature, cleared.sampling.top_k), (None, Some(40)));

    let choose = ModelPatch { default_model: Some(true), ..ModelPatch::default() };
    w.store.patch_model(b.key, &choose).await.unwrap();
    assert_eq!((w.now(a.key).await.default_model, w.now(b.key).await.default_model), (false, true), "one default an account");
}

#[tokio::test]
async fn deletion_cancels_trainings_and_frees_the_name() {
    let w = world().await;
    let model = w.model("m").await;
    train(&w.store, model.key).await;
    let running = started(&w.store, model.key).await;
    let waiting = ticket(w.store.begin_train(begin(model.key)).await.unwrap());
    let store = w.store.clone();
    let waiter = tokio::spawn(async move { store.start(&waiting).await });
    tokio::task::yield_now().await;

    w.store.delete_model(model.key).await.unwrap();
    let waited = tokio::time::timeout(std::time::Duration::from_secs(20), waiter).await.unwrap();
    assert!(matches!(waited.unwrap(), Err(Error::Cancelled)));
    assert!(matches!(w.store.renew_lease(&running).await, Err(Error::Cancelled)));
    assert!(matches!(w.store.commit_train(&running, outcome("m", 2)).await, Err(Error::Cancelled)));
    assert!(w.store.model(w.owner, "m").await.unwrap().is_none());
    assert!(w.store.models(w.owner).await.unwrap().is_empty());
    for gone in [
        w.store.delete_model(model.key).await.map(|()| 0),
        w.store.rollback(model.key, 0).await.map(|_| 0),
        w.store.patch_model(model.key, &ModelPatch::default()).await.map(|_| 0),
        w.store.begin_train(begin(model.key)).await.map(|_| 0),
    ] {
        assert!(matches!(gone, Err(Error::NotFound(_))));
    }

    let again = w.model("m").await;
    assert_eq!((again.id.as_str(), again.revision, again.key == model.key), ("m", 0, false), "a name made again is another model");
    assert_eq!(w.store.revisions(again.key, 10, None).await.unwrap().len(), 1);
    w.assert_sound().await;
}
