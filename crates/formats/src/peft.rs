//! LoRA adapters as PEFT stores them: `adapter_config.json` and `adapter_model.safetensors`, so that what is trained
//! here loads elsewhere and the reverse. Does not know versions nor optimizer state.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::{Value, json};

use crate::architecture::Architecture;
use crate::error::{FormatError, quoted};
use crate::fields::{Fields, parse_object};
use crate::modules::Module;
use crate::safetensors::{Dtype, SafeTensors, TensorData, TensorView, f32_bytes, write};

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

/// A LoRA adapter. Every adapted module is adapted in every layer, with one rank.
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
        let (rank, alpha, declared) = parse_config(config)?;
        let file = SafeTensors::from_bytes(WEIGHTS_FILE, weights)?;
        let mut halves = BTreeMap::new();
        for (name, tensor) in file.iter() {
            let bad = |problem: String| FormatError::invalid(WEIGHTS_FILE, &format!("tensor {}", quoted(name)), problem);
            let (layer, module, half) = parse_name(name)
                .filter(|(layer, ..)| *layer < base.layers)
                .ok_or_else(|| bad(format!("is not a LoRA factor of one of {} layers", base.layers)))?;
            if declared.as_ref().is_some_and(|d| !d.contains(&module)) {
                return Err(bad(format!("belongs to a module that target_modules of {CONFIG_FILE} does not list")));
            }
            let shape = match half {
                Half::A => [rank, module.inputs(base)],
                Half::B => [module.outputs(base), rank],
            };
            halves.insert((layer, module, half), values(&tensor, shape).map_err(bad)?);
        }
        let found: BTreeSet<Module> = halves.keys().map(|(_, module, _)| *module).collect();
        let modules = declared.unwrap_or(found);
        if modules.is_empty() {
            return Err(FormatError::invalid(WEIGHTS_FILE, "file", "holds no LoRA factor"));
        }
        let mut tensors = BTreeMap::new();
        for layer in 0..base.layers {
            for &module in &modules {
                let mut take = |half: Half| {
                    halves.remove(&(layer, module, half)).ok_or_else(|| {
                        let field = format!("tensor {}", quoted(&tensor_name(layer, module, half)));
                        FormatError::invalid(WEIGHTS_FILE, &field, "is missing")
                    })
                };
                tensors.insert((layer, module), LoraPair { a: take(Half::A)?, b: take(Half::B)? });
            }
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

/// Rank, alpha and, when listed by name, the adapted modules.
fn parse_config(bytes: &[u8]) -> Result<(usize, f32, Option<BTreeSet<Module>>), FormatError> {
    let map = parse_object(CONFIG_FILE, bytes)?;
    let fields = Fields::new(CONFIG_FILE, &map);
    match fields.text("peft_type")? {
        Some("LORA") => {}
        other => return Err(fields.unsupported("peft_type", quoted(other.unwrap_or("null")), "LORA")),
    }
    let bias = fields.text("bias")?.unwrap_or("none");
    if bias != "none" {
        return Err(fields.unsupported("bias", quoted(bias), "none"));
    }
    for field in ["use_dora", "use_rslora", "use_qalora", "fan_in_fan_out", "lora_bias"] {
        if fields.flag(field)? == Some(true) {
            return Err(fields.unsupported(field, "true", "false"));
        }
    }
    // Each of these would adapt something else than all layers' linear maps with one rank and scale.
    for field in [
        "rank_pattern",
        "alpha_pattern",
        "modules_to_save",
        "layers_to_transform",
        "exclude_modules",
        "layer_replication",
        "target_parameters",
        "trainable_token_indices",
        "alora_invocation_tokens",
        "arrow_config",
        "kasa_config",
        "velora_config",
        "monteclora_config",
        "use_bdlora",
    ] {
        let empty = match fields.get(field) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Object(o)) => o.is_empty(),
            Some(Value::Array(a)) => a.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(fields.unsupported(field, "a value", "null or empty"));
        }
    }
    // Other initialisations also change the base model's weights, without which the factors mean nothing.
    if !matches!(fields.get("init_lora_weights"), None | Some(Value::Bool(_))) {
        let found = fields.text("init_lora_weights")?.unwrap_or_default();
        if found != "gaussian" {
            return Err(fields.unsupported("init_lora_weights", quoted(found), "true, false, gaussian"));
        }
    }
    let rank = fields.required_integer("r", 1..=MAX_RANK)?;
    let alpha = fields.required_number("lora_alpha", 0.0..=MAX_ALPHA)? as f32;
    let modules = match fields.get("target_modules") {
        Some(Value::Array(list)) => Some(list.iter().map(|v| target(&fields, v)).collect::<Result<_, _>>()?),
        // A pattern or "all-linear": the tensors say what it matched.
        _ => fields.text("target_modules")?.and(None),
    };
    Ok((rank, alpha, modules))
}

fn target(fields: &Fields<'_>, value: &Value) -> Result<Module, FormatError> {
    let module = value.as_str().and_then(|s| Module::from_name(s.rsplit('.').next().unwrap_or(s)));
    module.ok_or_else(|| {
        let supported = Module::ALL.map(Module::name).join(", ");
        fields.unsupported("target_modules", quoted(&value.to_string()), &supported)
    })
}
