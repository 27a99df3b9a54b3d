//! What every request shares: the store, the engine, the bases, the limits; how it is opened, kept tidy, drained and closed.
//! Does not know routes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use base64::Engine as _;
use tiger_engine::{Engine, Handle};
use tiger_store::Store;
use tiger_wire::{ErrorCode, ErrorType};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::auth::Gate;
use crate::bases::Bases;
use crate::config::Config;
use crate::error::ApiError;
use crate::flight::{Flights, Places};
use crate::limits::{IMPORTS_AT_ONCE, Limits};
use crate::pulls::Pulls;
use crate::recorder::{Recorder, Writers};
use crate::source::Weights;
use crate::stream::Cut;
use crate::{metrics, training};

/// How often the process looks after itself.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Every how many of these rows and blobs are cleared: an hour.
const CLEAR_EVERY: u32 = 720;
/// A blob that no row names is kept this long, in seconds: state.md's day.
const SWEEP_AFTER_S: f64 = 86_400.0;

/// Why the server could not start; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] tiger_store::Error),
    /// A name of the configuration means nothing.
    #[error("{0}")]
    Config(String),
    /// The address may not be used.
    #[error("{0}")]
    Address(String),
    /// The operating system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

/// The server's state; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    config: Config,
    store: Store,
    /// Dropping it stops the worker.
    _engine: Engine,
    handle: Handle,
    bases: Arc<Bases>,
    recorder: Mutex<Option<Recorder>>,
    writers: Mutex<Option<Writers>>,
    gate: Gate,
    places: Arc<Places>,
    flights: Arc<Flights>,
    draining: AtomicBool,
    ready: AtomicBool,
    cut: watch::Sender<bool>,
    setup_token: Mutex<Option<String>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    started: Instant,
    pulls: Pulls,
    imports: Semaphore,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("data_dir", &self.0.config.data_dir).finish_non_exhaustive()
    }
}

impl App {
    /// Opens the data directory and starts the engine; trainings that a crash interrupted go on.
    ///
    /// # Errors
    /// [`StartError`]: the directory is in use, the disk is full, a configured name is unknown.
    pub async fn open(config: Config) -> Result<App, StartError> {
        let store = Store::open(&config.data_dir).await?;
        Self::with_store(config, store).await
    }

    /// The same on a store that the caller opened (tests give it options).
    pub async fn with_store(config: Config, store: Store) -> Result<App, StartError> {
        metrics::install();
        let bases = Arc::new(Bases::new(&config));
        let unknown = config.default_model.iter().chain(&config.preload).find(|name| bases.get(name).is_none());
        if let Some(name) = unknown {
            return Err(StartError::Config(format!("there is no base model {}; GET /v1/models lists them", crate::error::quoted(name))));
        }
        let source = Weights::new(Arc::clone(&bases), store.clone(), &config);
        let engine = Engine::start(config.engine.clone(), Arc::new(source));
        let setup_token = if store.has_owner().await? { None } else { Some(random_token()?) };
        let (recorder, writers) = Recorder::start(store.clone());
        let app = App(Arc::new(Inner {
            handle: engine.handle(),
            _engine: engine,
            bases,
            recorder: Mutex::new(Some(recorder)),
            writers: Mutex::new(Some(writers)),
            gate: Gate::new(&config.limits),
            places: Places::new(config.limits.in_flight_per_key),
            flights: Arc::new(Flights::default()),
            draining: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            cut: watch::Sender::new(false),
            setup_token: Mutex::new(setup_token),
            tasks: Mutex::new(Vec::new()),
            started: Instant::now(),
            pulls: Pulls::default(),
            imports: Semaphore::new(IMPORTS_AT_ONCE),
            store,
            config,
        }));
        app.start_tasks().await?;
        Ok(app)
    }

    async fn start_tasks(&self) -> Result<(), StartError> {
        let recovered = self.store().recover().await?;
        for id in &recovered.failed {
            tracing::warn!(training = id.0, "a training that earlier runs of the server could not finish has failed");
        }
        for interrupted in recovered.retry {
            tracing::info!(training = interrupted.ticket.id.0, attempts = interrupted.attempts, "an interrupted training starts again");
            self.task(training::resume(self.clone(), interrupted));
        }
        self.task(tidy(Arc::downgrade(&self.0)));
        self.task(preload(self.clone()));
        Ok(())
    }

