//! A checkpoint folder: configuration and weights, checked against each other before anyone computes with them.
//! Does not know how weights are packed nor where they go.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::architecture::Architecture;
use crate::config::ModelConfig;
use crate::digest::hex;
use crate::error::{FormatError, quoted};
use crate::fields::{UniqueMap, file_label, read_limited};
use crate::gguf::{Gguf, GgufWeights};
use crate::map::AnyBytes;
use crate::modules::{HEAD, required_tensors};
use crate::safetensors::{Dtype, SafeTensors, TensorView};

/// Longest index, bytes; that of a model of 1,000 layers has about 2 MB.
pub const MAX_INDEX_BYTES: u64 = 16 << 20;
/// Most shards of one checkpoint: each is an open mapping.
pub const MAX_SHARDS: usize = 1024;

/// Bytes of each tensor that go into the fingerprint: a page, so that looking costs no more than what the kernel reads anyway.
const SAMPLE_BYTES: usize = 4096;

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// The weights of a folder that holds no safetensors.
pub const GGUF_FILE: &str = "model.gguf";

/// An open checkpoint. Every tensor that its architecture needs is present with its exact shape and a float type,
/// and nothing else is. The weights are mapped, not copied.
pub struct Checkpoint {
    config: ModelConfig,
    weights: Weights,
    /// Name, length and time of change of each file; empty for one that is no file.
    stamps: Vec<String>,
}

enum Weights {
    Shards(Shards),
    Gguf(GgufWeights),
}

struct Shards {
    files: Vec<SafeTensors<AnyBytes>>,
    /// Names of the files.
    labels: Vec<String>,
    /// Tensor name → index of its file.
    places: HashMap<String, usize>,
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("config", &self.config).field("files", &self.stamps.len()).finish_non_exhaustive()
    }
}

impl Checkpoint {
    /// Opens `config.json` and `model.safetensors`, or the shards that `model.safetensors.index.json` names, or `model.gguf`.
    pub fn open(dir: &Path) -> Result<Self, FormatError> {
        let config = ModelConfig::open(&dir.join(CONFIG_FILE))?;
        let single = dir.join(WEIGHTS_FILE);
        let (index, gguf) = (dir.join(INDEX_FILE), dir.join(GGUF_FILE));
        if !single.exists() && !index.exists() && gguf.exists() {
            let mut checkpoint = Self::from_gguf(config, Gguf::open(&gguf)?.boxed())?;
            checkpoint.stamps = vec![stamp(&gguf)?];
            return Ok(checkpoint);
        }
        if single.exists() || !index.exists() {
            let mut checkpoint = Self::assemble(config, vec![(WEIGHTS_FILE.to_owned(), map(&single)?)], None)?;
            checkpoint.stamps = vec![stamp(&single)?];
            return Ok(checkpoint);
        }
        let weight_map = parse_index(&read_limited(&index, MAX_INDEX_BYTES)?)?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_SHARDS {
            return Err(FormatError::invalid(INDEX_FILE, "weight_map", format!("names more than {MAX_SHARDS} files")));
        }
        let stamps = names.iter().map(|name| stamp(&dir.join(name))).collect::<Result<_, FormatError>>()?;
        let shards = names.into_iter().map(|name| Ok((name.clone(), map(&dir.join(name))?)));
        let shards = shards.collect::<Result<_, FormatError>>()?;
        let mut checkpoint = Self::assemble(config, shards, Some(&weight_map))?;
        checkpoint.stamps = stamps;
        Ok(checkpoint)
    }

    /// A checkpoint from the contents of `config.json` and `model.safetensors`, e.g. those built into a binary.
    pub fn from_bytes(config: &[u8], weights: impl AsRef<[u8]> + Send + Sync + 'static) -> Result<Self, FormatError> {
        let config = ModelConfig::parse(CONFIG_FILE, config)?;
        let shard = SafeTensors::from_bytes(WEIGHTS_FILE, weights)?.boxed();
        Self::assemble(config, vec![(WEIGHTS_FILE.to_owned(), shard)], None)
    }

