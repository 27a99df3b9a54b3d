//! Trainings: first come, first served for each model; retried after a crash; committed as exactly one revision or not at all.
//! Knows nothing of what a training computes: it takes the finished weights.
//!
//! A training is a row: queued → running → done | failed | cancelled. [`Ticket`] and [`Running`] stand for the caller's interest: when
//! both are dropped without an end, the row counts as abandoned and the next training of the model passes it by.

use crate::schema::Write;
use crate::{Error, ModelKey, ModelRow, Pin, Result, Store};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Key of a training's row; rises in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct TrainId(pub i64);

/// Where a training stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(rename_all = "lowercase")]
pub enum TrainState {
    /// Waits for its turn.
    Queued,
    /// The one training of its model that runs.
    Running,
    /// Ended well, with or without a new revision.
    Done,
    /// Ended with an error; nothing changed.
    Failed,
    /// Its model was deleted or its caller left; nothing changed.
    Cancelled,
}

/// One training, for lists and status.
#[derive(Clone, Debug, PartialEq, sqlx::FromRow)]
pub struct TrainRow {
    /// Key of the row.
    pub id: TrainId,
    /// Which model it trains.
    pub model: ModelKey,
    /// Where it stands.
    pub state: TrainState,
    /// The revision it started from; `None` while it waits.
    pub base_revision: Option<i64>,
    /// The revision that it made.
    pub new_revision: Option<i64>,
    /// Times it was started.
    pub attempts: i64,
    /// Number of the attempt that owns it.
    pub fence: i64,
    /// Why it failed or was cancelled.
    pub error: Option<String>,
    /// Unix seconds.
    pub created: f64,
    /// Unix seconds.
    pub ended: Option<f64>,
}

/// A training asked for.
#[derive(Clone, Debug)]
pub struct BeginTrain {
    /// Which model.
    pub model: ModelKey,
    /// The caller's `Idempotency-Key`, 1..=255 characters.
    pub idempotency_key: Option<String>,
    /// Hash of the request's body: the same key with another body is refused.
    pub request_sha256: String,
    /// The request itself, kept until the training ends, so that it is tried again after a crash; without it a crash fails it.
    pub request: Option<String>,
    /// Train only when this is the model's revision, now and when its turn comes.
    pub if_revision: Option<i64>,
}

/// What became of a request to train.
#[derive(Debug)]
pub enum Begun {
    /// It waits for its turn; see [`Store::start`].
    Queued(Ticket),
    /// The same request was answered before: answer it the same.
    Replay(StoredAnswer),
    /// The same request waits or runs now.
    InFlight,
    /// The key was used for another request.
    OtherRequest,
}

/// The answer of a training that ended well.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAnswer {
    /// The training.
    pub id: TrainId,
    /// The revision that it made; `None` when it changed nothing.
    pub revision: Option<i64>,
    /// The answer's body as it was given.
    pub answer: serde_json::Value,
}

/// A place in a model's queue, given up when it is dropped.
#[derive(Debug)]
pub struct Ticket {
    /// The training.
    pub id: TrainId,
    /// Its model.
    pub model: ModelKey,
    live: Arc<Live>,
}

/// A training whose turn it is. The weights it started from stay pinned.
#[derive(Debug)]
pub struct Running {
    /// The training.
    pub id: TrainId,
    /// The model as it was when the training started: its `revision` is the base, its blobs are the weights to start from.
    pub model: ModelRow,
    /// Number of this attempt.
    pub fence: i64,
    _pins: Vec<Pin>,
    _live: Arc<Live>,
}

impl Running {
    /// The revision that this training makes if it is committed.
    pub fn new_revision(&self) -> i64 {
        self.model.revision + 1
    }
}

/// What a finished training leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The new adapter.
    pub adapter: Bytes,
    /// The new optimizer state.
    pub optimizer: Bytes,
    /// Metrics, listed with the revision.
    pub metrics: serde_json::Value,
    /// The answer's body, given again to a retry with the same idempotency key.
    pub answer: serde_json::Value,
}

