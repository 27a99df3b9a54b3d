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

/// What `adapter` adds to the output of a module for the input (1, 2, 3, …), in f64.
fn added(adapter: &Adapter, layer: usize, module: Module) -> Vec<f64> {
    let (pair, rank) = (&adapter.tensors[&(layer, module)], adapter.rank);
    let rows = pair.a.chunks_exact(pair.a.len() / rank);
    let low: Vec<f64> = rows.map(|row| row.iter().enumerate().map(|(i, a)| f64::from(*a) * (i + 1) as f64).sum()).collect();
    let scale = f64::from(adapter.alpha) / rank as f64;
    pair.b.chunks_exact(rank).map(|row| scale * row.iter().zip(&low).map(|(b, x)| f64::from(*b) * x).sum::<f64>()).collect()
}

/// Files with the tensors of an adapter of rank 2, except that `layers.1.self_attn.q_proj` has those of an adapter of rank 3.
fn mixed_ranks(config: Value) -> Result<Adapter, FormatError> {
    let (two, three) = (adapter(&[Module::Q, Module::V], 2), adapter(&[Module::Q, Module::V], 3));
    let own = |name: &str| name.contains("layers.1.self_attn.q_proj");
    let (files, mut parts) = ([two.weights_bytes().unwrap(), three.weights_bytes().unwrap()], Vec::new());
    for (bytes, special) in files.iter().zip([false, true]) {
        let file = SafeTensors::from_bytes("w", bytes.as_slice()).unwrap();
        let of = |(name, t): (&str, tiger_formats::TensorView<'_>)| (name.to_owned(), t.shape.to_vec(), t.bytes.to_vec());
        parts.extend(file.iter().filter(|(name, _)| own(name) == special).map(of));
    }
    let list = |(name, shape, bytes)| TensorData { name: String::clone(name), dtype: Dtype::F32, shape: Vec::clone(shape), bytes };
    let list: Vec<TensorData<'_>> = parts.iter().map(|(n, s, b)| list((n, s, b))).collect();
    let mut out = Vec::new();
    write(&mut out, &list, &BTreeMap::new()).unwrap();
    let whole: Value = serde_json::from_slice(&two.config_bytes("b")).unwrap();
    Adapter::from_bytes(with(&whole, config).to_string().as_bytes(), &out, &base())
}

#[test]
fn every_module_keeps_its_own_rank_and_scale() {
    let (two, three) = (adapter(&[Module::Q, Module::V], 2), adapter(&[Module::Q, Module::V], 3));
    let special = "layers.1.self_attn.q_proj";
    // alpha is 6 in the file: scales of the module of rank 3 and of the others.
    for (config, own, others) in [
        (json!({"rank_pattern": {special: 3}}), 6.0 / 3.0, 6.0 / 2.0),
        (json!({"rank_pattern": {r"layers\.1\..*\.q_proj": 3}, "use_rslora": true}), 6.0 / 3f64.sqrt(), 6.0 / 2f64.sqrt()),
        (json!({"rank_pattern": {special: 3}, "alpha_pattern": {special: 12}}), 12.0 / 3.0, 6.0 / 2.0),
        (json!({"rank_pattern": {special: 3, "q_proj": 2}, "alpha_pattern": {"^model.layers.[01].self_attn.._proj": 1}}), 1.0 / 3.0, 0.5),
        (json!({"rank_pattern": {special: 3}, "alpha_pattern": {special: 12}, "lora_alpha": 0}), 12.0 / 3.0, 0.0),
    ] {
        let mixed = mixed_ranks(config.clone()).unwrap();
        assert_eq!(mixed.rank, 3);
        for (layer, module) in [(0, Module::Q), (0, Module::V), (1, Module::Q), (1, Module::V)] {
            let is_special = (layer, module) == (1, Module::Q);
            let (from, scale) = if is_special { (&three, own) } else { (&two, others) };
            let plain = f64::from(from.alpha) / from.rank as f64;
            for (ours, theirs) in added(&mixed, layer, module).into_iter().zip(added(from, layer, module)) {
                let wanted = theirs / plain * scale;
                assert!((ours - wanted).abs() <= 1e-6 * wanted.abs(), "{config}: {layer} {module:?}: {ours} {wanted}");
            }
        }
        let again = Adapter::from_bytes(&mixed.config_bytes("b"), &mixed.weights_bytes().unwrap(), &base()).unwrap();
        assert_eq!(again, mixed, "{config}");
    }
    // Without a pattern for it, and with one that names no whole part of a name, the rank is wrong.
    refuses(mixed_ranks(json!({})), &["imply [2, 8]"]);
    refuses(mixed_ranks(json!({"rank_pattern": {"_proj": 3}})), &["imply [2, 8]"]);
    // The first that matches counts.
    refuses(mixed_ranks(json!({"rank_pattern": {"q_proj": 2, special: 3}})), &["imply [2, 8]"]);
}

#[test]
fn layers_may_be_left_out() {
    let full = adapter(&[Module::Q], 2);
    let only = Adapter { tensors: full.tensors.clone().into_iter().filter(|((layer, _), _)| *layer == 1).collect(), ..full.clone() };
    let config: Value = serde_json::from_slice(&only.config_bytes("b")).unwrap();
    let read = |targets: Value| {
        let config = with(&config, json!({"target_modules": targets}));
        Adapter::from_bytes(config.to_string().as_bytes(), &only.weights_bytes().unwrap(), &base())
    };
    for targets in [json!(["model.layers.1.self_attn.q_proj"]), json!("all-linear")] {
        let adapter = read(targets).unwrap();
        assert_eq!(adapter.tensors[&(1, Module::Q)], full.tensors[&(1, Module::Q)]);
        assert!(adapter.tensors[&(0, Module::Q)].a.iter().chain(&adapter.tensors[&(0, Module::Q)].b).all(|v| *v == 0.0));
        assert_eq!(adapter.tensors.len(), 2);
    }
    refuses(read(json!(["q_proj"])), &["layers.0.self_attn.q_proj.lora_A", "is missing"]);
    refuses(read(json!(["model.layers.2.self_attn.q_proj"])), &["target_modules"]);
    refuses(read(json!(["roj"])), &["target_modules"]);
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
        (json!({"use_rslora": 1}), "use_rslora"),
        (json!({"lora_bias": true}), "lora_bias"),
        (json!({"fan_in_fan_out": true}), "fan_in_fan_out"),
        (json!({"rank_pattern": {"q_proj": 4}}), "imply [4, 8]"),
        (json!({"rank_pattern": {"q_proj": 1.5}}), "1.5"),
        (json!({"rank_pattern": {"q_proj": 0}}), "rank_pattern"),
        (json!({"rank_pattern": [4]}), "rank_pattern"),
        (json!({"alpha_pattern": {"q_proj": "x"}}), "alpha_pattern"),
        (json!({"alpha_pattern": {"(?=q)q_proj": 2}}), "look-around"),
        (json!({"alpha_pattern": {"(((a{99}){99}){99}){99}": 2}}), "look-around"),
        (json!({"lora_alpha": 999_999, "use_rslora": true}), "lora_alpha"),
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
