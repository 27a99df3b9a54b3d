//! Opening a data directory: the lock that keeps two servers apart, the options of tests and operators, the named failure points.

use crate::blobs::Blobs;
use crate::known_keys::KnownKeys;
use crate::schema::{Database, Write};
use crate::{Error, Result, secret};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};

/// Called with the name of each point of [`FAILPOINTS`] that a write passes. It may end the process, or return an error of the
/// operating system, which the write then reports as if the system had (for example `StorageFull`).
pub type Failpoint = Arc<dyn Fn(&'static str) -> io::Result<()> + Send + Sync>;

/// Every named point, in the order in which one training passes them (the four of a blob twice: weights, then optimizer).
pub const FAILPOINTS: &[&str] = &[
    "train_begun",
    "train_started",
    "blob_writing",
    "blob_written",
    "blob_checked",
    "blob_renamed",
    "before_commit",
    "train_marked",
    "revision_moved",
    "in_transaction",
    "after_commit",
];

/// Environment variable that names a point of [`FAILPOINTS`] (`name`, or `name:n` for its n-th passing) where the process kills itself.
const FAILPOINT_VARIABLE: &str = "TIGER_FAILPOINT";
/// Password hashes at once: each takes 19 MiB and a core for tens of milliseconds.
const PASSWORD_HASHES_AT_ONCE: usize = 2;

/// Rules switched off, so that tests can show that the checks would notice. Never used by programs.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Controls {
    /// Commit without looking at the attempt's fence.
    pub no_fence: bool,
    /// Move a model's revision without comparing it with the training's base.
    pub no_compare_and_swap: bool,
    /// Sweep blobs although they are pinned.
    pub ignore_pins: bool,
}

/// How to open a store. The default is right for programs.
#[derive(Clone, Default)]
pub struct Options {
    /// Called at every named point of a write.
    pub failpoint: Option<Failpoint>,
    /// Seconds added to the database's clock; for tests of expiry.
    pub clock_offset_s: f64,
    /// Upper bound of the database file in pages of 4 KiB; beyond it writes fail with [`Error::DiskFull`].
    pub max_database_pages: Option<u32>,
    /// How many of a model's newest revisions keep their weights, besides revision 0; default 256.
    pub keep_weights: Option<u32>,
    /// How many of a model's newest revisions keep their optimizer state; default 8.
    pub keep_optimizers: Option<u32>,
    /// Rules switched off by tests.
    #[doc(hidden)]
    pub controls: Controls,
}

/// Handle on one data directory; cheap to clone, shared by every task of a process.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) dir: PathBuf,
    pub(crate) db: Database,
    pub(crate) blobs: Blobs,
    pub(crate) options: Options,
    /// Random name of this opening: leases of any other owner are those of a process that is gone.
    pub(crate) instance: String,
    /// Rung whenever a training may have reached the head of its queue.
    pub(crate) queue: Arc<Notify>,
    /// The trainings of this process that somebody still wants.
    pub(crate) live: crate::trains::LiveSet,
    pub(crate) hashing: Arc<Semaphore>,
    pub(crate) known_keys: KnownKeys,
    /// Held (never read) while this process owns the directory; `None` in a shared handle.
    lock: Option<File>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // Closing the file is not enough: a child process that another thread is just making shares it until it runs its own
            // program, and would hold the lock for that long. A failure only means that it goes with the last of them.
            let _ = lock.unlock();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("dir", &self.inner.dir).field("exclusive", &self.inner.lock.is_some()).finish()
    }
}