/// A training that a crash interrupted and that waits again.
#[derive(Debug)]
pub struct Interrupted {
    /// Its place: the same as before.
    pub ticket: Ticket,
    /// The request as it was given to [`Store::begin_train`].
    pub request: String,
    /// Times it was started.
    pub attempts: i64,
}

/// What [`Store::recover`] found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Trainings to start again, in order of arrival.
    pub retry: Vec<Interrupted>,
    /// Trainings that failed: crashed [`MAX_ATTEMPTS`] times, or kept without their request.
    pub failed: Vec<TrainId>,
}

/// A training that crashed the program this often is not tried again.
pub const MAX_ATTEMPTS: i64 = 3;
/// Trainings that may wait for one model: each holds a connection or a request's body.
pub const MAX_QUEUED_PER_MODEL: i64 = 64;
/// Longest idempotency key, in characters.
const MAX_IDEMPOTENCY_KEY_CHARS: usize = 255;
/// How long an attempt owns its training without [`Store::renew_lease`], in seconds. On one machine the directory's lock decides who
/// is alive; with several machines this will.
const LEASE_S: f64 = 60.0;
/// A waiting training looks at its queue this often although nobody rang.
const LOOK_EVERY: Duration = Duration::from_secs(5);

const TRAIN: &str = "SELECT id, model, state, base_revision, new_revision, attempts, fence, error, created, ended FROM train";

/// The trainings of this process that somebody still wants.
pub(crate) type LiveSet = Arc<Mutex<HashSet<TrainId>>>;

#[derive(Debug)]
struct Live {
    id: TrainId,
    set: LiveSet,
    queue: Weak<tokio::sync::Notify>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        if let Some(queue) = self.queue.upgrade() {
            queue.notify_waiters();
        }
    }
}

impl Store {
    /// Puts a training at the end of its model's queue, unless the idempotency key says that it was asked for before.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::RevisionMoved`] (`if_revision`), [`Error::QueueFull`], [`Error::Invalid`] (the key).
    pub async fn begin_train(&self, begin: BeginTrain) -> Result<Begun> {
        check_idempotency_key(begin.idempotency_key.as_deref())?;
        let mut w = self.write().await?;
        self.pass_by_abandoned(&mut w, Some(begin.model)).await?;
        let revision: Option<i64> = sqlx::query_scalar("SELECT revision FROM model WHERE key = ? AND deleted_at IS NULL")
            .bind(begin.model)
            .fetch_optional(&mut *w.tx)
            .await?;
        let current = revision.ok_or(Error::NotFound("the model"))?;
        if let Some(answered) = find_answer(&mut w, &begin).await? {
            w.commit().await?;
            return Ok(answered);
        }
        if let Some(expected) = begin.if_revision.filter(|expected| *expected != current) {
            return Err(Error::RevisionMoved { expected, current });
        }
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM train WHERE model = ? AND state = 'queued'")
            .bind(begin.model)
            .fetch_one(&mut *w.tx)
            .await?;
        if waiting >= MAX_QUEUED_PER_MODEL {
            return Err(Error::QueueFull(waiting));
        }
        let insert = "INSERT INTO train (model, idempotency_key, request_sha256, request, if_revision, state, lease_owner, created)
                      VALUES (?, ?, ?, ?, ?, 'queued', ?, ?)";
        let insert = sqlx::query(insert).bind(begin.model).bind(&begin.idempotency_key).bind(&begin.request_sha256).bind(&begin.request);
        let insert = insert.bind(begin.if_revision).bind(&self.inner.instance).bind(w.now);
        let id = TrainId(insert.execute(&mut *w.tx).await?.last_insert_rowid());
        // Wanted before the row can be seen, so that nobody passes it by.
        let ticket = self.ticket(id, begin.model);
        w.commit().await?;
        self.point("train_begun")?;
        Ok(Begun::Queued(ticket))
    }

