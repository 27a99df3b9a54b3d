//! Base models: which there are, whether their weights are here, and what of them is needed to turn messages into tokens.
//! Reads small files at once, the tokenizer on first use. Does not know weights; [`crate::source`] loads those.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tiger_engine::BaseId;
use tiger_formats::checkpoint::GGUF_FILE;
use tiger_formats::{Architecture, ChatTemplate, GenerationConfig, ModelConfig, TokEnv, Tokenizer};
use tiger_model::{PackedFiles, Precision};
use tiger_store::slug;
use tiger_wire::{ErrorCode, ErrorType};
use tokio::sync::OnceCell;

use crate::config::{BaseFolder, Config};
use crate::error::ApiError;

/// A base model that is always listed.
struct Known {
    name: &'static str,
    hub: &'static str,
    description: &'static str,
    temperature: f64,
    top_p: f64,
}

const KNOWN: [Known; 2] = [
    Known {
        name: "Llama-3.1-8b",
        hub: "meta-llama/Llama-3.1-8B-Instruct",
        description: "Llama 3.1 8B Instruct: a general assistant",
        temperature: 0.6,
        top_p: 0.9,
    },
    Known {
        name: "DeepSeek-R1-8b",
        hub: "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
        description: "DeepSeek R1 distilled into Llama 8B: thinks before it answers",
        temperature: 0.6,
        top_p: 0.95,
    },
];

/// Longest name of a repository, characters: the hub's own is 96 for each half.
const REPOSITORY_CHARS: usize = 200;
/// Sampling defaults of a checkpoint that gives none.
const TEMPERATURE: f64 = 1.0;
const TOP_P: f64 = 1.0;
/// Marks of a reasoning part.
pub const THINK_OPEN: &str = "<think>";
/// Its end.
pub const THINK_CLOSE: &str = "</think>";

/// The hub repository of an always listed base, by name or id: what `tiger pull` downloads, and the folder's name under `models/`.
pub fn known_repository(name: &str) -> Option<(&'static str, String)> {
    KNOWN.iter().find(|known| known.name == name || slug(known.name) == slug(name)).map(|known| (known.hub, slug(known.name)))
}

/// The hub repository that a name means, and the folder's name under `models/`: a listed base, or `owner/name`.
pub fn hub_repository(name: &str) -> Option<(String, String)> {
    if let Some((repository, id)) = known_repository(name) {
        return Some((repository.to_owned(), id));
    }
    let plain =
        |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let (owner, last) = name.split_once('/')?;
    (name.len() <= REPOSITORY_CHARS && plain(owner) && plain(last)).then(|| (name.to_owned(), slug(last)))
}

/// Small facts of a checkpoint, read once.
#[derive(Debug)]
pub struct Facts {
    /// Sizes and switches.
    pub architecture: Architecture,
    /// Advice for sampling.
    pub generation: GenerationConfig,
    /// Tokens that end a sequence, as `config.json` says.
    pub eos_ids: Vec<u32>,
    /// Bytes of the weights' files.
    pub size_bytes: u64,
}

/// Turns text into tokens and back.
#[derive(Debug)]
pub struct Front {
    /// Text ↔ ids.
    pub tokenizer: Tokenizer,
    /// Messages → text; `None` for a checkpoint without one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end a turn.
    pub end_tokens: Vec<u32>,
    /// The model thinks between `<think>` and `</think>` first.
    pub reasoning: bool,
    /// Largest id + 1 of the model.
    vocab: usize,
    tok_env: OnceCell<Arc<TokEnv>>,
}

impl Front {
    /// Reads the files of a checkpoint folder. Takes up to a second: not for async threads.
    pub fn open(dir: &Path, facts: &Facts) -> Result<Front, String> {
        let tokenizer = Tokenizer::open(dir).map_err(|error| error.to_string())?;
        let template = ChatTemplate::open(dir).map_err(|error| error.to_string())?;
        let mut end_tokens = facts.generation.eos_ids.clone();
        end_tokens.extend(&facts.eos_ids);
        let named = template.as_ref().and_then(|template| template.special_token("eos_token"));
        end_tokens.extend(named.and_then(|name| tokenizer.token_id(name)));
        end_tokens.sort_unstable();
        end_tokens.dedup();
        end_tokens.retain(|id| (*id as usize) < facts.architecture.vocab);
        if end_tokens.is_empty() {
            return Err(
                "neither config.json nor generation_config.json nor tokenizer_config.json names a token that ends a turn".to_owned()
            );
        }
        let marks = [THINK_OPEN, THINK_CLOSE].iter().all(|mark| tokenizer.token_id(mark).is_some());
        let reasoning = marks && template_mentions_thinking(dir);
        Ok(Front { tokenizer, template, end_tokens, reasoning, vocab: facts.architecture.vocab, tok_env: OnceCell::new() })
    }

