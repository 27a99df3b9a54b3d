//! Keeps samples and use: an answer waits for neither. Samples can be read from memory at once and are written in groups a moment later,
//! so that many requests share one transaction and one sync of the disk. Does not know what the rows mean.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tiger_store::{AccountId, Error, NewSample, Store, UsageRecord};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::error::ApiError;
use crate::limits::{SAMPLE_BATCHES, USAGE_RECORDS};

/// Samples gather for this long while others are being written: what a killed process may lose.
const SAMPLES_EVERY: Duration = Duration::from_millis(100);
/// Pause after the disk refused samples.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// Use is summed; it may be this much late.
const USAGE_EVERY: Duration = Duration::from_millis(500);

/// Takes rows to be written.
#[derive(Debug, Clone)]
pub struct Recorder {
    samples: mpsc::Sender<Vec<Arc<NewSample>>>,
    unwritten: Arc<Unwritten>,
    usage: mpsc::Sender<UsageRecord>,
}

/// Samples that are not in the store yet.
#[derive(Debug, Default)]
struct Unwritten {
    /// By response id.
    samples: Mutex<HashMap<String, Arc<NewSample>>>,
    /// Why they could not be written; no more are taken until they are.
    refusal: Mutex<Option<ApiError>>,
}

/// A panic while one is held leaves a whole map or option behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unwritten {
    fn forget(&self, rows: &[Arc<NewSample>]) {
        let mut samples = lock(&self.samples);
        rows.iter().for_each(|row| drop(samples.remove(&row.response_id)));
    }
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
        let unwritten = Arc::<Unwritten>::default();
        let writing = tokio::spawn(write_samples(store.clone(), Arc::clone(&unwritten), sample_queue));
        let writers = vec![writing, tokio::spawn(write_usage(store, usage_queue))];
        (Recorder { samples, unwritten, usage }, Writers(writers))
    }

    /// Keeps a request's samples; once it returns [`Recorder::sample`] or the store has them. Waits where the store is behind.
    ///
    /// # Errors
    /// The store's, while it cannot write what it was given before.
    pub async fn samples(&self, samples: Vec<NewSample>) -> Result<(), ApiError> {
        if let Some(refusal) = &*lock(&self.unwritten.refusal) {
            return Err(refusal.clone());
        }
        let samples: Vec<Arc<NewSample>> = samples.into_iter().map(Arc::new).collect();
        let place = self.samples.reserve().await.map_err(|_| ApiError::draining())?;
        lock(&self.unwritten.samples).extend(samples.iter().map(|sample| (sample.response_id.clone(), Arc::clone(sample))));
        place.send(samples);
        Ok(())
    }

    /// An account's sample that may not be in the store yet. Ask here first: a sample is in the store before it is gone from here.
    pub fn sample(&self, account: AccountId, response_id: &str) -> Option<NewSample> {
        let samples = lock(&self.unwritten.samples);
        samples.get(response_id).filter(|sample| sample.account == account).map(|sample| NewSample::clone(sample))
    }

    /// Adds to the sums of use. A full queue loses a record rather than delay an answer.
    pub fn usage(&self, record: UsageRecord) {
        if self.usage.try_send(record).is_err() {
            tracing::warn!("a record of use was lost: the queue is full");
        }
    }
}

async fn write_samples(store: Store, unwritten: Arc<Unwritten>, mut queue: mpsc::Receiver<Vec<Arc<NewSample>>>) {
    let mut batches = Vec::new();
    while queue.recv_many(&mut batches, SAMPLE_BATCHES).await > 0 {
        let rows: Vec<Arc<NewSample>> = batches.drain(..).flatten().collect();
        while let Err(error) = store.insert_samples(&rows).await {
            tracing::error!(%error, samples = rows.len(), "samples could not be written");
            let passes = matches!(error, Error::DiskFull | Error::Io { .. });
            if !passes || queue.is_closed() {
                break;
            }
            *lock(&unwritten.refusal) = Some(error.into());
            tokio::time::sleep(RETRY_EVERY).await;
        }
        *lock(&unwritten.refusal) = None;
        unwritten.forget(&rows);
        if !queue.is_closed() {
            tokio::time::sleep(SAMPLES_EVERY).await;
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
