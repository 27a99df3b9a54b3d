//! LoRA adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors`, so that what is trained
//! here loads elsewhere and the reverse. Does not know versions nor optimizer state.
//!
//! PEFT lets every module have its own rank and scale; here an adapter has one of each. So factors are padded with zeros to the highest
//! rank, and what a module's scale differs from the adapter's is multiplied into its B.

mod config;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::json;

use crate::architecture::Architecture;
use crate::error::{FormatError, quoted};
use crate::modules::Module;
use crate::safetensors::{Dtype, SafeTensors, TensorData, TensorView, f32_bytes, write};

use config::Config;

/// File name of the configuration.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// File name of the weights.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Highest rank: beyond it an adapter is no smaller than the weights of a small model.
pub const MAX_RANK: u64 = 1024;
/// Highest alpha; the scale alpha / rank of published adapters is 0.5 to 4.
const MAX_ALPHA: f64 = 1e6;

/// The two factors of one module: y += (alpha / rank) · B A x.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraPair {
    /// A, [R, K] row-major.
    pub a: Vec<f32>,
    /// B, [N, R] row-major.
    pub b: Vec<f32>,
}

/// A LoRA adapter with one rank and one scale. A module that is adapted in any layer has factors in every layer, zeros where it is not.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// R.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f32,
    /// Factors by layer and module.
    pub tensors: BTreeMap<(usize, Module), LoraPair>,
}

impl Adapter {
    /// Parses the contents of the two files and checks them against the base model. Weights become f32.
    pub fn from_bytes(config: &[u8], weights: &[u8], base: &Architecture) -> Result<Self, FormatError> {
        let config = Config::parse(config, base)?;
        let file = SafeTensors::from_bytes(WEIGHTS_FILE, weights)?;
        let mut halves = BTreeMap::new();
        for (name, tensor) in file.iter() {
            let bad = |problem: String| FormatError::invalid(WEIGHTS_FILE, &format!("tensor {}", quoted(name)), problem);
            let (layer, module, half) = parse_name(name)
                .filter(|(layer, ..)| *layer < base.layers)
                .ok_or_else(|| bad(format!("is not a LoRA factor of one of {} layers", base.layers)))?;
            if config.listed.as_ref().is_some_and(|listed| !listed.contains(&(layer, module))) {
                return Err(bad(format!("belongs to a module that target_modules of {CONFIG_FILE} does not list")));
            }
            let part = config.part(layer, module);
            let shape = match half {
                Half::A => [part.rank, module.inputs(base)],
                Half::B => [module.outputs(base), part.rank],
            };
            halves.insert((layer, module, half), values(&tensor, shape).map_err(bad)?);
        }
        let found: BTreeSet<(usize, Module)> = halves.keys().map(|(layer, module, _)| (*layer, *module)).collect();
        let adapted = config.listed.clone().unwrap_or(found);
        if adapted.is_empty() {
            return Err(FormatError::invalid(WEIGHTS_FILE, "file", "holds no LoRA factor"));
        }
        let rank = adapted.iter().map(|&(layer, module)| config.part(layer, module).rank).max().unwrap_or(config.rank);
        let (alpha, scale) = config.scale_at(rank)?;
        let modules: BTreeSet<Module> = adapted.iter().map(|(_, module)| *module).collect();
        let mut tensors = BTreeMap::new();
        for (layer, module) in (0..base.layers).flat_map(|layer| modules.iter().map(move |module| (layer, *module))) {
            if !adapted.contains(&(layer, module)) {
                let (a, b) = (vec![0.0; rank * module.inputs(base)], vec![0.0; module.outputs(base) * rank]);
                tensors.insert((layer, module), LoraPair { a, b });
                continue;
            }
            let name = |half: Half| format!("tensor {}", quoted(&tensor_name(layer, module, half)));
            let mut take = |half: Half| {
                halves.remove(&(layer, module, half)).ok_or_else(|| FormatError::invalid(WEIGHTS_FILE, &name(half), "is missing"))
            };
            let mut pair = LoraPair { a: take(Half::A)?, b: take(Half::B)? };
            let part = config.part(layer, module);
            widen(&mut pair, part.rank, rank);
            let folded = fold(&mut pair.b, part.scale / scale);
            folded.map_err(|problem| FormatError::invalid(WEIGHTS_FILE, &name(Half::B), problem))?;
            tensors.insert((layer, module), pair);
        }
        Ok(Self { rank, alpha, tensors })
    }