    /// Largest token id + 1.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The vocabulary for grammars, made on first use.
    pub async fn tok_env(self: &Arc<Front>) -> Result<Arc<TokEnv>, ApiError> {
        let front = Arc::clone(self);
        let made = self.tok_env.get_or_try_init(|| async move {
            let made = tokio::task::spawn_blocking(move || front.tokenizer.tok_env(&front.end_tokens, front.vocab)).await;
            let made = made.map_err(ApiError::internal)?;
            made.map(Arc::new).map_err(|error| ApiError::refused(ErrorCode::InvalidParameter, "response_format", error.to_string()))
        });
        made.await.cloned()
    }
}

/// Templates of reasoning models cut old thoughts out of the history, so the mark is in their source.
fn template_mentions_thinking(dir: &Path) -> bool {
    ["chat_template.jinja", "tokenizer_config.json"].iter().any(|file| {
        let path = dir.join(file);
        // The same files were just read with their limits by the template's reader.
        std::fs::read_to_string(path).is_ok_and(|text| text.contains(THINK_CLOSE))
    })
}

/// A request asks several times whether its base's folder is still there; the disk is asked once in this time.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One base model.
#[derive(Debug)]
pub struct Base {
    /// Name in the list.
    pub name: String,
    /// Slug of the name.
    pub id: String,
    /// What it is for.
    pub description: String,
    dirs: Vec<PathBuf>,
    known: Option<usize>,
    /// With the time when the folder was last there.
    facts: Mutex<Option<(Arc<Facts>, Instant)>>,
    front: OnceCell<Arc<Front>>,
}

impl Base {
    fn new(name: &str, description: &str, dirs: Vec<PathBuf>, known: Option<usize>) -> Base {
        Base {
            name: name.to_owned(),
            id: slug(name),
            description: description.to_owned(),
            dirs,
            known,
            facts: Mutex::new(None),
            front: OnceCell::new(),
        }
    }

    /// As the engine names it.
    pub fn engine_id(&self) -> BaseId {
        BaseId(Arc::from(self.id.as_str()))
    }

    /// Its folder, where the weights are on this machine.
    pub fn dir(&self) -> Option<&Path> {
        self.dirs.iter().map(PathBuf::as_path).find(|dir| is_checkpoint(dir))
    }

    /// 503 with the command that gets the weights.
    pub fn not_downloaded(&self) -> ApiError {
        let message = match self.known {
            Some(_) => format!("the weights of {} are not on this machine; run `tiger pull {}` and try again", self.name, self.name),
            None => format!("the folder of {} is gone; put it back, or start the server without it", self.name),
        };
        ApiError::new(ErrorType::Unavailable, ErrorCode::NotDownloaded, message).param("model")
    }

    /// Small facts; an error is 503.
    pub fn facts(&self) -> Result<Arc<Facts>, ApiError> {
        let mut cached = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((facts, _)) = cached.as_ref().filter(|(_, seen)| seen.elapsed() < LOOK_EVERY) {
            return Ok(Arc::clone(facts));
        }
        let dir = self.dir().ok_or_else(|| self.not_downloaded())?;
        let facts = match cached.take() {
            Some((facts, _)) => facts,
            None => Arc::new(read_facts(dir).map_err(|problem| self.broken(&problem))?),
        };
        *cached = Some((Arc::clone(&facts), Instant::now()));
        Ok(facts)
    }

    /// Whether the tokenizer is there already.
    pub fn front_is_loaded(&self) -> bool {
        self.front.initialized()
    }

    /// Tokenizer and template, loaded on first use.
    pub async fn front(self: &Arc<Base>) -> Result<Arc<Front>, ApiError> {
        let facts = self.facts()?;
        if let Some(front) = self.front.get() {
            return Ok(Arc::clone(front));
        }
        let dir = self.dir().ok_or_else(|| self.not_downloaded())?.to_path_buf();
        let made = self.front.get_or_try_init(|| async move {
            let opened = tokio::task::spawn_blocking(move || Front::open(&dir, &facts)).await.map_err(ApiError::internal)?;
            opened.map(Arc::new).map_err(|problem| self.broken(&problem))
        });
        made.await.cloned()
    }

    /// Defaults of requests that leave temperature and top_p out.
    pub fn sampling(&self) -> (f64, f64, Option<u32>) {
        let known = self.known.and_then(|index| KNOWN.get(index));
        let advice = self.facts().ok().map(|facts| facts.generation.clone()).unwrap_or_default();
        let temperature = advice.temperature.map(widen).or(known.map(|k| k.temperature)).unwrap_or(TEMPERATURE);
        let top_p = advice.top_p.map(widen).or(known.map(|k| k.top_p)).unwrap_or(TOP_P);
        (temperature.clamp(0.0, tiger_wire::limits::MAX_TEMPERATURE), top_p, advice.top_k)
    }

    fn broken(&self, problem: &str) -> ApiError {
        let message = format!("the checkpoint of {} cannot be used: {problem}", self.name);
        ApiError::new(ErrorType::Unavailable, ErrorCode::LoadFailed, message).param("model")
    }
}