    /// The decoder's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.config.architecture
    }

    /// The file of a GGUF base.
    pub(crate) fn gguf(&self) -> Option<&Gguf<AnyBytes>> {
        match &self.weights {
            Weights::Shards(_) => None,
            Weights::Gguf(weights) => Some(weights.file()),
        }
    }

    /// Everything that `config.json` says.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// A tensor by name (see [`crate::modules`]). Every name of [`required_tensors`] is present; another is an error.
    /// A quantised tensor of a GGUF file is made now, as F32.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, FormatError> {
        let found = match &self.weights {
            Weights::Shards(shards) => shards.tensor(name),
            Weights::Gguf(weights) => weights.tensor(name),
        };
        found.ok_or_else(|| self.missing(name))
    }

    /// Type and shape of a tensor as [`Checkpoint::tensor`] gives it, without making it.
    pub fn head(&self, name: &str) -> Result<(Dtype, &[usize]), FormatError> {
        let found = match &self.weights {
            Weights::Shards(shards) => shards.tensor(name).map(|tensor| (tensor.dtype, tensor.shape)),
            Weights::Gguf(weights) => weights.head(name),
        };
        found.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> FormatError {
        FormatError::invalid(self.label(name), &format!("tensor {}", quoted(name)), "is missing")
    }

    /// Bytes of all tensors that the architecture needs, as they are stored.
    pub fn total_bytes(&self) -> u64 {
        let bytes = |name: &str| match &self.weights {
            Weights::Shards(shards) => shards.tensor(name).map(|tensor| tensor.bytes.len()),
            Weights::Gguf(weights) => weights.stored_bytes(name),
        };
        required_tensors(self.architecture()).iter().filter_map(|(name, _)| bytes(name)).map(|bytes| bytes as u64).sum()
    }

    /// What tells these weights from all others, 64 hexadecimal digits: a hash of each file's name, length, time of change and header, and of a
    /// page from the middle of every tensor. Hashing everything would take as long as packing it. Length and time alone would not do, because
    /// archives and image builders set all times alike, and a fine-tuned checkpoint has the lengths and headers of its parent; but its
    /// tensors differ throughout. `None` for a checkpoint that is not in files.
    pub fn fingerprint(&self) -> Option<String> {
        if self.stamps.is_empty() {
            return None;
        }
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        let page = |bytes: &[u8]| bytes[bytes.len().saturating_sub(SAMPLE_BYTES) / 2..][..SAMPLE_BYTES.min(bytes.len())].to_vec();
        match &self.weights {
            Weights::Shards(shards) => {
                for (stamp, shard) in self.stamps.iter().zip(&shards.files) {
                    add(stamp.as_bytes());
                    add(shard.header());
                    shard.iter().for_each(|(_, tensor)| add(&page(&tensor.bytes)));
                }
            }
            Weights::Gguf(weights) => {
                self.stamps.iter().for_each(|stamp| add(stamp.as_bytes()));
                add(weights.header());
                weights.all_bytes().for_each(|bytes| add(&page(bytes)));
            }
        }
        Some(hex(&hasher.finalize()))
    }

    fn assemble(
        mut config: ModelConfig,
        shards: Vec<(String, SafeTensors<AnyBytes>)>,
        weight_map: Option<&BTreeMap<String, String>>,
    ) -> Result<Self, FormatError> {
        let mut places = HashMap::new();
        match weight_map {
            None => {
                for (i, (_, shard)) in shards.iter().enumerate() {
                    places.extend(shard.iter().map(|(name, _)| (name.to_owned(), i)));
                }
            }
            Some(weight_map) => {
                let numbers: HashMap<&str, usize> = shards.iter().enumerate().map(|(i, (name, _))| (name.as_str(), i)).collect();
                for (tensor, file) in weight_map {
                    let i = numbers[file.as_str()];
                    if shards[i].1.tensor(tensor).is_none() {
                        let problem = format!("is missing, though {INDEX_FILE} places it here");
                        return Err(FormatError::invalid(file, &format!("tensor {}", quoted(tensor)), problem));
                    }
                    places.insert(tensor.clone(), i);
                }
            }
        }
        // Older files say nothing of tying; then the head's absence says it.
        config.architecture.tied = config.declared_tied.unwrap_or(!places.contains_key(HEAD));
        let (labels, files): (Vec<_>, Vec<_>) = shards.into_iter().unzip();
        Self::checked(config, Weights::Shards(Shards { files, labels, places }))
    }

    fn from_gguf(mut config: ModelConfig, file: Gguf<AnyBytes>) -> Result<Self, FormatError> {
        let weights = GgufWeights::new(file, &config.architecture)?;
        config.architecture.tied = config.declared_tied.unwrap_or(weights.head(HEAD).is_none());
        Self::checked(config, Weights::Gguf(weights))
    }

    fn checked(config: ModelConfig, weights: Weights) -> Result<Self, FormatError> {
        let checkpoint = Self { config, weights, stamps: Vec::new() };
        checkpoint.check()?;
        Ok(checkpoint)
    }

    /// The file that a tensor is in or should be in.
    fn label(&self, name: &str) -> &str {
        match &self.weights {
            Weights::Gguf(_) => GGUF_FILE,
            Weights::Shards(shards) => match shards.places.get(name) {
                Some(i) => &shards.labels[*i],
                None if shards.labels.len() == 1 => &shards.labels[0],
                None => INDEX_FILE,
            },
        }
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match &self.weights {
            Weights::Shards(shards) => Box::new(shards.places.keys().map(String::as_str)),
            Weights::Gguf(weights) => Box::new(weights.names()),
        }
    }

    /// Every needed tensor is here with its shape, and no other tensor is.
    fn check(&self) -> Result<(), FormatError> {
        let required = required_tensors(self.architecture());
        for (name, shape) in &required {
            let field = format!("tensor {}", quoted(name));
            let Ok((dtype, found)) = self.head(name) else {
                let problem = format!("is missing; {CONFIG_FILE} implies it with shape {shape:?}");
                return Err(FormatError::invalid(self.label(name), &field, problem));
            };
            if found != shape {
                let problem = format!("has shape {found:?}, {CONFIG_FILE} implies {shape:?}");
                return Err(FormatError::invalid(self.label(name), &field, problem));
            }
            if !dtype.is_weight() {
                return Err(FormatError::unsupported(self.label(name), &field, dtype.name(), "F32, F16, BF16"));
            }
        }
        let known: std::collections::HashSet<&str> = required.iter().map(|(name, _)| name.as_str()).collect();
        let stray = self.names().filter(|n| !known.contains(n) && !is_redundant(n)).min();
        if let Some(name) = stray {
            let problem = format!("has no place in the architecture of {CONFIG_FILE}; ignoring it would change the model");
            return Err(FormatError::invalid(self.label(name), &format!("tensor {}", quoted(name)), problem));
        }
        Ok(())
    }
}

