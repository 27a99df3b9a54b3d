//! Writes samples and use to the store in groups: while one transaction is synced to the disk the next requests gather, so that many
//! streams that end together share one sync. Does not know what the rows mean.

use std::time::Duration;

use tiger_store::{NewSample, Store, UsageRecord};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::ApiError;
use crate::limits::{SAMPLE_BATCHES, USAGE_RECORDS};

/// Use is summed; it may be this much late.
const USAGE_EVERY: Duration = Duration::from_millis(500);

type Batch = (Vec<NewSample>, oneshot::Sender<Result<(), ApiError>>);

/// Takes rows to be written.
#[derive(Debug, Clone)]
pub struct Recorder {
    samples: mpsc::Sender<Batch>,
    usage: mpsc::Sender<UsageRecord>,
}

/// The tasks that write; they end, everything written, when the last [`Recorder`] is dropped.
#[derive(Debug)]
pub struct Writers(Vec<JoinHandle<()>>);

impl Writers {
    /// Waits for the tasks.
    pub async fn finish(self) {
        for task in self.0 {
            let _ = task.await;
        }
    }
}

impl Recorder {
    /// Starts the tasks.
    pub fn start(store: Store) -> (Recorder, Writers) {
        let (samples, sample_queue) = mpsc::channel(SAMPLE_BATCHES);
        let (usage, usage_queue) = mpsc::channel(USAGE_RECORDS);
        let writers = vec![tokio::spawn(write_samples(store.clone(), sample_queue)), tokio::spawn(write_usage(store, usage_queue))];
        (Recorder { samples, usage }, Writers(writers))
    }

    /// Keeps a request's samples; once it returns they are on the disk.
    pub async fn samples(&self, samples: Vec<NewSample>) -> Result<(), ApiError> {
        let (done, written) = oneshot::channel();
        self.samples.send((samples, done)).await.map_err(|_| ApiError::draining())?;
        written.await.map_err(|_| ApiError::draining())?
    }

    /// Adds to the sums of use. A full queue loses a record rather than delay an answer.
    pub fn usage(&self, record: UsageRecord) {
        if self.usage.try_send(record).is_err() {
            tracing::warn!("a record of use was lost: the queue is full");
        }
    }
}

async fn write_samples(store: Store, mut queue: mpsc::Receiver<Batch>) {
    let mut batches = Vec::new();
    while queue.recv_many(&mut batches, SAMPLE_BATCHES).await > 0 {
        let mut rows = Vec::new();
        let mut waiting = Vec::new();
        for (samples, done) in batches.drain(..) {
            rows.extend(samples);
            waiting.push(done);
        }
        let outcome = store.insert_samples(&rows).await.map_err(ApiError::from);
        for done in waiting {
            let _ = done.send(outcome.clone());
        }
    }
}

async fn write_usage(store: Store, mut queue: mpsc::Receiver<UsageRecord>) {
    let mut records = Vec::new();
    while queue.recv_many(&mut records, USAGE_RECORDS).await > 0 {
        if let Err(error) = store.record_usage(&records).await {
            tracing::error!(%error, "use could not be recorded");
        }
        records.clear();
        if !queue.is_closed() {
            tokio::time::sleep(USAGE_EVERY).await;
        }
    }
}
