//! Names of tensors in a Llama-family checkpoint, and the seven linear maps of a layer.
//! Does not know whether a tensor is present.

use crate::architecture::Architecture;

/// The embedding table, [V, C].
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// The norm before the head, [C].
pub const FINAL_NORM: &str = "model.norm.weight";
/// The head, [V, C]; absent when tied to the embedding.
pub const HEAD: &str = "lm_head.weight";

/// One of the seven linear maps of a layer, in checkpoint order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// Query projection, C → H·D.
    Q,
    /// Key projection, C → KV·D.
    K,
    /// Value projection, C → KV·D.
    V,
    /// Attention output, H·D → C.
    O,
    /// Gate of the feed-forward, C → F.
    Gate,
    /// Up projection of the feed-forward, C → F.
    Up,
    /// Down projection of the feed-forward, F → C.
    Down,
}

impl Module {
    /// All seven, in a fixed order that callers may index by `module as usize`.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Short name as PEFT's `target_modules` lists it, e.g. `q_proj`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Path within a layer, e.g. `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Q => "self_attn.q_proj",
            Self::K => "self_attn.k_proj",
            Self::V => "self_attn.v_proj",
            Self::O => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// The module with this short name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Input features, K of the weight [N, K].
    pub fn inputs(self, a: &Architecture) -> usize {
        match self {
            Self::Q | Self::K | Self::V | Self::Gate | Self::Up => a.hidden,
            Self::O => a.heads * a.head_dim,
            Self::Down => a.ffn,
        }
    }

    /// Output features, N of the weight [N, K].
    pub fn outputs(self, a: &Architecture) -> usize {
        match self {
            Self::Q => a.heads * a.head_dim,
            Self::K | Self::V => a.kv_heads * a.head_dim,
            Self::O | Self::Down => a.hidden,
            Self::Gate | Self::Up => a.ffn,
        }
    }

    /// Whether the architecture gives this module a bias [N].
    pub fn has_bias(self, a: &Architecture) -> bool {
        match self {
            Self::Q | Self::K | Self::V => a.qkv_bias,
            Self::O => a.o_bias,
            Self::Gate | Self::Up | Self::Down => a.mlp_bias,
        }
    }

    /// Name of the weight tensor [N, K] in `layer`.
    pub fn weight(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.weight", self.path())
    }

    /// Name of the bias tensor [N] in `layer`.
    pub fn bias(self, layer: usize) -> String {
        format!("model.layers.{layer}.{}.bias", self.path())
    }
}

/// Name of the norm before attention, [C].
pub fn attention_norm(layer: usize) -> String {
    format!("model.layers.{layer}.input_layernorm.weight")
}

/// Name of the norm before the feed-forward, [C].
pub fn ffn_norm(layer: usize) -> String {
    format!("model.layers.{layer}.post_attention_layernorm.weight")
}

/// Name of the norm of each query head, [D].
pub fn query_norm(layer: usize) -> String {
    format!("model.layers.{layer}.self_attn.q_norm.weight")
}

/// Name of the norm of each key head, [D].
pub fn key_norm(layer: usize) -> String {
    format!("model.layers.{layer}.self_attn.k_norm.weight")
}

/// Every tensor that the architecture needs, with its shape.
pub fn required_tensors(a: &Architecture) -> Vec<(String, Vec<usize>)> {
    let mut list = vec![(EMBEDDING.to_owned(), vec![a.vocab, a.hidden]), (FINAL_NORM.to_owned(), vec![a.hidden])];
    if !a.tied {
        list.push((HEAD.to_owned(), vec![a.vocab, a.hidden]));
    }
    for layer in 0..a.layers {
        list.push((attention_norm(layer), vec![a.hidden]));
        list.push((ffn_norm(layer), vec![a.hidden]));
        if a.qk_norm {
            list.push((query_norm(layer), vec![a.head_dim]));
            list.push((key_norm(layer), vec![a.head_dim]));
        }
        for module in Module::ALL {
            list.push((module.weight(layer), vec![module.outputs(a), module.inputs(a)]));
            if module.has_bias(a) {
                list.push((module.bias(layer), vec![module.outputs(a)]));
            }
        }
    }
    list
}
