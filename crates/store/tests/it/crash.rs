//! SIGKILL at every named point of a training, and two hundred times at random. The test runs itself as a child that trains with the
//! fake engine and writes down what was acknowledged; the parent kills it, opens what is left and compares.

use crate::common::{World, adapter, begin, optimizer, outcome, ticket, world};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tiger_store::{BeginTrain, Begun, FAILPOINTS, Options, Running, Store, StoredAnswer, Ticket};

/// Tells a child its data directory; the test [`child`] does nothing without it.
const DIR: &str = "TIGER_STORE_TEST_DIR";
/// Tells a child which models to train, separated by commas.
const MODELS: &str = "TIGER_STORE_TEST_MODELS";
/// The file of acknowledged trainings, one line each: model, revision.
const ACKS: &str = "acks";

/// A child that nobody kills ends by itself after so many trainings, more than it has time for before a kill.
const TRAININGS_OF_A_CHILD: usize = 200;

fn spawn(dir: &Path, models: &str, failpoint: Option<&str>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["crash::child", "--exact", "--nocapture", "--test-threads=1"]).env(DIR, dir).env(MODELS, models);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(point) = failpoint {
        command.env("TIGER_FAILPOINT", point);
    }
    command.spawn().unwrap()
}

/// Not a test of its own: what the child does.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let models = std::env::var(MODELS).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&dir).await.unwrap();
        println!("ready");
        let mut retries = store.recover().await.unwrap().retry;
        let mut tasks = Vec::new();
        for name in models.split(',').map(str::to_owned) {
            let mine = retries.extract_if(.., |retry| retry.request == name).map(|retry| retry.ticket).collect();
            tasks.push(tokio::spawn(train_on(store.clone(), Path::new(&dir).join(ACKS), name, mine)));
        }
        for task in tasks {
            task.await.unwrap();
        }
    });
}

async fn train_on(store: Store, acks: std::path::PathBuf, name: String, retries: Vec<Ticket>) {
    let owner = store.ensure_owner().await.unwrap().id;
    let mut acks = std::fs::OpenOptions::new().create(true).append(true).open(acks).unwrap();
    let mut retries = retries.into_iter();
    for _ in 0..TRAININGS_OF_A_CHILD {
        let ticket = match retries.next() {
            Some(ticket) => ticket,
            None => {
                let model = store.model(owner, &name).await.unwrap().unwrap();
                ticket(store.begin_train(request(&model, model.revision + 1)).await.unwrap())
            }
        };
        let running = store.start(&ticket).await.unwrap();
        let revision = commit(&store, &running).await;
        // One write: after a kill the line is there wholly or not at all.
        acks.write_all(format!("{name} {revision}\n").as_bytes()).unwrap();
    }
}

fn request(model: &tiger_store::ModelRow, revision: i64) -> BeginTrain {
    BeginTrain { idempotency_key: Some(format!("key {revision}")), request: Some(model.name.clone()), ..begin(model.key) }
}

async fn commit(store: &Store, running: &Running) -> i64 {
    store.commit_train(running, outcome(&running.model.name, running.new_revision())).await.unwrap()
}

fn acknowledged(dir: &Path, name: &str) -> i64 {
    let acks = std::fs::read_to_string(dir.join(ACKS)).unwrap_or_default();
    let revisions = acks.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(model, _)| *model == name);
    revisions.map(|(_, revision)| revision.parse().unwrap()).max().unwrap_or(0)
}

/// What must hold after any kill: every invariant, and the very weights and optimizer state of the revision that the row names.
async fn assert_whole(w: &World, name: &str) -> i64 {
    w.assert_sound().await;
    let model = w.store.model(w.owner, name).await.unwrap().unwrap();
    assert_eq!(w.store.blob(&model.blob_sha256).await.unwrap(), adapter(name, model.revision));
    if model.revision > 0 {
        assert_eq!(w.store.blob(&model.optimizer_sha256.unwrap()).await.unwrap(), optimizer(name, model.revision));
    }
    model.revision
}

