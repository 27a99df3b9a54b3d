//! The Hugging Face hub's HTTP: what a repository holds, and one file of it with resume and checksum.
//! Does not know which files a model needs.

use std::io::{Read, Write};
use std::path::Path;

use futures::StreamExt;
use reqwest::{StatusCode, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::failure::{Failure, NOT_FOUND, UNAUTHORIZED, UNREACHABLE};

/// Where the hub is unless HF_ENDPOINT says otherwise.
const ENDPOINT: &str = "https://huggingface.co";
/// Tries of one file before the download gives up; each continues where the last one ended.
const TRIES: u32 = 5;

/// One file of a repository.
#[derive(Debug, Clone, Deserialize)]
pub struct RemoteFile {
    /// Path in the repository.
    #[serde(rename = "rfilename")]
    pub name: String,
    /// Bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Present for large files.
    #[serde(default)]
    pub lfs: Option<Lfs>,
}

/// What the hub knows of a large file.
#[derive(Debug, Clone, Deserialize)]
pub struct Lfs {
    /// Of the content, hexadecimal.
    pub sha256: String,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<RemoteFile>,
}

/// A repository at one commit.
pub struct Repository {
    http: reqwest::Client,
    endpoint: String,
    token: Option<String>,
    repo: String,
    commit: String,
    /// All files.
    pub files: Vec<RemoteFile>,
}

impl Repository {
    /// Asks the hub for the repository's commit and files. `HF_ENDPOINT` and `HF_TOKEN` are the caller's to read.
    pub async fn open(endpoint: Option<&str>, token: Option<String>, repo: &str, revision: &str) -> Result<Repository, Failure> {
        let endpoint = endpoint.unwrap_or(ENDPOINT).trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .connect_timeout(std::time::Duration::from_secs(15))
            .read_timeout(std::time::Duration::from_secs(60))
            .build()
            .map_err(|e| Failure::because("cannot make an HTTP client", e))?;
        let mut hub = Repository { http, endpoint, token, repo: repo.to_owned(), commit: revision.to_owned(), files: Vec::new() };
        let url = format!("{}/api/models/{repo}/revision/{revision}?blobs=true", hub.endpoint);
        let answer = hub.get(&url, 0).await?;
        let listing: Listing = answer.json().await.map_err(|e| Failure::because(format!("{url}: not a model listing"), e))?;
        hub.commit = listing.sha;
        hub.files = listing.siblings;
        Ok(hub)
    }

    /// Downloads one file to `to`, by way of `to.part`, which a later call continues. `on_bytes` is told bytes on disk so far.
    pub async fn download(&self, file: &RemoteFile, to: &Path, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<(), Failure> {
        let part = to.with_file_name(format!("{}.part", to.file_name().unwrap_or_default().to_string_lossy()));
        let mut tries = 0;
        loop {
            tries += 1;
            match self.fetch(file, &part, on_bytes).await {
                Ok(()) => break,
                Err(failure) if failure.code != UNREACHABLE || tries == TRIES => return Err(failure),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(500 << tries)).await,
            }
        }
        verify(file, &part)?;
        std::fs::rename(&part, to).map_err(|e| Failure::because(to.display(), e))
    }

    async fn fetch(&self, file: &RemoteFile, part: &Path, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<(), Failure> {
        let have = part.metadata().map_or(0, |m| m.len());
        if file.size == Some(have) && have > 0 {
            return Ok(());
        }
        let url = format!("{}/{}/resolve/{}/{}", self.endpoint, self.repo, self.commit, file.name);
        let answer = self.get(&url, have).await?;
        // Only 206 continues; a server that ignores the range sends everything again.
        let resumed = answer.status() == StatusCode::PARTIAL_CONTENT;
        let disk = |e: std::io::Error| Failure::because(part.display(), e);
        let mut out = std::fs::OpenOptions::new().create(true).append(resumed).write(true).truncate(!resumed).open(part).map_err(disk)?;
        let mut written = if resumed { have } else { 0 };
        let mut body = answer.bytes_stream();
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|e| Failure { code: UNREACHABLE, ..Failure::because(&url, e) })?;
            out.write_all(&bytes).map_err(disk)?;
            written += bytes.len() as u64;
            on_bytes(written);
        }
        out.sync_all().map_err(disk)
    }

    async fn get(&self, url: &str, from: u64) -> Result<reqwest::Response, Failure> {
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let answer =
            request.send().await.map_err(|e| Failure { code: UNREACHABLE, ..Failure::because(format!("cannot reach {url}"), e) })?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            // The part is as long as the file: the size was not known before.
            StatusCode::RANGE_NOT_SATISFIABLE => {
                Err(Failure::new(format!("{url}: the partial file is longer than the file; delete it and try again")))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Failure {
                message: format!("{url}: not allowed; accept the model's licence on its page and set HF_TOKEN"),
                code: UNAUTHORIZED,
            }),
            StatusCode::NOT_FOUND => {
                Err(Failure { message: format!("{url}: there is no such repository, revision or file"), code: NOT_FOUND })
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(Failure { message: format!("{url}: {status}"), code: UNREACHABLE })
            }
            status => Err(Failure::new(format!("{url}: {status}"))),
        }
    }
}

/// Size and checksum; a file that is wrong is removed, so that the next try starts anew.
fn verify(file: &RemoteFile, part: &Path) -> Result<(), Failure> {
    let disk = |e: std::io::Error| Failure::because(part.display(), e);
    let size = part.metadata().map_err(disk)?.len();
    let mut problem = file.size.filter(|expected| *expected != size).map(|expected| format!("{size} bytes instead of {expected}"));
    if let (None, Some(lfs)) = (&problem, &file.lfs) {
        let mut hash = Sha256::new();
        let mut input = std::fs::File::open(part).map_err(disk)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = input.read(&mut buffer).map_err(disk)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        let got: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if got != lfs.sha256 {
            problem = Some(format!("sha256 {got} instead of {}", lfs.sha256));
        }
    }
    match problem {
        None => Ok(()),
        Some(problem) => {
            std::fs::remove_file(part).map_err(disk)?;
            Err(Failure::new(format!("{}: {problem}; the download was discarded, try again", file.name)))
        }
    }
}