    /// How many trainings are before this one, the running one included.
    pub async fn queue_position(&self, ticket: &Ticket) -> Result<usize> {
        Ok(self.wanted_before(ticket).await?.len())
    }

    /// Waits until it is this training's turn and starts it. May be dropped and called again while the training still waits.
    ///
    /// # Errors
    /// [`Error::Cancelled`] when it was cancelled meanwhile, [`Error::RevisionMoved`] when `if_revision` no longer holds.
    pub async fn start(&self, ticket: &Ticket) -> Result<Running> {
        loop {
            let rung = self.inner.queue.notified();
            tokio::pin!(rung);
            // From here on no ring is missed, also one between the look and the wait.
            rung.as_mut().enable();
            if let Some(running) = self.try_start(ticket).await? {
                return Ok(running);
            }
            let _ = tokio::time::timeout(LOOK_EVERY, rung).await;
        }
    }

    async fn try_start(&self, ticket: &Ticket) -> Result<Option<Running>> {
        let state: TrainState =
            sqlx::query_scalar("SELECT state FROM train WHERE id = ?").bind(ticket.id).fetch_one(self.readers()).await?;
        match state {
            TrainState::Cancelled => return Err(Error::Cancelled),
            TrainState::Queued => {}
            _ => return Err(Error::Fenced),
        }
        if !self.wanted_before(ticket).await?.is_empty() {
            return Ok(None);
        }
        let _found = self.pin_gate().await;
        let mut w = self.write().await?;
        self.pass_by_abandoned(&mut w, Some(ticket.model)).await?;
        let claim = "UPDATE train AS t SET state = 'running', fence = fence + 1, attempts = attempts + 1, lease_owner = ?, lease_until = ?,
                       base_revision = (SELECT revision FROM model WHERE key = t.model)
                     WHERE id = ? AND state = 'queued' AND NOT EXISTS
                       (SELECT 1 FROM train o WHERE o.model = t.model AND (o.state = 'running' OR (o.state = 'queued' AND o.id < t.id)))
                     RETURNING fence, if_revision";
        let claim = sqlx::query_as(claim).bind(&self.inner.instance).bind(w.now + LEASE_S).bind(ticket.id);
        let claimed: Option<(i64, Option<i64>)> = claim.fetch_optional(&mut *w.tx).await?;
        let Some((fence, if_revision)) = claimed else { return Ok(None) };
        let model = sqlx::query_as(sqlx::AssertSqlSafe(crate::models::by_key())).bind(ticket.model).fetch_optional(&mut *w.tx).await?;
        let model: ModelRow = model.ok_or(Error::Cancelled)?;
        if let Some(expected) = if_revision.filter(|expected| *expected != model.revision) {
            let moved = Error::RevisionMoved { expected, current: model.revision };
            end(&mut w, ticket.id, TrainState::Failed, &moved.to_string()).await?;
            w.commit().await?;
            self.inner.queue.notify_waiters();
            return Err(moved);
        }
        let pins = [Some(&model.blob_sha256), model.optimizer_sha256.as_ref(), Some(&model.reference_sha256)];
        let pins = pins.into_iter().flatten().map(|sha256| self.pin_now(sha256)).collect();
        w.commit().await?;
        self.point("train_started")?;
        Ok(Some(Running { id: ticket.id, model, fence, _pins: pins, _live: Arc::clone(&ticket.live) }))
    }

    /// Says that an attempt still works, for [`LEASE_S`] seconds more.
    ///
    /// # Errors
    /// [`Error::Cancelled`] or [`Error::Fenced`] when there is no point in going on.
    pub async fn renew_lease(&self, running: &Running) -> Result<()> {
        let mut w = self.write().await?;
        let renew = sqlx::query("UPDATE train SET lease_until = ? WHERE id = ? AND state = 'running' AND fence = ?");
        let renewed = renew.bind(w.now + LEASE_S).bind(running.id).bind(running.fence).execute(&mut *w.tx).await?;
        if renewed.rows_affected() != 1 {
            return Err(lost(&mut w, running.id).await?);
        }
        w.commit().await
    }

