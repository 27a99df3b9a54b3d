//! The store's one error type: what went wrong with durable state, in words that a person can act on. Knows no HTTP.

use std::io;

/// Result of every call on the store.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong. The first group is the caller's to answer (each says what to do), the second is the machine's, the last is ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The row does not exist, was deleted, or belongs to another account (nobody can tell which).
    #[error("{0} does not exist")]
    NotFound(&'static str),
    /// A name is in use within the account, or is reserved.
    #[error("the name `{0}` is taken; choose another one")]
    NameTaken(String),
    /// A value that the rows cannot hold.
    #[error("{param}: {message}")]
    Invalid {
        /// Which argument.
        param: &'static str,
        /// What is wrong with it and what is allowed.
        message: String,
    },
    /// An owner with a password exists already.
    #[error("this server already has an owner; sign in as the owner, or ask the owner for an invitation")]
    OwnerExists,
    /// The invitation is unknown, used or expired.
    #[error("this invitation is unknown, already used or expired; ask for a new one")]
    BadInvitation,
    /// Another training or rollback came first: the condition `if_revision`, or the base of a training, no longer holds.
    #[error("the model is at revision {current}, not {expected}; read the model again and repeat the request")]
    RevisionMoved {
        /// The revision that the caller built on.
        expected: i64,
        /// The model's revision now.
        current: i64,
    },
    /// The training was cancelled, mostly because its model was deleted.
    #[error("the training was cancelled because its model was deleted or its caller left")]
    Cancelled,
    /// This attempt no longer owns its training: it ended, or a later attempt took it over. Nothing was changed.
    #[error("this attempt no longer owns the training; nothing was changed")]
    Fenced,
    /// Too many trainings wait for one model.
    #[error("{0} trainings already wait for this model; try again when some have ended")]
    QueueFull(i64),
    /// The chat was written since it was read.
    #[error("this chat was changed in another tab or window (it is at version {current}, not {expected}); reload it")]
    ChatMoved {
        /// The version that the caller read.
        expected: i64,
        /// The chat's version now.
        current: i64,
    },
    /// The account keeps as many chats, or as many bytes of them, as it may.
    #[error("an account keeps at most {} chats and {} MB of them; delete some that are no longer needed", .0.chats, .0.bytes >> 20)]
    ChatsFull(crate::ChatLimits),
    /// The owner's account cannot be deleted.
    #[error("the owner's account cannot be deleted: without it nobody could invite others")]
    OwnerStays,
    /// The weights of this revision were let go to bound the disk space.
    #[error("the weights of revision {0} are no longer kept; choose a later revision or revision 0")]
    WeightsGone(i64),

    /// Another process uses this data directory.
    #[error("the data directory {dir} is in use by {holder}; stop it, or choose another data directory")]
    Locked {
        /// The directory.
        dir: String,
        /// Who holds it: process id and command, as that process wrote them down.
        holder: String,
    },
    /// This call needs the server's own handle ([`crate::Store::open`]), not a shared one.
    #[error("this needs the server's own handle on the data directory; a shared one only administers accounts and keys")]
    SharedHandle,
    /// The disk (or the quota) is full. Nothing was changed.
    #[error("the disk that holds the data directory is full; nothing was changed; free some space and repeat the request")]
    DiskFull,
    /// A blob that a row names is missing or does not have its sha256.
    #[error("the stored weights {sha256} are damaged ({problem}); restore them from a backup or roll the model back")]
    DamagedBlob {
        /// Content id.
        sha256: String,
        /// What was found.
        problem: String,
    },
    /// The operating system refused.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
        source: io::Error,
    },
    /// The blob store refused.
    #[error("the blob store refused: {0}")]
    Blobs(object_store::Error),
    /// The database refused.
    #[error("the database refused: {0}")]
    Database(sqlx::Error),
    /// The database's schema could not be brought up to date.
    #[error("the database could not be brought to this version's schema (a newer program may have written it): {0}")]
    Schema(#[from] sqlx::migrate::MigrateError),

    /// Our own mistake, never shown to users in detail.
    #[error("internal error of the store: {0}")]
    Internal(String),
}

impl Error {
    /// Names the failed action of an operating system's error; a full disk becomes [`Error::DiskFull`].
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        if is_full(&source) { Self::DiskFull } else { Self::Io { action: action.into(), source } }
    }

    /// Refuses an argument.
    pub(crate) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid { param, message: message.into() }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        /// Primary result code of SQLite for a full disk or a reached page limit.
        const SQLITE_FULL: i32 = 13;
        let code = error.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i32>().ok());
        // Extended codes carry the primary one in their low byte.
        if code.is_some_and(|code| code & 0xff == SQLITE_FULL) { Self::DiskFull } else { Self::Database(error) }
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = source {
            if cause.downcast_ref::<io::Error>().is_some_and(is_full) {
                return Self::DiskFull;
            }
            source = cause.source();
        }
        Self::Blobs(error)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