#[tokio::test]
async fn sigkill_at_every_named_point() {
    // Three trainings are acknowledged, the fourth is killed.
    let mut kills = Vec::new();
    for &point in FAILPOINTS {
        if point.starts_with("blob_") {
            kills.extend([(point, 7, "weights"), (point, 8, "optimizer")]);
        } else {
            kills.push((point, 4, "training"));
        }
    }
    for (point, nth, what) in kills {
        let w = world().await;
        w.model("m").await;
        let dir = w.dir().to_owned();
        let killed = || {
            let status = spawn(&dir, "m", Some(&format!("{point}:{nth}"))).wait().unwrap();
            assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{point} {nth}");
        };
        let w = w.released(killed).await;
        let at = format!("{point} ({what})");
        assert_eq!(acknowledged(w.dir(), "m"), 3, "{at}");
        let revision = assert_whole(&w, "m").await;
        assert_eq!(revision, if point == "after_commit" { 4 } else { 3 }, "{at}");

        let recovered = w.store.recover().await.unwrap();
        assert_eq!((recovered.retry.len(), recovered.failed.len()), (usize::from(revision == 3), 0), "{at}");
        for interrupted in &recovered.retry {
            let running = w.store.start(&interrupted.ticket).await.unwrap();
            commit(&w.store, &running).await;
        }
        assert_eq!(assert_whole(&w, "m").await, 4, "{at}");
        let model = w.store.model(w.owner, "m").await.unwrap().unwrap();
        let retry = w.store.begin_train(request(&model, 4)).await.unwrap();
        assert!(matches!(retry, Begun::Replay(StoredAnswer { revision: Some(4), .. })), "{at}: {retry:?}");
    }
}

#[tokio::test]
async fn a_training_that_kills_the_program_three_times_fails() {
    let mut w = world().await;
    let model = w.model("m").await;
    for _ in 0..3 {
        let dir = w.dir().to_owned();
        w = w
            .released(|| {
                spawn(&dir, "m", Some("before_commit")).wait().unwrap();
            })
            .await;
    }
    let recovered = w.store.recover().await.unwrap();
    assert_eq!((recovered.retry.len(), recovered.failed.len()), (0, 1));
    assert_eq!(w.store.train(recovered.failed[0]).await.unwrap().unwrap().attempts, 3);
    assert_eq!(assert_whole(&w, "m").await, 0);
    assert_eq!(crate::common::train(&w.store, model.key).await, 1);
}

#[tokio::test]
async fn two_hundred_kills_at_random() {
    /// Kills of one data directory; then a new one, so that checks stay short.
    const ROUNDS: usize = 8;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut trained, mut unacknowledged) = (0, 0);
    for _ in 0..ROUNDS {
        let mut w = world().await;
        for name in ["a", "b"] {
            w.model(name).await;
        }
        let mut known = [0, 0];
        for _ in 0..200 / ROUNDS {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let delay = Duration::from_micros((seed >> 33) % 100_000);
            let dir = w.dir().to_owned();
            w = w.released(|| kill_after(spawn(&dir, "a,b", None), delay)).await;
            for (name, known) in ["a", "b"].into_iter().zip(&mut known) {
                let revision = assert_whole(&w, name).await;
                let acknowledged = acknowledged(w.dir(), name).max(*known);
                assert!((acknowledged..=acknowledged + 1).contains(&revision), "{name}: {revision}, acknowledged {acknowledged}");
                trained += revision - *known;
                unacknowledged += revision - acknowledged;
                *known = revision;
            }
        }
    }
    println!("{trained} trainings, {unacknowledged} committed but not acknowledged");
    assert!(trained > 0, "the children did train");
}

fn kill_after(mut child: Child, delay: Duration) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("ready")));
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
}

impl World {
    /// Lets another process use the directory meanwhile.
    async fn released(self, meanwhile: impl FnOnce()) -> World {
        let between = self.close().await;
        meanwhile();
        between.open(Options::default()).await
    }
}