    /// Ends a training with new weights: stores them, then moves the model by exactly one revision, all or nothing, and returns the
    /// new revision. After an error nothing changed; end the training with [`Store::fail_train`] (or drop it). After a success it is
    /// durable.
    ///
    /// # Errors
    /// [`Error::Fenced`], [`Error::Cancelled`], [`Error::RevisionMoved`] (a rollback came first), [`Error::DiskFull`].
    pub async fn commit_train(&self, running: &Running, outcome: Outcome) -> Result<i64> {
        self.exclusive()?;
        let adapter = self.put_blob(outcome.adapter).await?;
        let optimizer = self.put_blob(outcome.optimizer).await?;
        self.point("before_commit")?;
        let (model, base, new) = (running.model.key, running.model.revision, running.new_revision());
        let bytes = i64::try_from(adapter.bytes).unwrap_or(i64::MAX);
        let mut w = self.write().await?;
        self.mark_done(&mut w, running, Some(new), &outcome.answer).await?;
        self.point("train_marked")?;

        let unconditional = self.inner.options.controls.no_compare_and_swap;
        let swap = "UPDATE model SET revision = revision + 1, blob_sha256 = ?, blob_bytes = ?, optimizer_sha256 = ?, last_modified = ?
                    WHERE key = ? AND deleted_at IS NULL AND (revision = ? OR ?) RETURNING revision";
        let swap = sqlx::query_scalar(swap).bind(&adapter.sha256).bind(bytes).bind(&optimizer.sha256).bind(w.now);
        let swapped: Option<i64> = swap.bind(model).bind(base).bind(unconditional).fetch_optional(&mut *w.tx).await?;
        let Some(revision) = swapped else { return Err(moved(&mut w, model, base).await?) };
        self.point("revision_moved")?;

        let insert = "INSERT INTO revision (model, revision, train, blob_sha256, blob_bytes, optimizer_sha256, metrics, created)
                      VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let insert = sqlx::query(insert).bind(model).bind(revision).bind(running.id).bind(&adapter.sha256).bind(bytes);
        insert.bind(&optimizer.sha256).bind(outcome.metrics.to_string()).bind(w.now).execute(&mut *w.tx).await?;
        self.let_go(&mut w, model, revision).await?;
        self.point("in_transaction")?;
        w.commit().await?;
        self.inner.queue.notify_waiters();
        self.point("after_commit")?;
        Ok(new)
    }

    /// Ends a training that changes nothing (`updated: false`): no revision, but its answer is kept for retries.
    pub async fn finish_unchanged(&self, running: &Running, answer: &serde_json::Value) -> Result<()> {
        let mut w = self.write().await?;
        self.mark_done(&mut w, running, None, answer).await?;
        w.commit().await?;
        self.inner.queue.notify_waiters();
        Ok(())
    }

