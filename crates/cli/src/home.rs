//! Where things lie on this machine, and how much room there is.

use std::path::PathBuf;

use tiger_client::Client;

use crate::args::Global;
use crate::failure::{Failure, UNAUTHORIZED};

/// Share of the free memory that the engine may take.
const MEMORY_SHARE: f64 = 0.85;
/// Of the engine's memory, what the keys and values of a base may take: one part in so many, or the engine's default if that is more, but
/// never more than a quarter.
const KV_PART: u64 = 8;
const MOST_KV_PART: u64 = 4;

/// The data directory: the flag or TIGER_HOME, else the user's data folder.
pub fn data_dir(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(dir) = &global.data_dir {
        return Ok(dir.clone());
    }
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let share = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    share.map(|dir| dir.join("tigercity")).ok_or_else(|| Failure::new("no data directory: set TIGER_HOME or give --data-dir"))
}

/// A client with the key of the command line.
pub fn client(global: &Global) -> Result<Client, Failure> {
    let missing =
        || Failure { message: "no API key: make one with `tiger keys create NAME` and set TIGER_API_KEY".into(), code: UNAUTHORIZED };
    let key = global.api_key.as_deref().filter(|key| !key.is_empty()).ok_or_else(missing)?;
    Ok(Client::new(&global.base_url, key)?)
}

/// Bytes of memory that are free now, from the kernel.
pub fn free_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The engine's configuration on this machine.
pub fn engine_config(threads: Option<usize>, memory_gib: Option<f64>, kv_memory_gib: Option<f64>) -> Result<tiger_engine::Config, Failure> {
    let mut config = tiger_engine::Config::default();
    if let Some(threads) = threads {
        if threads == 0 || threads > 1024 {
            return Err(Failure::new("--threads must be 1 to 1024"));
        }
        config.threads = threads;
    }
    let bytes = |flag: &str, gib: f64| match gib > 0.0 && gib < 1e6 {
        true => Ok((gib * f64::from(1 << 30)) as u64),
        false => Err(Failure::new(format!("{flag} must be a positive number of GiB"))),
    };
    let budget = match memory_gib {
        Some(gib) => Some(bytes("--memory", gib)?),
        None => free_memory_bytes().map(|free| (free as f64 * MEMORY_SHARE) as u64),
    };
    if let Some(budget) = budget {
        config.memory_budget_bytes = budget;
        config.kv_bytes = config.kv_bytes.max(budget / KV_PART).min(budget / MOST_KV_PART);
    }
    if let Some(gib) = kv_memory_gib {
        config.kv_bytes = bytes("--kv-memory", gib)?;
        if config.kv_bytes >= config.memory_budget_bytes {
            return Err(Failure::new("--kv-memory is a part of --memory: give less for it, or more in all"));
        }
    }
    Ok(config)
}
