//! Keys that were looked up a moment ago, so that not every request asks the database whose key it came with. A revocation makes a file
//! of the data directory grow by a byte, in whichever process it is made; keys remembered at another length are not trusted. Knows no
//! row and no secret.

use crate::{Authenticated, Error, Result};
use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// File that grows by a byte with each revocation.
const FILE: &str = "revocations";
/// A key is looked up again after this time: bounds how late `last_used` is noted, and how long a revoked key works whose process was
/// killed between its commit and the byte.
const TTL: Duration = Duration::from_secs(5);
/// Keys remembered; each takes about 100 bytes. When there are more, all are looked up anew.
const MAX_KEYS: usize = 4096;

/// Length of the file; `None` where it cannot be read, and nothing is remembered.
pub(crate) type Revocations = Option<u64>;

/// The keys, by the hash of their secret.
pub(crate) struct KnownKeys {
    file: PathBuf,
    keys: Mutex<HashMap<Vec<u8>, Known>>,
}

struct Known {
    found: Authenticated,
    revocations: u64,
    until: Instant,
}

impl KnownKeys {
    /// Of a data directory.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { file: dir.join(FILE), keys: Mutex::default() }
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<Vec<u8>, Known>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many revocations there were.
    pub(crate) fn revocations(&self) -> Revocations {
        match std::fs::metadata(&self.file) {
            Ok(file) => Some(file.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(0),
            Err(_) => None,
        }
    }

    /// A key that was found lately, with no revocation since.
    pub(crate) fn get(&self, secret_sha256: &[u8], revocations: Revocations) -> Option<Authenticated> {
        let keys = self.keys();
        let known = keys.get(secret_sha256).filter(|known| Some(known.revocations) == revocations && Instant::now() < known.until);
        known.map(|known| known.found)
    }

    /// Remembers a key that was looked up after `revocations` were counted.
    pub(crate) fn insert(&self, secret_sha256: Vec<u8>, revocations: Revocations, found: Authenticated) {
        let Some(revocations) = revocations else { return };
        let mut keys = self.keys();
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.insert(secret_sha256, Known { found, revocations, until: Instant::now() + TTL });
    }

    /// A key was revoked: no process trusts what it remembers any more.
    pub(crate) fn forget_all(&self) -> Result<()> {
        self.keys().clear();
        let grown = OpenOptions::new().create(true).append(true).open(&self.file).and_then(|mut file| file.write_all(b"."));
        grown.map_err(|e| Error::io(format!("note the revocation in {}; revoke the key again", self.file.display()), e))
    }
}