impl Shards {
    fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.files[*self.places.get(name)?].tensor(name)
    }
}

/// Tensors that old writers left and that the configuration already determines: a copy of the tied head, and
/// rotary tables.
fn is_redundant(name: &str) -> bool {
    name == HEAD || name.ends_with(".rotary_emb.inv_freq")
}

/// Name, length and time of change of a shard.
fn stamp(path: &Path) -> Result<String, FormatError> {
    let label = file_label(path);
    let metadata = std::fs::metadata(path).map_err(|e| FormatError::io(&label, e))?;
    // Some file systems have no times; the sampled tensors remain.
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    Ok(format!("{label} {} {}", metadata.len(), changed.as_nanos()))
}

fn map(path: &Path) -> Result<SafeTensors<AnyBytes>, FormatError> {
    SafeTensors::open(path).map(SafeTensors::boxed)
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// Tensor name → file name, from the content of an index. File names must be plain, so that no index reaches out of
/// its folder.
pub(crate) fn parse_index(bytes: &[u8]) -> Result<BTreeMap<String, String>, FormatError> {
    let index: Index = serde_json::from_slice(bytes).map_err(|e| FormatError::invalid(INDEX_FILE, "file", format!("{e}")))?;
    let map = index.weight_map.0;
    for file in map.values() {
        let plain = file.len() <= 255
            && file.ends_with(".safetensors")
            && !file.starts_with('.')
            && file.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain {
            let supported = "plain names of .safetensors files in the same folder";
            return Err(FormatError::unsupported(INDEX_FILE, "weight_map", quoted(file), supported));
        }
    }
    Ok(map)
}
