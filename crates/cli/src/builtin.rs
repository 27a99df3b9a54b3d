//! The model that comes with the program: its files, laid out as a checkpoint folder where the server reads it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tiger_server::BaseFolder;

use crate::failure::Failure;

/// Name in the list of models.
pub const NAME: &str = "Tiger-Nano";

const FILES: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("../../../models/nano/checkpoint/config.json")),
    ("generation_config.json", include_bytes!("../../../models/nano/checkpoint/generation_config.json")),
    ("tokenizer.json", include_bytes!("../../../models/nano/checkpoint/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../models/nano/checkpoint/tokenizer_config.json")),
    ("chat_template.jinja", include_bytes!("../../../models/nano/checkpoint/chat_template.jinja")),
    ("model.safetensors", include_bytes!("../../../models/nano/checkpoint/model.safetensors")),
];

/// Questions with answers, for the quickstart.
pub const QUESTIONS: &str = include_str!("../../../models/nano/questions.json");

/// Writes the files under `data_dir/builtin/<content>` unless they are there, and names them as a base.
pub fn folder(data_dir: &Path) -> Result<BaseFolder, Failure> {
    let dir =
        lay_out(data_dir).map_err(|e| Failure::because(format!("cannot write the built-in model under {}", data_dir.display()), e))?;
    let description = "The built-in model: a few million parameters, a small world, for trying everything at once".to_owned();
    Ok(BaseFolder { name: NAME.to_owned(), description, dir })
}

fn lay_out(data_dir: &Path) -> std::io::Result<PathBuf> {
    let mut hash = Sha256::new();
    for (name, bytes) in FILES {
        hash.update(name);
        hash.update(bytes);
    }
    let id: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let dir = data_dir.join("builtin").join(id);
    let whole = |(name, bytes): &(&str, &[u8])| dir.join(name).metadata().is_ok_and(|m| m.len() == bytes.len() as u64);
    if FILES.iter().all(whole) {
        return Ok(dir);
    }
    std::fs::create_dir_all(&dir)?;
    for (name, bytes) in FILES {
        let part = dir.join(format!("{name}.part"));
        std::fs::write(&part, bytes)?;
        std::fs::rename(part, dir.join(name))?;
    }
    Ok(dir)
}
