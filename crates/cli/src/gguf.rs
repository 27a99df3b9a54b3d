//! GGUF files as bases: the folder that a checkpoint is, made of one file. Does not know the format; `tiger_formats` does.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};
use tiger_formats::Gguf;
use tiger_formats::checkpoint::GGUF_FILE;
use tiger_formats::gguf::small_files;

use crate::failure::Failure;
use crate::pull::link;

/// Whether a path is named as such files are.
pub fn is_named(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// What a base of this file is called: the file's name without its ending.
pub fn name(file: &Path) -> String {
    let name = if is_named(file) { file.file_stem() } else { file.file_name() };
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// The GGUF file of a folder that is no checkpoint yet: it has no `config.json`.
///
/// # Errors
/// Several such files, by name: they are different models, or parts of one.
pub fn only_file(folder: &Path) -> Result<Option<PathBuf>, Failure> {
    if folder.join("config.json").exists() {
        return Ok(None);
    }
    let entries = std::fs::read_dir(folder).map_err(|e| Failure::because(folder.display(), e))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_named(path)).collect();
    files.sort();
    match files.as_slice() {
        [] => Ok(None),
        [file] => Ok(Some(file.clone())),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            Err(Failure::new(format!("{} has several GGUF files; give one of them: {}", folder.display(), names.join(", "))))
        }
    }
}

/// Writes the small files and links the weights into `folder`, which is made.
pub fn lay_out(file: &Path, folder: &Path) -> Result<(), Failure> {
    write_small_files(file, folder)?;
    link(file, &folder.join(GGUF_FILE))
}

/// The folder of a file that stays where it is, under `data_dir`; made unless it is there.
pub fn beside(file: &Path, data_dir: &Path) -> Result<PathBuf, Failure> {
    let unreadable = |e: std::io::Error| Failure::because(file.display(), e);
    let metadata = file.metadata().map_err(unreadable)?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let stamp = format!("{} {} {}", file.display(), metadata.len(), changed.as_nanos());
    let id: String = Sha256::digest(stamp).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let folder = data_dir.join("gguf").join(id);
    if folder.join(GGUF_FILE).exists() {
        return Ok(folder);
    }
    write_small_files(file, &folder)?;
    let to = folder.join(GGUF_FILE);
    // A dead link may lie there.
    let _ = std::fs::remove_file(&to);
    std::os::unix::fs::symlink(file, &to).map_err(|e| Failure::because(to.display(), e))?;
    Ok(folder)
}

fn write_small_files(file: &Path, folder: &Path) -> Result<(), Failure> {
    let unusable = |e: tiger_formats::FormatError| Failure::because(format!("{} cannot be used", file.display()), e);
    let files = small_files(&Gguf::open(file).map_err(unusable)?).map_err(unusable)?;
    std::fs::create_dir_all(folder).map_err(|e| Failure::because(folder.display(), e))?;
    for (name, content) in files {
        let to = folder.join(name);
        std::fs::write(&to, content).map_err(|e| Failure::because(to.display(), e))?;
    }
    Ok(())
}
