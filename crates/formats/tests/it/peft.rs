//! Adapter files: what is written is read, what PEFT wrote is read, and contradictions are named.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tiger_formats::peft::LoraPair;
use tiger_formats::safetensors::{TensorData, f32_bytes, write};
use tiger_formats::{Adapter, Architecture, Dtype, FormatError, Module, SafeTensors};

use crate::support::{architecture, llama_config, refuses, with, without};

fn base() -> Architecture {
    architecture(&llama_config())
}

fn adapter(modules: &[Module], rank: usize) -> Adapter {
    let base = base();
    let ramp = |n: usize, seed: usize| (0..n).map(|i| (i * 7 + seed) as f32 * 0.25 - 3.0).collect::<Vec<f32>>();
    let mut tensors = BTreeMap::new();
    for layer in 0..base.layers {
        for &module in modules {
            let seed = layer * 10 + module as usize;
            let (a, b) = (ramp(rank * module.inputs(&base), seed), ramp(module.outputs(&base) * rank, seed + 5));
            tensors.insert((layer, module), LoraPair { a, b });
        }
    }
    Adapter { rank, alpha: 6.0, tensors }
}

#[test]
fn what_is_written_is_read() {
    for modules in [&Module::ALL[..], &[Module::Q, Module::Down]] {
        let adapter = adapter(modules, 3);
        let (config, weights) = (adapter.config_bytes("owner/base"), adapter.weights_bytes().unwrap());
        assert_eq!(Adapter::from_bytes(&config, &weights, &base()).unwrap(), adapter);
        assert_eq!(adapter.weights_bytes().unwrap(), weights);
        let file = SafeTensors::from_bytes("w", weights).unwrap();
        let a = file.tensor("base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight").unwrap();
        let b = file.tensor("base_model.model.model.layers.1.mlp.down_proj.lora_B.weight").unwrap();
        assert_eq!((a.shape, b.shape), (&[3, 8][..], &[8, 3][..]));
        assert_eq!(a.to_f32().unwrap(), adapter.tensors[&(1, Module::Q)].a);
    }
    let broken = Adapter { rank: 5, ..adapter(&Module::ALL, 3) };
    assert!(broken.weights_bytes().is_err());
    assert!(Adapter { rank: 0, ..broken }.weights_bytes().is_err());
}

/// `golden/templates/make_adapter.py` lets PEFT write an adapter for [`base`]'s shape and prints some of its values.
#[test]
fn an_adapter_of_peft_is_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/templates/adapter");
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let adapter = Adapter::from_bytes(&read("adapter_config.json"), &read("adapter_model.safetensors"), &base()).unwrap();
    let facts: Value = serde_json::from_slice(&read("facts.json")).unwrap();
    assert_eq!((adapter.rank, adapter.alpha), (4, 8.0));
    assert_eq!(adapter.tensors.len(), 14);
    for (&(layer, module), pair) in &adapter.tensors {
        let sum = |v: &[f32]| v.iter().enumerate().map(|(i, x)| f64::from(*x) * (i + 1) as f64).sum::<f64>();
        let fact = &facts[format!("{layer}.{}", module.path())];
        for (ours, theirs) in [(sum(&pair.a), &fact["a"]), (sum(&pair.b), &fact["b"])] {
            assert!((ours - theirs.as_f64().unwrap()).abs() < 1e-9, "{layer} {module:?}");
        }
    }
}

#[test]
fn patterns_take_what_the_tensors_have() {
    let adapter = adapter(&[Module::Q, Module::V], 2);
    let config: Value = serde_json::from_slice(&adapter.config_bytes("b")).unwrap();
    let weights = adapter.weights_bytes().unwrap();
    let read = |changes: Value| Adapter::from_bytes(with(&config, changes).to_string().as_bytes(), &weights, &base());
    for targets in [json!("all-linear"), json!(".*proj"), Value::Null, json!(["self_attn.v_proj", "q_proj"])] {
        assert_eq!(read(json!({"target_modules": targets})).unwrap(), adapter);
    }
    refuses(read(json!({"target_modules": ["q_proj"]})), &["v_proj", "target_modules"]);
    refuses(read(json!({"target_modules": ["q_proj", "k_proj", "v_proj"]})), &["k_proj.lora_A", "is missing"]);
}

