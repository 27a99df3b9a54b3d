//! `tiger pull`: a base model into the data directory, from the hub or from a folder.

use std::path::{Path, PathBuf};

use tiger_formats::{Checkpoint, Tokenizer};

use crate::args::{Global, Pull};
use crate::failure::{CONFLICT, Failure};
use crate::hub::{RemoteFile, Repository};
use crate::{home, output};

/// Files that a checkpoint may have beside its weights.
const SMALL_FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "model.safetensors.index.json",
];

/// Pulls into `DATA/models/<id>.part` and renames when everything is there and readable.
pub async fn run(global: &Global, args: Pull) -> Result<(), Failure> {
    let models = home::data_dir(global)?.join("models");
    let source = source(&args)?;
    let name = args.name.clone().unwrap_or_else(|| source.name.clone());
    let id = tiger_store::slug(&name);
    let target = models.join(&id);
    if target.exists() {
        eprintln!("{name} is already there: {}", target.display());
        return report(global, &id, &target);
    }
    let part = models.join(format!(".{id}.part"));
    std::fs::create_dir_all(&part).map_err(|e| Failure::because(part.display(), e))?;
    match &source.from {
        From::Folder(folder) => copy(folder, &part)?,
        From::Hub(repo) => download(repo, &args.revision, &part).await?,
    }
    readable(&part)?;
    std::fs::rename(&part, &target).map_err(|e| Failure { code: CONFLICT, ..Failure::because(target.display(), e) })?;
    report(global, &id, &target)
}

enum From {
    Folder(PathBuf),
    Hub(String),
}

struct Source {
    name: String,
    from: From,
}

fn source(args: &Pull) -> Result<Source, Failure> {
    if let Some((repo, id)) = tiger_server::known_repository(&args.model) {
        return Ok(Source { name: id, from: From::Hub(repo.to_owned()) });
    }
    let path = Path::new(&args.model);
    let last = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    if path.is_dir() {
        let folder = path.canonicalize().map_err(|e| Failure::because(path.display(), e))?;
        return Ok(Source { name: last(&folder.to_string_lossy()), from: From::Folder(folder) });
    }
    let parts: Vec<&str> = args.model.split('/').collect();
    let plain =
        |part: &&str| !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if parts.len() == 2 && parts.iter().all(plain) {
        return Ok(Source { name: last(&args.model), from: From::Hub(args.model.clone()) });
    }
    Err(Failure::new(format!(
        "{:?} is neither a listed base (Llama-3.1-8b, DeepSeek-R1-8b), nor a repository (owner/name), nor a folder",
        args.model
    )))
}

/// Hard links where the file system allows, so that a folder next door costs no second copy.
fn copy(folder: &Path, part: &Path) -> Result<(), Failure> {
    let wanted = |name: &str| SMALL_FILES.contains(&name) || name.ends_with(".safetensors");
    for entry in std::fs::read_dir(folder).map_err(|e| Failure::because(folder.display(), e))? {
        let entry = entry.map_err(|e| Failure::because(folder.display(), e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !wanted(&name) || entry.path().is_dir() {
            continue;
        }
        let to = part.join(&name);
        let _ = std::fs::remove_file(&to);
        let linked = std::fs::hard_link(entry.path(), &to).or_else(|_| std::fs::copy(entry.path(), &to).map(|_| ()));
        linked.map_err(|e| Failure::because(to.display(), e))?;
    }
    Ok(())
}

async fn download(repo: &str, revision: &str, part: &Path) -> Result<(), Failure> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let repository = Repository::open(set("HF_ENDPOINT").as_deref(), set("HF_TOKEN"), repo, revision).await?;
    let files = wanted(&repository.files);
    if !files.iter().any(|f| f.name.ends_with(".safetensors")) {
        return Err(Failure::new(format!("{repo} has no safetensors weights; only those are supported")));
    }
    let total = files.iter().filter_map(|f| f.size).sum();
    let bar = output::bar(total, "{msg} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    let mut done = 0;
    for file in files {
        bar.set_message(file.name.clone());
        let to = part.join(&file.name);
        let have = to.metadata().is_ok_and(|m| Some(m.len()) == file.size);
        if !have {
            repository.download(file, &to, &|bytes| bar.set_position(done + bytes)).await?;
        }
        done += file.size.unwrap_or(0);
        bar.set_position(done);
    }
    bar.finish_and_clear();
    Ok(())
}

/// The files of the checkpoint itself: weights at the top, not the originals in folders of their own.
fn wanted(files: &[RemoteFile]) -> Vec<&RemoteFile> {
    let weights = |name: &str| name.ends_with(".safetensors") && name.starts_with("model");
    files.iter().filter(|f| !f.name.contains('/') && (SMALL_FILES.contains(&f.name.as_str()) || weights(&f.name))).collect()
}

/// What is pulled must load: config, tensors and tokenizer are checked before the folder gets its name.
fn readable(dir: &Path) -> Result<(), Failure> {
    Checkpoint::open(dir).map_err(|e| Failure::because("this checkpoint cannot be used", e))?;
    Tokenizer::open(dir).map_err(|e| Failure::because("this checkpoint cannot be used", e))?;
    Ok(())
}

fn report(global: &Global, id: &str, target: &Path) -> Result<(), Failure> {
    if global.json {
        return output::json(&serde_json::json!({"id": id, "path": target}));
    }
    println!("{id}");
    Ok(())
}