    /// Ends a training with an error; its idempotency key may be used again. Does nothing when the attempt no longer owns it.
    pub async fn fail_train(&self, running: &Running, error: &str) -> Result<()> {
        let mut w = self.write().await?;
        let owned =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM train WHERE id = ? AND fence = ?)").bind(running.id).bind(running.fence);
        if owned.fetch_one(&mut *w.tx).await? {
            end(&mut w, running.id, TrainState::Failed, error).await?;
        }
        w.commit().await?;
        self.inner.queue.notify_waiters();
        Ok(())
    }

    /// Cancels a training that waits or runs; `false` when it had ended. A running attempt learns it from [`Store::renew_lease`] or
    /// its commit.
    pub async fn cancel_train(&self, id: TrainId) -> Result<bool> {
        let mut w = self.write().await?;
        let cancelled = end(&mut w, id, TrainState::Cancelled, "cancelled by its caller").await?;
        w.commit().await?;
        self.inner.queue.notify_waiters();
        Ok(cancelled)
    }

    /// To be called once after opening, before any training begins: trainings that the last process left behind wait again in their
    /// order where their request was kept, and fail where it was not or after [`MAX_ATTEMPTS`].
    pub async fn recover(&self) -> Result<Recovered> {
        let mut w = self.write().await?;
        let left: Vec<(TrainId, ModelKey, Option<String>, i64)> = sqlx::query_as(
            "SELECT id, model, request, attempts FROM train WHERE state IN ('queued', 'running') AND lease_owner IS NOT ? ORDER BY id",
        )
        .bind(&self.inner.instance)
        .fetch_all(&mut *w.tx)
        .await?;
        let mut recovered = Recovered::default();
        for (id, model, request, attempts) in left {
            let why = match &request {
                None => "the server stopped while this training waited or ran",
                Some(_) if attempts >= MAX_ATTEMPTS => "the server stopped in every attempt of this training",
                Some(_) => "",
            };
            let Some(request) = request.filter(|_| why.is_empty()) else {
                end(&mut w, id, TrainState::Failed, why).await?;
                recovered.failed.push(id);
                continue;
            };
            let again =
                sqlx::query("UPDATE train SET state = 'queued', lease_owner = ?, lease_until = NULL, base_revision = NULL WHERE id = ?");
            again.bind(&self.inner.instance).bind(id).execute(&mut *w.tx).await?;
            recovered.retry.push(Interrupted { ticket: self.ticket(id, model), request, attempts });
        }
        w.commit().await?;
        self.inner.queue.notify_waiters();
        Ok(recovered)
    }

    /// Fails the trainings that nobody wants any more (their [`Ticket`] and [`Running`] were dropped), so that they no longer show.
    /// Queues pass them by without this. Returns how many they were.
    pub async fn reap_abandoned(&self) -> Result<usize> {
        let mut w = self.write().await?;
        let reaped = self.pass_by_abandoned(&mut w, None).await?;
        w.commit().await?;
        self.inner.queue.notify_waiters();
        Ok(reaped)
    }

    /// One training.
    pub async fn train(&self, id: TrainId) -> Result<Option<TrainRow>> {
        let query = sqlx::query_as(sqlx::AssertSqlSafe(format!("{TRAIN} WHERE id = ?"))).bind(id);
        Ok(query.fetch_optional(self.readers()).await?)
    }

    /// A model's latest trainings, newest first.
    pub async fn trains(&self, model: ModelKey, limit: u32) -> Result<Vec<TrainRow>> {
        let query =
            sqlx::query_as(sqlx::AssertSqlSafe(format!("{TRAIN} WHERE model = ? ORDER BY id DESC LIMIT ?"))).bind(model).bind(limit);
        Ok(query.fetch_all(self.readers()).await?)
    }

    fn ticket(&self, id: TrainId, model: ModelKey) -> Ticket {
        let set = Arc::clone(&self.inner.live);
        set.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        Ticket { id, model, live: Arc::new(Live { id, set, queue: Arc::downgrade(&self.inner.queue) }) }
    }

    fn is_wanted(&self, id: TrainId) -> bool {
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// The trainings before this one that somebody still wants.
    async fn wanted_before(&self, ticket: &Ticket) -> Result<Vec<TrainId>> {
        let query = "SELECT id FROM train WHERE model = ?1 AND id <> ?2 AND (state = 'running' OR (state = 'queued' AND id < ?2))";
        let mut before: Vec<TrainId> = sqlx::query_scalar(query).bind(ticket.model).bind(ticket.id).fetch_all(self.readers()).await?;
        before.retain(|id| self.is_wanted(*id));
        Ok(before)
    }

    /// Fails the trainings of this process that nobody wants any more, of one model or of all.
    async fn pass_by_abandoned(&self, w: &mut Write, model: Option<ModelKey>) -> Result<usize> {
        let query = "SELECT id FROM train WHERE state IN ('queued', 'running') AND lease_owner = ?1 AND (?2 IS NULL OR model = ?2)";
        let active: Vec<TrainId> = sqlx::query_scalar(query).bind(&self.inner.instance).bind(model).fetch_all(&mut *w.tx).await?;
        let mut passed = 0;
        for id in active.into_iter().filter(|id| !self.is_wanted(*id)) {
            end(w, id, TrainState::Cancelled, "its caller left").await?;
            passed += 1;
        }
        Ok(passed)
    }

    async fn mark_done(&self, w: &mut Write, running: &Running, new: Option<i64>, answer: &serde_json::Value) -> Result<()> {
        let unfenced = self.inner.options.controls.no_fence;
        let done = "UPDATE train SET state = 'done', new_revision = ?, answer = ?, request = NULL, ended = ?
                    WHERE id = ? AND state = 'running' AND (fence = ? OR ?)";
        let done = sqlx::query(done).bind(new).bind(answer.to_string()).bind(w.now).bind(running.id).bind(running.fence).bind(unfenced);
        if done.execute(&mut *w.tx).await?.rows_affected() != 1 {
            return Err(lost(w, running.id).await?);
        }
        Ok(())
    }
}

