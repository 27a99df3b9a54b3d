//! What the composition root decides: folders, the built-in model, the device's budget, limits, the clock.
//! Reads no environment and no command line.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tiger_model::{KvType, Precision};

use crate::limits::Limits;
use crate::pulls::Puller;

/// Seconds since 1970-01-01 UTC; injected, so that tests freeze it. Chat templates show it as today's date.
#[derive(Clone)]
pub struct Clock(pub Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Clock {
        Clock(Arc::new(|| {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
        }))
    }

    /// Always the same time.
    pub fn frozen(unix_s: i64) -> Clock {
        Clock(Arc::new(move || unix_s))
    }

    /// Now.
    pub fn unix_s(&self) -> i64 {
        (self.0)()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// A base model that the caller supplies as a folder: the one built into the program, or one named by `--model-dir`.
#[derive(Debug, Clone)]
pub struct BaseFolder {
    /// Name in the list; its id is the name as a slug.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Checkpoint folder.
    pub dir: PathBuf,
}

/// Everything that the server is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Rows and blobs, and under `models/` the downloaded checkpoints.
    pub data_dir: PathBuf,
    /// The model built into the program, laid out as a folder by the caller.
    pub builtin: Option<BaseFolder>,
    /// Base models outside the data directory.
    pub model_dirs: Vec<BaseFolder>,
    /// Name or id of the base that is selected at start-up. Default: the built-in one, else the first that is on this machine.
    pub default_model: Option<String>,
    /// Names or ids of bases to load before the server calls itself ready.
    pub preload: Vec<String>,
    /// How weights are packed.
    pub precision: Precision,
    /// How keys and values are kept; none: bf16, and f32 beside f32 weights.
    pub kv_type: Option<KvType>,
    /// Models with fewer bytes of packed weights are packed at each start, others leave a file beside the checkpoint.
    pub packed_min_bytes: u64,
    /// Limits of the engine.
    pub engine: tiger_engine::Config,
    /// Limits of the door.
    pub limits: Limits,
    /// Time that templates see.
    pub clock: Clock,
    /// Where base models are downloaded from; none: not from here.
    pub pull: Option<Puller>,
    /// Session cookies only over HTTPS: set it behind a proxy that speaks TLS.
    pub secure_cookies: bool,
}

impl Config {
    /// A server on a data directory, everything else at its default.
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            builtin: None,
            model_dirs: Vec::new(),
            default_model: None,
            preload: Vec::new(),
            precision: Precision::Bf16,
            kv_type: None,
            packed_min_bytes: tiger_model::MIN_PACKED_BYTES,
            engine: tiger_engine::Config::default(),
            limits: Limits::default(),
            clock: Clock::system(),
            pull: None,
            secure_cookies: false,
        }
    }
}
