//! A model's packed weights in a file, so that they are computed from the checkpoint once and later only read.
//! Does not know when to write, nor whom to tell.
//!
//! Only int8 and int4: their search for scales is what takes time, and their file is a half or a quarter of the checkpoint. Packing bf16 or
//! f32 is a copy as fast as the disk, for which the checkpoint would lie there twice. Norms and biases always come from the checkpoint.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tiger_formats::checkpoint::Checkpoint;
use tiger_formats::packed::{Block, Contents, PackedFile, write};
use tiger_formats::{Architecture, Module};
use tiger_kernels::Cpu;
use tiger_kernels::ops::linear::{Precision, Weight};

use crate::weights::{Model, ModelError, embedding_precision, head_precision};

/// Smallest packed model that is worth a file, bytes: a smaller one is packed in a tenth of a second.
pub const MIN_PACKED_BYTES: u64 = 64 << 20;

/// Where a model's packed weights may lie.
#[derive(Debug, Clone)]
pub struct PackedFiles {
    /// Best first: the first that holds the right weights is read, the first that can be written is written.
    pub paths: Vec<PathBuf>,
    /// Models with fewer bytes of packed weights have no file.
    pub min_bytes: u64,
}

/// A model, and what is to do about its file.
#[derive(Debug)]
pub struct Loaded {
    /// The model.
    pub model: Model,
    /// What was wrong with each file that was there and could not be used.
    pub problems: Vec<String>,
    /// The checkpoint's fingerprint, if the model was packed from it and a file would save that the next time: see [`PackedFiles::save`].
    pub unsaved: Option<String>,
}

impl PackedFiles {
    /// `tiger-int8.packed` in the checkpoint's folder, or else `<id>-int8.packed` in `fallback`, a folder that is made where it is missing.
    pub fn new(checkpoint: &Path, fallback: &Path, id: &str, precision: Precision) -> PackedFiles {
        let name = format!("{precision:?}").to_ascii_lowercase();
        let paths = vec![checkpoint.join(format!("tiger-{name}.packed")), fallback.join(format!("{id}-{name}.packed"))];
        PackedFiles { paths, min_bytes: MIN_PACKED_BYTES }
    }

    /// Reads a file of packed weights where a right one lies, else packs the checkpoint. `progress` is told 0..1 as layers are done, and
    /// begins anew when a file turns out to be wrong halfway.
    pub fn load(
        &self,
        cpu: &Cpu,
        checkpoint: &Checkpoint,
        precision: Precision,
        progress: &mut dyn FnMut(f32),
    ) -> Result<Loaded, ModelError> {
        let architecture = checkpoint.architecture();
        let worth = matches!(precision, Precision::Int8 | Precision::Int4) && Model::bytes_of(architecture, precision) >= self.min_bytes;
        let fingerprint = if worth { checkpoint.fingerprint() } else { None };
        let expected = fingerprint.as_deref().and_then(|fingerprint| contents(fingerprint, slots(architecture, precision)));
        let mut problems = Vec::new();
        for path in self.paths.iter().filter(|_| expected.is_some()) {
            let opened = expected.as_ref().map_or(Ok(None), |expected| PackedFile::open(path, expected));
            let read = opened.map_err(ModelError::from).and_then(|file| match file {
                Some(file) => Model::load_from(cpu, checkpoint, precision, Some(&file), progress).map(Some),
                None => Ok(None),
            });
            match read {
                Ok(Some(model)) => return Ok(Loaded { model, problems, unsaved: None }),
                Ok(None) => {}
                Err(problem) => problems.push(format!("{}: {problem}", path.display())),
            }
        }
        let model = Model::load_from(cpu, checkpoint, precision, None, progress)?;
        Ok(Loaded { model, problems, unsaved: fingerprint })
    }

    /// Writes the packed weights of a model of the checkpoint with this fingerprint. Returns the file's path, or what was wrong with each.
    pub fn save(&self, model: &Model, fingerprint: &str) -> Result<PathBuf, String> {
        let weights = model.weights();
        let slots = weights.iter().map(|(name, weight)| (name.clone(), weight.precision(), [weight.n(), weight.k()]));
        let contents = contents(fingerprint, slots).ok_or("the model is too large for a file")?;
        let blocks: Vec<Vec<&[u8]>> = weights.iter().map(|(_, weight)| weight.packed().to_vec()).collect();
        let mut problems = Vec::new();
        for path in &self.paths {
            match write(path, &contents, &blocks) {
                Ok(()) => return Ok(path.clone()),
                Err(error) => {
                    problems.push(format!("{}: {error}", path.display()));
                    if error.kind() == ErrorKind::ResourceBusy {
                        break;
                    }
                }
            }
        }
        Err(problems.join("; "))
    }
}

/// Name, precision and [N, K] of each weight of a model.
type Slot = (String, Precision, [usize; 2]);

pub(crate) const EMBEDDING: &str = "embedding";
pub(crate) const HEAD: &str = "head";

/// Of a layer's four weights, by what is stacked in it.
pub(crate) fn layer_slot(layer: usize, modules: &[Module]) -> String {
    let names: Vec<&str> = modules.iter().map(|module| module.name()).collect();
    format!("layers.{layer}.{}", names.join("+"))
}

/// What is stacked in each of a layer's weights.
pub(crate) const STACKS: [&[Module]; 4] = [&[Module::Q, Module::K, Module::V], &[Module::O], &[Module::Gate, Module::Up], &[Module::Down]];

/// Every weight of a model, in the order of `Model::weights`.
fn slots(a: &Architecture, precision: Precision) -> impl Iterator<Item = Slot> {
    let table = if a.tied { head_precision(precision) } else { embedding_precision(precision) };
    let embedding = (EMBEDDING.to_owned(), table, [a.vocab, a.hidden]);
    let head = (!a.tied).then(|| (HEAD.to_owned(), head_precision(precision), [a.vocab, a.hidden]));
    let layers = (0..a.layers).flat_map(move |layer| {
        STACKS.map(|stack| {
            let n = stack.iter().map(|module| module.outputs(a)).sum();
            (layer_slot(layer, stack), precision, [n, stack[0].inputs(a)])
        })
    });
    std::iter::once(embedding).chain(head).chain(layers)
}

/// `None` for shapes that no memory holds.
fn contents(fingerprint: &str, slots: impl Iterator<Item = Slot>) -> Option<Contents> {
    let block = |(name, precision, shape): Slot| {
        let bytes = Weight::packed_bytes(precision, shape)? as u64;
        Some(Block { name, form: format!("{precision:?} {shape:?}"), bytes })
    };
    Some(Contents { layout: Weight::layout(), source: fingerprint.to_owned(), blocks: slots.map(block).collect::<Option<_>>()? })
}

/// One weight of a file.
pub(crate) fn read_weight(cpu: &Cpu, file: &PackedFile, slot: &str, precision: Precision, shape: [usize; 2]) -> Result<Weight, ModelError> {
    let block = file.block(slot)?;
    let weight = Weight::read(cpu, precision, shape, &|at, out| block.read(at as u64, out))?;
    block.finish()?;
    Ok(weight)
}