/// What to answer instead of training, when the idempotency key was used before.
async fn find_answer(w: &mut Write, begin: &BeginTrain) -> Result<Option<Begun>> {
    let Some(key) = &begin.idempotency_key else { return Ok(None) };
    type Found = (TrainId, TrainState, String, Option<i64>, Option<String>);
    let query = "SELECT id, state, request_sha256, new_revision, answer FROM train
                 WHERE model = ? AND idempotency_key = ? AND state IN ('queued', 'running', 'done')";
    let found: Option<Found> = sqlx::query_as(query).bind(begin.model).bind(key).fetch_optional(&mut *w.tx).await?;
    Ok(match found {
        None => None,
        Some((_, _, sha256, _, _)) if sha256 != begin.request_sha256 => Some(Begun::OtherRequest),
        Some((id, TrainState::Done, _, revision, Some(answer))) => {
            let answer = serde_json::from_str(&answer).map_err(|e| Error::Internal(format!("stored answer: {e}")))?;
            Some(Begun::Replay(StoredAnswer { id, revision, answer }))
        }
        Some(_) => Some(Begun::InFlight),
    })
}

/// Ends a training without a result; `false` when it had ended before.
async fn end(w: &mut Write, id: TrainId, state: TrainState, error: &str) -> Result<bool> {
    let end =
        sqlx::query("UPDATE train SET state = ?, error = ?, request = NULL, ended = ? WHERE id = ? AND state IN ('queued', 'running')");
    Ok(end.bind(state).bind(error).bind(w.now).bind(id).execute(&mut *w.tx).await?.rows_affected() == 1)
}

/// Why an attempt no longer owns its training.
async fn lost(w: &mut Write, id: TrainId) -> Result<Error> {
    let state: Option<TrainState> = sqlx::query_scalar("SELECT state FROM train WHERE id = ?").bind(id).fetch_optional(&mut *w.tx).await?;
    Ok(if state == Some(TrainState::Cancelled) { Error::Cancelled } else { Error::Fenced })
}

/// Why a model could not be moved from its base.
async fn moved(w: &mut Write, model: ModelKey, expected: i64) -> Result<Error> {
    let query = sqlx::query_scalar("SELECT revision FROM model WHERE key = ? AND deleted_at IS NULL").bind(model);
    let current: Option<i64> = query.fetch_optional(&mut *w.tx).await?;
    Ok(current.map_or(Error::Cancelled, |current| Error::RevisionMoved { expected, current }))
}

fn check_idempotency_key(key: Option<&str>) -> Result<()> {
    let bad = key.is_some_and(|key| key.is_empty() || key.chars().count() > MAX_IDEMPOTENCY_KEY_CHARS);
    if bad { Err(Error::invalid("Idempotency-Key", format!("must have 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters"))) } else { Ok(()) }
}