#[test]
fn configurations_that_mean_something_else_are_refused() {
    let adapter = adapter(&Module::ALL, 2);
    let config: Value = serde_json::from_slice(&adapter.config_bytes("b")).unwrap();
    let weights = adapter.weights_bytes().unwrap();
    for (changes, part) in [
        (json!({"peft_type": "IA3"}), "IA3"),
        (json!({"peft_type": null}), "peft_type"),
        (json!({"bias": "all"}), "bias"),
        (json!({"use_dora": true}), "use_dora"),
        (json!({"use_rslora": true}), "use_rslora"),
        (json!({"fan_in_fan_out": true}), "fan_in_fan_out"),
        (json!({"rank_pattern": {"q_proj": 4}}), "rank_pattern"),
        (json!({"modules_to_save": ["lm_head"]}), "modules_to_save"),
        (json!({"layers_to_transform": 1}), "layers_to_transform"),
        (json!({"target_modules": ["lm_head"]}), "lm_head"),
        (json!({"target_modules": [5]}), "target_modules"),
        (json!({"init_lora_weights": "pissa"}), "pissa"),
        (json!({"alora_invocation_tokens": [1]}), "alora_invocation_tokens"),
        (json!({"r": 0}), "r: "),
        (json!({"r": 3}), "imply [3, 12]"),
        (json!({"r": 5000}), "5000"),
        (json!({"lora_alpha": "x"}), "lora_alpha"),
        (json!({"lora_alpha": null}), "lora_alpha"),
    ] {
        refuses(Adapter::from_bytes(with(&config, changes).to_string().as_bytes(), &weights, &base()), &["adapter_", part]);
    }
    refuses(Adapter::from_bytes(without(&config, "r").to_string().as_bytes(), &weights, &base()), &["r: is missing"]);
}

#[test]
fn wrong_tensors_are_named() {
    let good = adapter(&Module::ALL, 2);
    let config = good.config_bytes("b");
    let prefix = "base_model.model.model.layers";
    let change = |name: &str, new_name: &str, value: Option<f32>| -> Result<Adapter, FormatError> {
        let bytes = good.weights_bytes().unwrap();
        let file = SafeTensors::from_bytes("w", bytes.as_slice()).unwrap();
        let parts: Vec<(String, Vec<usize>, Vec<u8>)> = file
            .iter()
            .map(|(n, t)| {
                let mut values = t.to_f32().unwrap();
                if n == name {
                    values[0] = value.unwrap_or(values[0]);
                }
                let n = if n == name { new_name } else { n };
                (n.to_owned(), t.shape.to_vec(), f32_bytes(&values))
            })
            .filter(|(n, ..)| !n.is_empty())
            .collect();
        let list: Vec<TensorData<'_>> =
            parts.iter().map(|(n, s, b)| TensorData { name: n.clone(), dtype: Dtype::F32, shape: s.clone(), bytes: b }).collect();
        let mut out = Vec::new();
        write(&mut out, &list, &BTreeMap::new()).unwrap();
        Adapter::from_bytes(&config, &out, &base())
    };
    let a = format!("{prefix}.0.self_attn.q_proj.lora_A.weight");
    assert_eq!(change("", "", None).unwrap(), good);
    refuses(change(&a, "", None), &[&a, "is missing"]);
    refuses(change(&a, &a, Some(f32::NAN)), &[&a, "not finite"]);
    refuses(change(&a, &a, Some(f32::INFINITY)), &[&a, "not finite"]);
    for wrong in [
        format!("{prefix}.2.self_attn.q_proj.lora_A.weight"),
        format!("{prefix}.00.self_attn.q_proj.lora_A.weight"),
        format!("{prefix}.+0.self_attn.q_proj.lora_A.weight"),
        format!("{prefix}.0.self_attn.q_proj.lora_A.default.weight"),
        format!("{prefix}.0.self_attn.qkv_proj.lora_A.weight"),
        "base_model.model.lm_head.lora_A.weight".to_owned(),
    ] {
        refuses(change(&a, &wrong, None), &[&wrong, "not a LoRA factor"]);
    }
    let b = format!("{prefix}.0.self_attn.q_proj.lora_B.weight");
    refuses(change(&b, &format!("{prefix}.1.self_attn.q_proj.lora_C.weight"), None), &["lora_C"]);
    refuses(Adapter::from_bytes(&config, b"", &base()), &["adapter_model.safetensors"]);
    let mut empty = Vec::new();
    write(&mut empty, &[], &BTreeMap::new()).unwrap();
    refuses(Adapter::from_bytes(&config, &empty, &base()), &["is missing"]);
    let open: Value = with(&serde_json::from_slice(&config).unwrap(), json!({"target_modules": "all-linear"}));
    refuses(Adapter::from_bytes(open.to_string().as_bytes(), &empty, &base()), &["no LoRA factor"]);
}
