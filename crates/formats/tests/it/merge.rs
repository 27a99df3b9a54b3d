//! Merged weights: W + scale · B A where an adapter is, the base's own bytes where none is.

use std::collections::BTreeMap;

use serde_json::json;
use tiger_formats::modules::required_tensors;
use tiger_formats::peft::LoraPair;
use tiger_formats::{Adapter, Checkpoint, Dtype, Merged, Module};

use crate::support::{architecture, llama_config, weights, with};

/// What bf16 rounds by, relative.
const BF16_ROUNDING: f64 = 1.0 / 256.0;

fn base() -> (String, Vec<u8>) {
    let config = with(&llama_config(), json!({"tie_word_embeddings": false}));
    let bytes = weights(&required_tensors(&architecture(&config)));
    (config.to_string(), bytes)
}

#[test]
fn adapted_weights_change_and_no_others() {
    let (config, bytes) = base();
    let checkpoint = Checkpoint::from_bytes(config.as_bytes(), bytes).unwrap();
    let a = checkpoint.architecture().clone();
    let ramp = |n: usize| (0..n).map(|i| (i % 7) as f32 * 0.5 - 1.25).collect::<Vec<f32>>();
    let pair = |module: Module| LoraPair { a: ramp(3 * module.inputs(&a)), b: ramp(module.outputs(&a) * 3) };
    let tensors: BTreeMap<_, _> = [(1, Module::Q), (0, Module::Down)].map(|(layer, module)| ((layer, module), pair(module))).into();
    let adapter = Adapter { rank: 3, alpha: 6.0, tensors };
    let merged = Merged::new(&checkpoint, Some(&adapter));
    let mut out = Vec::new();
    merged.write_safetensors(&mut out).unwrap();
    let written = Checkpoint::from_bytes(config.as_bytes(), out).unwrap();
    for (name, _) in required_tensors(&a) {
        let (before, after) = (checkpoint.tensor(&name).unwrap(), written.tensor(&name).unwrap());
        assert_eq!(after.dtype, Dtype::BF16);
        let adapted = [(1, Module::Q), (0, Module::Down)].into_iter().find(|(layer, module)| module.weight(*layer) == name);
        let Some((layer, module)) = adapted else {
            assert_eq!(before.bytes, after.bytes, "{name}");
            continue;
        };
        let (k, pair) = (module.inputs(&a), &adapter.tensors[&(layer, module)]);
        let (before, after) = (before.to_f32().unwrap(), after.to_f32().unwrap());
        for (i, (w, found)) in before.iter().zip(&after).enumerate() {
            let added: f64 = (0..3).map(|r| f64::from(pair.b[i / k * 3 + r]) * f64::from(pair.a[r * k + i % k])).sum();
            let want = f64::from(*w) + 2.0 * added;
            // Noise in bf16 may be anything that is a number.
            if want.is_finite() && want.abs() < 1e30 {
                assert!((f64::from(*found) - want).abs() <= BF16_ROUNDING * want.abs().max(1.0), "{name} {i}: {found} {want}");
            }
        }
    }
}

#[test]
fn without_an_adapter_every_byte_is_the_bases() {
    let qwen3 = with(&llama_config(), json!({"model_type": "qwen3", "architectures": null, "head_dim": 6, "attention_bias": true}));
    for (config, tensors) in [(llama_config(), 21), (qwen3, 33)] {
        let bytes = weights(&required_tensors(&architecture(&config)));
        let checkpoint = Checkpoint::from_bytes(config.to_string().as_bytes(), bytes).unwrap();
        let merged = Merged::new(&checkpoint, None);
        let heads = merged.heads().unwrap();
        assert_eq!(heads.len(), tensors);
        for head in heads {
            assert_eq!(merged.bytes(&head.name).unwrap(), checkpoint.tensor(&head.name).unwrap().bytes);
        }
    }
}