impl Store {
    /// Opens a data directory for this process alone, creating it where it does not exist. This is the server's handle.
    ///
    /// # Errors
    /// [`Error::Locked`] naming the holder when another process has it open.
    pub async fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, Options::default()).await
    }

    /// [`Store::open`] with options.
    pub async fn open_with(dir: impl AsRef<Path>, mut options: Options) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        create_dir(&dir)?;
        let lock = lock_directory(&dir)?;
        if options.failpoint.is_none() {
            options.failpoint = failpoint_from_environment();
        }
        Self::assemble(dir, options, Some(lock)).await
    }

    /// Opens a data directory beside a server that may be running: no lock, and only accounts, invitations, sessions and API keys
    /// may be used; every other write answers [`Error::SharedHandle`].
    pub async fn open_shared(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref().to_path_buf();
        create_dir(&dir)?;
        Self::assemble(dir, Options::default(), None).await
    }

    async fn assemble(dir: PathBuf, options: Options, lock: Option<File>) -> Result<Self> {
        let db = Database::open(&dir, options.max_database_pages).await?;
        let blobs = Blobs::open(&dir.join("blobs"), lock.is_some(), &options)?;
        let instance = secret::random_name()?;
        let hashing = Arc::new(Semaphore::new(PASSWORD_HASHES_AT_ONCE));
        let (known_keys, queue, live) = (KnownKeys::new(&dir), Arc::default(), Arc::default());
        Ok(Self { inner: Arc::new(Inner { dir, db, blobs, options, instance, queue, live, hashing, known_keys, lock }) })
    }

    /// Closes the database after the writes under way, so that its file is complete without its log. The directory's lock goes
    /// with the last clone of the handle.
    pub async fn close(&self) {
        self.inner.db.readers.close().await;
        self.inner.db.writer.close().await;
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The database's clock, in Unix seconds.
    pub async fn now(&self) -> Result<f64> {
        let now = sqlx::query_scalar("SELECT unixepoch('subsec') + ?").bind(self.inner.options.clock_offset_s);
        Ok(now.fetch_one(&self.inner.db.readers).await?)
    }

    pub(crate) fn readers(&self) -> &sqlx::SqlitePool {
        &self.inner.db.readers
    }

    /// Begins a write that any handle may make.
    pub(crate) async fn write_shared(&self) -> Result<Write> {
        self.inner.db.write(self.inner.options.clock_offset_s).await
    }

    /// Begins a write that only the owner of the directory may make.
    pub(crate) async fn write(&self) -> Result<Write> {
        self.exclusive()?;
        self.write_shared().await
    }

    pub(crate) fn exclusive(&self) -> Result<()> {
        if self.inner.lock.is_some() { Ok(()) } else { Err(Error::SharedHandle) }
    }

    /// Passes a named point.
    pub(crate) fn point(&self, name: &'static str) -> Result<()> {
        pass(self.inner.options.failpoint.as_ref(), name)
    }
}

/// Passes a named point of a write.
pub(crate) fn pass(failpoint: Option<&Failpoint>, name: &'static str) -> Result<()> {
    debug_assert!(FAILPOINTS.contains(&name), "{name} is not listed");
    failpoint.map_or(Ok(()), |hook| hook(name)).map_err(|e| Error::io(format!("write ({name})"), e))
}

/// Creates the directory where it is missing, for its owner only: it holds hashes of secrets and private weights.
fn create_dir(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir).map_err(|e| Error::io(format!("create the data directory {}", dir.display()), e))
}

/// Takes the directory's lock, which the system releases however the process ends, and writes down who holds it.
fn lock_directory(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let failed = |e| Error::io(format!("lock {}", path.display()), e);
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            let holder = if holder.trim().is_empty() { "another process".to_owned() } else { holder.trim().to_owned() };
            return Err(Error::Locked { dir: dir.display().to_string(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    let command = std::env::args().take(2).collect::<Vec<_>>().join(" ");
    let note = format!("process {} ({command})\n", std::process::id());
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(note.as_bytes())).map_err(failed)?;
    Ok(file)
}

/// The hook of [`FAILPOINT_VARIABLE`], for tests of the whole program.
fn failpoint_from_environment() -> Option<Failpoint> {
    let value = std::env::var(FAILPOINT_VARIABLE).ok()?;
    let (name, nth) = value.split_once(':').map_or((value.as_str(), 1), |(name, n)| (name, n.parse::<u64>().unwrap_or(1)));
    let (name, passed) = (name.to_owned(), std::sync::atomic::AtomicU64::new(0));
    Some(Arc::new(move |point| {
        if point == name && passed.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == nth {
            kill_self();
        }
        Ok(())
    }))
}

/// Ends this process as a power cut would: no destructor, no flush.
fn kill_self() {
    // SAFETY: `kill` takes two integers, and this process may always signal itself; nothing of Rust's runs afterwards.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
    // The signal arrives before `kill` returns to the thread that it chose; another thread may get this far.
    std::thread::park();
}
