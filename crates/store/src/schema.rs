//! The database file: how it is opened, brought up to date and written. Knows no table's meaning.

use crate::{Error, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, Transaction};
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

/// Name of the database file in the data directory.
const DATABASE_FILE: &str = "tiger.db";
/// How long a writer waits for another process's write (a key made on the command line takes milliseconds).
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// Readers at once; WAL readers never wait for the writer, and each holds a few file handles.
const READERS: u32 = 4;

/// The two ways to the database: one connection that writes, a few that only read.
pub(crate) struct Database {
    pub(crate) writer: SqlitePool,
    pub(crate) readers: SqlitePool,
}

/// A write in progress, begun with `BEGIN IMMEDIATE`; dropped without [`Write::commit`] it rolls back.
pub(crate) struct Write {
    pub(crate) tx: Transaction<'static, Sqlite>,
    /// The database's clock at the beginning of this write, in Unix seconds.
    pub(crate) now: f64,
}

impl Write {
    pub(crate) async fn commit(self) -> Result<()> {
        Ok(self.tx.commit().await?)
    }
}

impl Database {
    /// Opens (and creates) the database of a data directory and applies the migrations that it lacks.
    pub(crate) async fn open(dir: &Path, max_pages: Option<u32>) -> Result<Self> {
        let migrating = lock_migrations(dir).await?;
        let mut options = SqliteConnectOptions::new()
            .filename(dir.join(DATABASE_FILE))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        if let Some(pages) = max_pages {
            options = options.pragma("max_page_count", pages.to_string());
        }
        let readers = options.clone().read_only(true);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        sqlx::migrate!().run(&writer).await?;
        drop(migrating);
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(readers).await?;
        Ok(Self { writer, readers })
    }

    /// Begins a write, waiting for the one before it.
    pub(crate) async fn write(&self, clock_offset_s: f64) -> Result<Write> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let now = sqlx::query_scalar("SELECT unixepoch('subsec') + ?").bind(clock_offset_s).fetch_one(&mut *tx).await?;
        Ok(Write { tx, now })
    }
}

/// The database's own migration lock does not exist for SQLite, so two first starts at once are kept apart by a file lock.
async fn lock_migrations(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join("migrate.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    });
    let locked = locked.await.map_err(|e| Error::Internal(e.to_string()))?;
    locked.map_err(|e| Error::io("lock the database for its migrations", e))
}
