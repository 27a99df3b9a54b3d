//! The models that are measured: real shapes with synthetic weights, or a checkpoint. Does not measure.

use std::path::Path;

use tiger_formats::{Architecture, Checkpoint, Rope, RopeScaling};
use tiger_kernels::Cpu;
use tiger_model::{Model, Precision};

use crate::failure::Failure;

/// A shape by its name, or a checkpoint by its folder.
pub(super) fn model(cpu: &Cpu, name: &str, precision: Precision) -> Result<Model, Failure> {
    if let Some(architecture) = shape(name) {
        return Ok(Model::synthetic(cpu, &architecture, precision, 1));
    }
    let checkpoint = Checkpoint::open(Path::new(name))
        .map_err(|e| Failure::because(format!("{name} is no shape (1b, 8b, nano, tiny) and no checkpoint"), e))?;
    Model::load(cpu, &checkpoint, precision, &mut |_| {}).map_err(|e| Failure::because(name, e))
}

/// The shapes of Llama-3.2-1B, Llama-3.1-8B, Tiger-Nano, and the tiny one that others are measured with.
fn shape(name: &str) -> Option<Architecture> {
    let (hidden, layers, heads, kv_heads, head_dim, ffn, vocab, tied) = match name {
        "1b" => (2048, 16, 32, 8, 64, 8192, 128_256, true),
        "8b" => (4096, 32, 32, 8, 128, 14_336, 128_256, false),
        "nano" => (256, 4, 4, 2, 64, 704, 2048, true),
        "tiny" => (288, 6, 6, 6, 48, 768, 4096, true),
        _ => return None,
    };
    let rope = Rope { theta: 500_000.0, scaling: RopeScaling::None };
    Some(Architecture {
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        ffn,
        vocab,
        norm_eps: 1e-5,
        rope,
        context_length: 131_072,
        tied,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
    })
}