/// f32 → the f64 that prints the same, so that 0.9 stays 0.9 in the list.
fn widen(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn is_checkpoint(dir: &Path) -> bool {
    let weights = ["model.safetensors", "model.safetensors.index.json", GGUF_FILE].iter().any(|file| dir.join(file).is_file());
    weights && dir.join("config.json").is_file()
}

fn read_facts(dir: &Path) -> Result<Facts, String> {
    let config = ModelConfig::open(&dir.join("config.json")).map_err(|error| error.to_string())?;
    let generation = GenerationConfig::open(dir, config.architecture.vocab).map_err(|error| error.to_string())?.unwrap_or_default();
    let files = std::fs::read_dir(dir).map_err(|error| format!("its folder cannot be read: {error}"))?;
    let paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let size_bytes =
        match paths.iter().filter(|path| path.extension().is_some_and(|ext| ext == "safetensors")).map(|path| bytes(path)).sum() {
            0 => bytes(&dir.join(GGUF_FILE)),
            size => size,
        };
    Ok(Facts { architecture: config.architecture, generation, eos_ids: config.eos_ids, size_bytes })
}

/// All base models; folders that appear later are found.
#[derive(Debug)]
pub struct Bases {
    models_dir: PathBuf,
    /// For packed weights of checkpoints whose own folders cannot be written.
    packed_dir: PathBuf,
    packed_min_bytes: u64,
    default: Option<String>,
    /// Always listed, in order: known, built-in, named folders.
    fixed: Vec<Arc<Base>>,
    /// Folders of the operator, by id.
    found: RwLock<BTreeMap<String, Arc<Base>>>,
}

impl Bases {
    /// From the configuration.
    pub fn new(config: &Config) -> Bases {
        let models_dir = config.data_dir.join("models");
        let known = KNOWN.iter().enumerate().map(|(index, known)| {
            let dirs = vec![models_dir.join(slug(known.name)), models_dir.join(known.name)];
            Arc::new(Base::new(known.name, known.description, dirs, Some(index)))
        });
        let mut fixed: Vec<Arc<Base>> = known.collect();
        for BaseFolder { name, description, dir } in config.builtin.iter().chain(&config.model_dirs) {
            if let Some(at) = fixed.iter().position(|base| base.id == slug(name)) {
                // A folder given for a known name is where its weights are.
                let known = fixed[at].known;
                fixed[at] = Arc::new(Base::new(&fixed[at].name.clone(), description, vec![dir.clone()], known));
            } else {
                fixed.push(Arc::new(Base::new(name, description, vec![dir.clone()], None)));
            }
        }
        let default = config.default_model.clone().or_else(|| config.builtin.as_ref().map(|builtin| builtin.name.clone()));
        let packed_dir = config.data_dir.join("packed");
        Bases { models_dir, packed_dir, packed_min_bytes: config.packed_min_bytes, default, fixed, found: RwLock::new(BTreeMap::new()) }
    }

    /// Every base, in the list's order.
    pub fn all(&self) -> Vec<Arc<Base>> {
        self.look();
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        self.fixed.iter().chain(found.values()).cloned().collect()
    }

    /// A base by name or id.
    pub fn get(&self, name: &str) -> Option<Arc<Base>> {
        let fits = |base: &&Arc<Base>| base.id == name || base.name == name;
        if let Some(base) = self.fixed.iter().find(fits) {
            return Some(Arc::clone(base));
        }
        self.all().iter().find(fits).cloned()
    }

    /// Where the packed weights of `base`, a checkpoint in `dir`, may lie.
    pub fn packed_files(&self, base: &Base, dir: &Path, precision: Precision) -> PackedFiles {
        let files = PackedFiles::new(dir, &self.packed_dir, &base.id, precision);
        PackedFiles { min_bytes: self.packed_min_bytes, ..files }
    }

    /// Names and ids that no private model may have.
    pub fn reserved(&self) -> Vec<String> {
        self.all().iter().flat_map(|base| [base.name.clone(), base.id.clone()]).collect()
    }

    /// The one selected at start-up where the account chose none.
    pub fn default_id(&self) -> Option<String> {
        let chosen = self.default.as_deref().and_then(|name| self.get(name));
        chosen.or_else(|| self.all().into_iter().find(|base| base.dir().is_some())).map(|base| base.id.clone())
    }

    /// Finds folders that the operator put under `models/`.
    fn look(&self) {
        let Ok(entries) = std::fs::read_dir(&self.models_dir) else { return };
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        found.retain(|_, base| base.dir().is_some());
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let id = slug(&name);
            let listed = found.contains_key(&id) || self.fixed.iter().any(|base| base.id == id);
            if listed || name.starts_with('.') || !is_checkpoint(&entry.path()) {
                continue;
            }
            found.insert(id, Arc::new(Base::new(&name, "added by the operator", vec![entry.path()], None)));
        }
    }
}
