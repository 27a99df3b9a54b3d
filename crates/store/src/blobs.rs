//! Immutable blobs named by their sha256 (`ab/cdef…`) in an object store: local files now, any S3 behind the same trait later.
//! Knows no row: which blobs are named it is told by the caller.
//!
//! A blob is written to a temporary name, synced, read back and checked, renamed, and its directory synced; only then may a row name
//! it. A pin keeps a blob from being swept between those two, and while a stream in flight still reads it.

use crate::open::{Failpoint, Options, Store, pass};
use crate::{Error, Result, secret};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::RwLock;

/// Folder of blobs that are being written. No blob's key begins so: keys begin with two hexadecimal digits.
const TEMPORARY: &str = "tmp";

/// Keeps a blob from being swept until it is dropped.
#[derive(Debug)]
pub struct Pin {
    sha256: String,
    pins: Arc<Pins>,
}

/// A blob on the disk that no row may name yet; swept only after it is dropped.
#[derive(Debug)]
pub struct StoredBlob {
    /// Lower-case hexadecimal sha256 of the content: its name.
    pub sha256: String,
    /// Size in bytes.
    pub bytes: u64,
    _pin: Pin,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs removed.
    pub removed: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs left: named by a row, pinned or too young.
    pub kept: usize,
}

#[derive(Debug, Default)]
struct Pins(Mutex<HashMap<String, usize>>);

pub(crate) struct Blobs {
    objects: Arc<dyn ObjectStore>,
    pins: Arc<Pins>,
    /// Read while a blob is found and pinned, written while one is judged and removed: a blob cannot go between being found and
    /// being pinned.
    gate: RwLock<()>,
    failpoint: Option<Failpoint>,
    ignore_pins: bool,
}

/// Lower-case hexadecimal sha256 of some bytes: the name of the blob that holds them.
pub fn sha256_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hex = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].map(char::from);
    Sha256::digest(bytes).iter().flat_map(hex).collect()
}

impl Pins {
    fn with<T>(&self, f: impl FnOnce(&mut HashMap<String, usize>) -> T) -> T {
        // The map is whole after any panic: every change of it is one call.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.pins.with(|pins| {
            if let Some(count) = pins.get_mut(&self.sha256) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(&self.sha256);
                }
            }
        });
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        pin(&self.pins, &self.sha256)
    }
}

impl Pin {
    /// The pinned blob's name.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

fn pin(pins: &Arc<Pins>, sha256: &str) -> Pin {
    pins.with(|pins| *pins.entry(sha256.to_owned()).or_insert(0) += 1);
    Pin { sha256: sha256.to_owned(), pins: Arc::clone(pins) }
}

impl Blobs {
    /// Opens the folder of blobs; the owner of the data directory clears what a crash left half written.
    pub(crate) fn open(root: &Path, owner: bool, options: &Options) -> Result<Self> {
        let temporary = root.join(TEMPORARY);
        std::fs::create_dir_all(&temporary).map_err(|e| Error::io(format!("create {}", temporary.display()), e))?;
        if owner {
            let leftovers = std::fs::read_dir(&temporary).map_err(|e| Error::io("list unfinished blobs", e))?;
            for file in leftovers.flatten() {
                std::fs::remove_file(file.path()).map_err(|e| Error::io("remove an unfinished blob", e))?;
            }
        }
        let objects = Arc::new(LocalFileSystem::new_with_prefix(root)?.with_fsync(true));
        let (failpoint, ignore_pins) = (options.failpoint.clone(), options.controls.ignore_pins);
        Ok(Self { objects, pins: Arc::default(), gate: RwLock::new(()), failpoint, ignore_pins })
    }

    async fn put(&self, bytes: Bytes) -> Result<StoredBlob> {
        let (sha256, bytes) = hash(bytes).await?;
        let found = self.gate.read().await;
        let pin = pin(&self.pins, &sha256);
        let there = self.get(&sha256).await;
        drop(found);
        match there {
            Ok(_) => {}
            // Missing, or damaged: the right bytes take its place.
            Err(Error::DamagedBlob { .. }) => self.write(&sha256, bytes.clone()).await?,
            Err(e) => return Err(e),
        }
        Ok(StoredBlob { sha256, bytes: bytes.len() as u64, _pin: pin })
    }

    async fn write(&self, sha256: &str, bytes: Bytes) -> Result<()> {
        let point = |name| pass(self.failpoint.as_ref(), name);
        let temporary = Key::from(format!("{TEMPORARY}/{}", secret::random_name()?));
        let written = async {
            point("blob_writing")?;
            self.objects.put(&temporary, bytes.into()).await?;
            point("blob_written")?;
            let (read_back, _) = hash(self.objects.get(&temporary).await?.bytes().await?).await?;
            if read_back != sha256 {
                return Err(Error::DamagedBlob { sha256: sha256.to_owned(), problem: format!("read back as {read_back}") });
            }
            point("blob_checked")?;
            self.objects.rename(&temporary, &key(sha256)).await?;
            point("blob_renamed")
        };
        let written = written.await;
        if written.is_err() {
            // Best effort: the next opening clears this folder anyway.
            let _ = self.objects.delete(&temporary).await;
        }
        written
    }