    /// Content of `adapter_model.safetensors`, f32. The same adapter gives the same bytes. Fails with `InvalidInput`
    /// when a factor's length is no multiple of the rank.
    pub fn weights_bytes(&self) -> io::Result<Vec<u8>> {
        let mut parts = Vec::new();
        for (&(layer, module), pair) in &self.tensors {
            for (half, data) in [(Half::A, &pair.a), (Half::B, &pair.b)] {
                let other = data.len().checked_div(self.rank).unwrap_or(0);
                let shape = if half == Half::A { vec![self.rank, other] } else { vec![other, self.rank] };
                parts.push((tensor_name(layer, module, half), shape, f32_bytes(data)));
            }
        }
        let tensors: Vec<TensorData<'_>> = parts
            .iter()
            .map(|(name, shape, bytes)| TensorData { name: name.clone(), dtype: Dtype::F32, shape: shape.clone(), bytes })
            .collect();
        let mut out = Vec::new();
        // PEFT's reader wants to know that the tensors came from PyTorch's layout.
        write(&mut out, &tensors, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))?;
        Ok(out)
    }

    /// Content of `adapter_config.json`; `base_model` is the name that a loader elsewhere should fetch.
    pub fn config_bytes(&self, base_model: &str) -> Vec<u8> {
        let modules: BTreeSet<&str> = self.tensors.keys().map(|(_, module)| module.name()).collect();
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": 0.0,
            "target_modules": modules,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "modules_to_save": null,
            "layers_to_transform": null,
            "layers_pattern": null,
            "rank_pattern": {},
            "alpha_pattern": {},
            "use_rslora": false,
            "use_dora": false,
        });
        format!("{config:#}\n").into_bytes()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Half {
    A,
    B,
}

fn tensor_name(layer: usize, module: Module, half: Half) -> String {
    let half = if half == Half::A { "lora_A" } else { "lora_B" };
    format!("base_model.model.model.layers.{layer}.{}.{half}.weight", module.path())
}

/// The inverse of [`tensor_name`], for exactly the names that it makes.
fn parse_name(name: &str) -> Option<(usize, Module, Half)> {
    let rest = name.strip_prefix("base_model.model.model.layers.")?;
    let (layer, rest) = rest.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    let module = Module::ALL.into_iter().find(|m| rest.starts_with(m.path()))?;
    let half = if rest.ends_with(".lora_A.weight") { Half::A } else { Half::B };
    (tensor_name(layer, module, half) == name).then_some((layer, module, half))
}

fn values(tensor: &TensorView<'_>, shape: [usize; 2]) -> Result<Vec<f32>, String> {
    if tensor.shape != shape {
        return Err(format!("has shape {:?}, rank and base model imply {shape:?}", tensor.shape));
    }
    let values = tensor.to_f32().ok_or_else(|| format!("is {}; supported: F32, F16, BF16", tensor.dtype.name()))?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err("holds a value that is not finite".to_owned());
    }
    Ok(values)
}

/// From rank `from` to the higher rank `to`: zero rows of A, zero columns of B.
fn widen(pair: &mut LoraPair, from: usize, to: usize) {
    if from == to {
        return;
    }
    let inputs = pair.a.len() / from;
    pair.a.resize(to * inputs, 0.0);
    let padding = vec![0.0; to - from];
    pair.b = pair.b.chunks_exact(from).flat_map(|row| row.iter().chain(&padding).copied()).collect();
}

/// B times `factor`; 1 changes no bit.
fn fold(b: &mut [f32], factor: f64) -> Result<(), String> {
    if factor == 1.0 {
        return Ok(());
    }
    for value in &mut *b {
        *value = (f64::from(*value) * factor) as f32;
    }
    let fits = b.iter().all(|value| value.is_finite());
    if fits { Ok(()) } else { Err(format!("times {factor:e}, its scale beside the others', is beyond f32")) }
}
