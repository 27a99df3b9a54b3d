//! `tiger pull`: a base model into the data directory, from the hub, from a folder or from a GGUF file.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use tiger_formats::checkpoint::GGUF_FILE;
use tiger_formats::{Checkpoint, Tokenizer};

use crate::args::{Global, Pull};
use crate::failure::{CONFLICT, Failure};
use crate::hub::{RemoteFile, Repository};
use crate::{gguf, home, output};
use tiger_server::{OnProgress, Pull as PullSource, PullProgress, Pulling};

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

/// Pulls a base under its name, unless it is there.
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
    let bar = output::bar(0, "{msg} {bar:30} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left");
    bar.set_message(id.clone());
    let progress = |step| {
        if let PullProgress::Bytes { bytes, total, .. } = step {
            bar.set_length(total);
            bar.set_position(bytes);
        }
    };
    let ended = into_models(&models, &id, &source.from, &args.revision, &progress).await;
    bar.finish_and_clear();
    ended?;
    report(global, &id, &target)
}

/// Into `.id.part`, which gets its name when everything is there and readable.
async fn into_models(models: &Path, id: &str, from: &From, revision: &str, on: &(dyn Fn(PullProgress) + Sync)) -> Result<(), Failure> {
    let (part, target) = (models.join(format!(".{id}.part")), models.join(id));
    std::fs::create_dir_all(&part).map_err(|e| Failure::because(part.display(), e))?;
    let _lock = lock(models, id)?;
    match from {
        From::Folder(folder) => copy(folder, &part)?,
        From::Gguf(file) => {
            // What an earlier pull of something else left would be taken for the weights.
            std::fs::remove_dir_all(&part).map_err(|e| Failure::because(part.display(), e))?;
            gguf::lay_out(file, &part)?;
        }
        From::Hub(repo) => download(repo, revision, &part, on).await?,
    }
    on(PullProgress::Checking);
    let checked = part.clone();
    let read = tokio::task::spawn_blocking(move || readable(&checked)).await;
    read.map_err(|e| Failure::because("the checkpoint could not be read", e))??;
    std::fs::rename(&part, &target).map_err(|e| Failure { code: CONFLICT, ..Failure::because(target.display(), e) })
}

/// Keeps others out of `.id.part` for as long as it lives: two pulls would spoil each other's files.
fn lock(models: &Path, id: &str) -> Result<File, Failure> {
    let path = models.join(format!(".{id}.lock"));
    let file = File::create(&path).map_err(|e| Failure::because(path.display(), e))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Failure {
            code: CONFLICT,
            ..Failure::new(format!("{id} is being pulled already, by another command or by the server; wait for it"))
        }),
        // A file system without locks still works.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// The hub for the server's `/api/pulls`, into the same folders.
pub struct Hub {
    /// `models/` of the data directory.
    pub models: PathBuf,
}

impl PullSource for Hub {
    fn pull(&self, repository: String, id: String, on_progress: OnProgress) -> Pulling {
        let models = self.models.clone();
        Box::pin(async move {
            let pulled = into_models(&models, &id, &From::Hub(repository), "main", &*on_progress).await;
            pulled.map_err(|failure| failure.message)
        })
    }
}

enum From {
    Folder(PathBuf),
    Gguf(PathBuf),
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
        let name = last(&folder.to_string_lossy());
        let from = gguf::only_file(&folder)?.map_or(From::Folder(folder), From::Gguf);
        return Ok(Source { name, from });
    }
    if path.is_file() {
        let file = path.canonicalize().map_err(|e| Failure::because(path.display(), e))?;
        return Ok(Source { name: gguf::name(path), from: From::Gguf(file) });
    }
    if let Some((repository, _)) = tiger_server::hub_repository(&args.model) {
        return Ok(Source { name: last(&args.model), from: From::Hub(repository) });
    }
    Err(Failure::new(format!(
        "{:?} is neither a listed base (Llama-3.1-8b, DeepSeek-R1-8b), nor a repository (owner/name), nor a folder, nor a GGUF file",
        args.model
    )))
}

/// Hard links where the file system allows, so that a folder next door costs no second copy.
fn copy(folder: &Path, part: &Path) -> Result<(), Failure> {
    let wanted = |name: &str| SMALL_FILES.contains(&name) || name.ends_with(".safetensors") || name == GGUF_FILE;
    for entry in std::fs::read_dir(folder).map_err(|e| Failure::because(folder.display(), e))? {
        let entry = entry.map_err(|e| Failure::because(folder.display(), e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !wanted(&name) || entry.path().is_dir() {
            continue;
        }
        link(&entry.path(), &part.join(&name))?;
    }
    Ok(())
}

/// A hard link, or where the file system has none a copy.
pub fn link(from: &Path, to: &Path) -> Result<(), Failure> {
    let _ = std::fs::remove_file(to);
    let linked = std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(|_| ()));
    linked.map_err(|e| Failure::because(to.display(), e))
}

async fn download(repo: &str, revision: &str, part: &Path, on: &(dyn Fn(PullProgress) + Sync)) -> Result<(), Failure> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let repository = Repository::open(set("HF_ENDPOINT").as_deref(), set("HF_TOKEN"), repo, revision).await?;
    let files = wanted(&repository.files);
    if !files.iter().any(|f| f.name.ends_with(".safetensors")) {
        let gguf = match repository.files.iter().any(|f| f.name.ends_with(".gguf")) {
            true => "; of its GGUF files download one, and `tiger pull FILE.gguf`",
            false => "",
        };
        return Err(Failure::new(format!("{repo} has no safetensors weights; only those are pulled from a hub{gguf}")));
    }
    let total = files.iter().filter_map(|f| f.size).sum();
    let (mut done, mut received) = (0, 0);
    for file in files {
        let to = part.join(&file.name);
        let size = |path: &Path| path.metadata().map_or(0, |m| m.len());
        let bytes = |bytes: u64, received: u64| on(PullProgress::Bytes { bytes: done + bytes, total, received });
        if !to.is_file() || Some(size(&to)) != file.size {
            // What an earlier pull left is here, but did not come now.
            let had = size(&part.join(format!("{}.part", file.name)));
            bytes(had, received);
            repository.download(file, &to, &|written| bytes(written, received + written.saturating_sub(had))).await?;
            received += size(&to).saturating_sub(had);
        }
        done += file.size.unwrap_or(0);
        on(PullProgress::Bytes { bytes: done, total, received });
    }
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