    pub(crate) fn task(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(work));
    }

    /// Rows and blobs.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The engine.
    pub fn engine(&self) -> &Handle {
        &self.0.handle
    }

    /// Base models.
    pub fn bases(&self) -> &Bases {
        &self.0.bases
    }

    /// Places of adapters that are read in.
    pub fn imports(&self) -> &Semaphore {
        &self.0.imports
    }

    /// Limits of the door.
    pub fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// Everything that was decided at start-up.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// The one-time token that creates the owner's account; `None` once there is one.
    pub fn setup_token(&self) -> Option<String> {
        self.0.setup_token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn pulls(&self) -> &Pulls {
        &self.0.pulls
    }

    pub(crate) fn forget_setup_token(&self) {
        *self.0.setup_token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub(crate) fn places(&self) -> &Arc<Places> {
        &self.0.places
    }

    pub(crate) fn flights(&self) -> &Arc<Flights> {
        &self.0.flights
    }

    pub(crate) fn recorder(&self) -> Result<Recorder, ApiError> {
        self.0.recorder.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(ApiError::draining)
    }

    /// Admits nothing more: new requests answer 503, what was admitted goes on, also what the engine has not seen yet.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::SeqCst);
    }

    /// Ends the streams that are still open with an `error` chunk.
    pub(crate) fn cut(&self) {
        self.0.cut.send_replace(true);
    }

    pub(crate) fn cut_signal(&self) -> Cut {
        self.0.cut.subscribe()
    }

    /// Whether [`App::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Why the server does not take requests yet or any more.
    pub fn readiness(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(ApiError::draining());
        }
        if self.0.ready.load(Ordering::SeqCst) {
            return Ok(());
        }
        Err(ApiError::new(ErrorType::Unavailable, ErrorCode::Starting, "the server is loading its first model; try again in a moment")
            .retry_after(2))
    }

    /// Writes what is still to be written and closes the store. Requests that come later answer 503.
    pub async fn close(&self) {
        self.drain();
        self.0.handle.drain();
        let tasks: Vec<_> = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        self.0.recorder.lock().unwrap_or_else(PoisonError::into_inner).take();
        let writers = self.0.writers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writers) = writers {
            // Requests that were cut off may still hold a recorder for a moment.
            let _ = tokio::time::timeout(Duration::from_secs(2), writers.finish()).await;
        }
        self.store().close().await;
    }

    /// A public address needs an owner first: else the first stranger to come could become one.
    ///
    /// # Errors
    /// [`StartError::Address`], in words that say what to do.
    pub async fn check_address(&self, address: SocketAddr) -> Result<(), StartError> {
        if address.ip().is_loopback() || self.store().has_owner().await? {
            return Ok(());
        }
        Err(StartError::Address(format!(
            "{address} can be reached from other machines, but this server has no owner yet; create one first, with `tiger accounts owner NAME`, or on 127.0.0.1 with the link that is printed there, then start it on {address}"
        )))
    }
}

/// 43 characters that cannot be guessed.
fn random_token() -> Result<String, StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| StartError::Config(format!("the operating system gives no randomness: {error}")))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

async fn tidy(app: Weak<Inner>) {
    for round in 1u32.. {
        tokio::time::sleep(TIDY_EVERY).await;
        let Some(inner) = app.upgrade() else { return };
        metrics::upkeep();
        inner.gate.prune();
        if round % CLEAR_EVERY != 1 {
            continue;
        }
        let cleared = async {
            inner.store.purge_samples().await?;
            inner.store.reap_abandoned().await?;
            inner.store.sweep(inner.store.now().await?, SWEEP_AFTER_S).await
        };
        match cleared.await {
            Ok(swept) => tracing::info!(removed = swept.removed, bytes = swept.bytes, "old samples and blobs were cleared"),
            Err(error) => tracing::error!(%error, "old samples and blobs could not be cleared"),
        }
    }
}

async fn preload(app: App) {
    for name in app.config().preload.clone() {
        let Some(base) = app.bases().get(&name) else { continue };
        if let Err(error) = base.front().await {
            tracing::error!(base = base.id, error = error.message(), "a model could not be loaded ahead");
            continue;
        }
        match app.engine().preload(base.engine_id()) {
            Ok(mut loading) => while loading.events.recv().await.is_some() {},
            Err(error) => tracing::error!(base = base.id, %error, "a model could not be loaded ahead"),
        }
    }
    app.0.ready.store(true, Ordering::SeqCst);
}