    async fn get(&self, sha256: &str) -> Result<Bytes> {
        let damaged = |problem: String| Error::DamagedBlob { sha256: sha256.to_owned(), problem };
        let bytes = match self.objects.get(&key(sha256)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("missing".to_owned())),
            Err(e) => return Err(e.into()),
        };
        let (found, bytes) = hash(bytes).await?;
        if found == sha256 { Ok(bytes) } else { Err(damaged(format!("its content has the sha256 {found}"))) }
    }

    fn pinned(&self, sha256: &str) -> bool {
        !self.ignore_pins && self.pins.with(|pins| pins.contains_key(sha256))
    }
}

impl Store {
    /// Stores bytes as a blob and returns its name; once it returns, the bytes survive a power cut. Hold the result until a row
    /// names the blob. Bytes that are stored already are not written again.
    ///
    /// # Errors
    /// [`Error::DiskFull`], with nothing changed.
    pub async fn put_blob(&self, bytes: Bytes) -> Result<StoredBlob> {
        self.exclusive()?;
        self.inner.blobs.put(bytes).await
    }

    /// A blob's bytes, checked against its name.
    ///
    /// # Errors
    /// [`Error::DamagedBlob`] when it is missing or its content is not what its name says.
    pub async fn blob(&self, sha256: &str) -> Result<Bytes> {
        check_name(sha256)?;
        self.inner.blobs.get(sha256).await
    }

    /// Keeps a blob from being swept until the pin is dropped. A blob that no row names may be gone already; to pin a model's weights
    /// use [`Store::pin_model`].
    pub async fn pin(&self, sha256: &str) -> Pin {
        let _found = self.inner.blobs.gate.read().await;
        pin(&self.inner.blobs.pins, sha256)
    }

    /// Removes the blobs that no row names, that nothing pins, and that were written more than `older_than_s` seconds before `now`
    /// (Unix seconds, [`Store::now`]).
    pub async fn sweep(&self, now: f64, older_than_s: f64) -> Result<Swept> {
        self.exclusive()?;
        let blobs = &self.inner.blobs;
        let mut swept = Swept::default();
        let found: Vec<_> = blobs.objects.list(None).try_collect().await?;
        for object in found {
            let Some(sha256) = name_of(&object.location) else { continue };
            let written = object.last_modified.timestamp_millis() as f64 / 1000.0;
            if now - written <= older_than_s {
                swept.kept += 1;
                continue;
            }
            let _judging = blobs.gate.write().await;
            if blobs.pinned(&sha256) || self.is_named(&sha256).await? {
                swept.kept += 1;
                continue;
            }
            blobs.objects.delete(&object.location).await?;
            swept.removed += 1;
            swept.bytes += object.size;
        }
        Ok(swept)
    }

    /// Whether a row that matters still names a blob.
    async fn is_named(&self, sha256: &str) -> Result<bool> {
        let query = "SELECT EXISTS (SELECT 1 FROM revision r JOIN model m ON m.key = r.model
                                    WHERE m.deleted_at IS NULL AND (r.blob_sha256 = ?1 OR r.optimizer_sha256 = ?1))
                         OR EXISTS (SELECT 1 FROM model WHERE deleted_at IS NULL AND ?1 IN (blob_sha256, optimizer_sha256, reference_sha256))";
        // Asked of the writer: a reader could still see the rows as they were before the latest commit.
        Ok(sqlx::query_scalar(query).bind(sha256).fetch_one(&self.inner.db.writer).await?)
    }

    /// While this is held no sweep removes anything: what a row names now can be pinned with [`Store::pin_now`].
    pub(crate) async fn pin_gate(&self) -> tokio::sync::RwLockReadGuard<'_, ()> {
        self.inner.blobs.gate.read().await
    }

    pub(crate) fn pin_now(&self, sha256: &str) -> Pin {
        pin(&self.inner.blobs.pins, sha256)
    }
}

/// Refuses a name that would not be a blob's; names come from rows, but also from callers.
fn check_name(sha256: &str) -> Result<()> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if sha256.len() == 64 && sha256.bytes().all(hex) {
        Ok(())
    } else {
        Err(Error::invalid("sha256", "must be 64 lower-case hexadecimal digits"))
    }
}

fn key(sha256: &str) -> Key {
    let (folder, file) = sha256.split_at(2);
    Key::from(format!("{folder}/{file}"))
}

fn name_of(key: &Key) -> Option<String> {
    let (folder, file) = key.as_ref().split_once('/')?;
    let name = format!("{folder}{file}");
    check_name(&name).ok().map(|()| name)
}

/// Hashes off the async threads: weights are tens of megabytes.
async fn hash(bytes: Bytes) -> Result<(String, Bytes)> {
    let hashed = tokio::task::spawn_blocking(move || (sha256_hex(&bytes), bytes)).await;
    hashed.map_err(|e| Error::Internal(format!("hashing a blob: {e}")))
}
