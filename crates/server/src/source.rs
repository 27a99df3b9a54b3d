//! Where the engine's weights come from: checkpoints in folders, adapters in the store. Called on the engine's loader threads.
//! Does not know requests.

use std::sync::Arc;

use tiger_engine::{AdapterId, BaseId, Progress, Source};
use tiger_formats::Checkpoint;
use tiger_model::Cpu;
use tiger_model::{Adapter, KvType, Model, PackedFiles, Precision};
use tiger_store::Store;
use tokio::runtime::Handle;

use crate::bases::Bases;
use crate::config::Config;

/// Loads for the engine.
pub struct Weights {
    bases: Arc<Bases>,
    store: Store,
    runtime: Handle,
    precision: Precision,
    kv_type: Option<KvType>,
    threads: usize,
}

impl Weights {
    /// Weights of the bases and adapters that the configuration names. Its runtime runs the store's futures.
    pub fn new(bases: Arc<Bases>, store: Store, config: &Config) -> Weights {
        let (precision, kv_type, threads) = (config.precision, config.kv_type, config.engine.threads);
        Weights { bases, store, runtime: Handle::current(), precision, kv_type, threads }
    }
}

impl Source for Weights {
    fn base(&self, id: &BaseId, progress: Progress<'_>) -> Result<Arc<Model>, String> {
        let base = self.bases.get(&id.0).ok_or_else(|| format!("there is no base model `{}`", id.0))?;
        let stage = format!("Loading model {}", base.id);
        progress(&stage, 0.0);
        let dir = base.dir().ok_or_else(|| base.not_downloaded().message().to_owned())?;
        let checkpoint = Checkpoint::open(dir).map_err(|error| error.to_string())?;
        let (context, declared) = (checkpoint.architecture().context_length, checkpoint.config().declared_context);
        if context < declared {
            tracing::info!(base = %base.id, "the context ends at the sliding window, {context} of {declared} tokens: so far attention is full");
        }
        let cpu = Cpu::new(self.threads, None);
        let files = self.bases.packed_files(&base, dir, self.precision);
        let loaded =
            files.load(&cpu, &checkpoint, self.precision, &mut |done| progress(&stage, done)).map_err(|error| error.to_string())?;
        for problem in &loaded.problems {
            tracing::warn!(base = %base.id, "packed weights cannot be used and are packed again: {problem}");
        }
        let model = match self.kv_type {
            Some(kv_type) => loaded.model.with_kv_type(kv_type),
            None => loaded.model,
        };
        let model = Arc::new(model);
        if let Some(fingerprint) = loaded.unsaved {
            save(files, Arc::clone(&model), fingerprint);
        }
        Ok(model)
    }

    fn base_bytes(&self, id: &BaseId) -> Result<u64, String> {
        let base = self.bases.get(&id.0).ok_or_else(|| format!("there is no base model `{}`", id.0))?;
        let facts = base.facts().map_err(|error| error.message().to_owned())?;
        Ok(Model::bytes_of(&facts.architecture, self.precision))
    }

    fn adapter(&self, base: &BaseId, id: &AdapterId) -> Result<Arc<Adapter>, String> {
        let base = self.bases.get(&base.0).ok_or_else(|| format!("there is no base model `{}`", base.0))?;
        let facts = base.facts().map_err(|error| error.message().to_owned())?;
        let bytes = self.runtime.block_on(self.store.blob(&hex(&id.0))).map_err(|error| error.to_string())?;
        Adapter::from_bytes(&facts.architecture, &bytes).map(Arc::new).map_err(|error| error.to_string())
    }
}

/// Writes packed weights on a thread of its own, so that nobody waits for the disk. The next start can do without the file, so a failure is
/// only told.
fn save(files: PackedFiles, model: Arc<Model>, fingerprint: String) {
    let write = move || match files.save(&model, &fingerprint) {
        Ok(path) => tracing::info!("packed weights are kept in {} for the next start; the file may be deleted at any time", path.display()),
        Err(problem) => tracing::warn!("packed weights could not be kept, the next start packs them again: {problem}"),
    };
    if let Err(error) = std::thread::Builder::new().name("packed".to_owned()).spawn(write) {
        tracing::warn!("packed weights are not kept: {error}");
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A blob's name as the engine's adapter id.
pub fn adapter_id(sha256: &str) -> Option<AdapterId> {
    if !sha256.is_ascii() || sha256.len() != 64 {
        return None;
    }
    let mut id = [0; 32];
    for (byte, at) in id.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&sha256[at..at + 2], 16).ok()?;
    }
    Some(AdapterId(id))
}
