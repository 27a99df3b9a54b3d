//! Where the checkpoint of a base lies on this machine. Does not know what is read of it.

use std::path::{Path, PathBuf};

use crate::args::Global;
use crate::failure::{Failure, NOT_FOUND};
use crate::{builtin, gguf, home};

/// Files that are the same for a fine-tuned model as for its base.
const SMALL_FILES: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// The folder that was given (or that of the GGUF file that was), else that of the data directory.
pub fn folder(global: &Global, given: Option<&Path>, base: &str) -> Result<PathBuf, Failure> {
    let data = home::data_dir(global)?;
    if let Some(given) = given {
        return if given.is_file() { gguf::beside(given, &data) } else { Ok(given.to_owned()) };
    }
    if base == builtin::NAME {
        return Ok(builtin::folder(&data)?.dir);
    }
    let pulled = data.join("models").join(tiger_store::slug(base));
    if pulled.join("config.json").is_file() {
        return Ok(pulled);
    }
    let message = format!("the checkpoint of {base} is not in {}; give its folder with --base", data.join("models").display());
    Err(Failure { code: NOT_FOUND, ..Failure::new(message) })
}

/// Configuration, tokenizer and template.
pub fn copy_small_files(from: &Path, to: &Path) -> Result<(), Failure> {
    for name in SMALL_FILES {
        let path = from.join(name);
        if path.is_file() {
            std::fs::copy(&path, to.join(name)).map_err(|e| Failure::because(to.join(name).display(), e))?;
        }
    }
    Ok(())
}
