//! The shape of a Llama-family decoder as data: one decoder reads it, a new family is a new parser.
//! Does not know where weights lie nor how they are stored.

/// Rotary embedding parameters (RoFormer, Su et al. 2021; Llama-3 scaling from the Llama 3.1 release).
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the geometric frequency series.
    pub theta: f64,
    /// How frequencies are stretched beyond the trained context.
    pub scaling: RopeScaling,
}

/// Stretching of rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as trained.
    None,
    /// Every frequency divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Low frequencies divided, high ones kept, a smooth ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Ramp start, in original contexts per wavelength.
        low_freq_factor: f64,
        /// Ramp end, likewise.
        high_freq_factor: f64,
        /// Context that the frequencies were trained for, tokens.
        original_context: usize,
    },
    /// High frequencies kept, low ones divided, a ramp over the channels between; queries and keys scaled (YaRN, Peng et al. 2023, section 3.4).
    Yarn {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Turns over the original context from which a frequency is kept.
        beta_fast: f64,
        /// Turns over the original context below which it is divided whole.
        beta_slow: f64,
        /// Whether the ramp begins and ends at whole channels.
        truncate: bool,
        /// What cosines and sines are multiplied by, so that scores are by its square.
        attention_factor: f64,
        /// Context that the frequencies were trained for, tokens.
        original_context: usize,
    },
}

impl RopeScaling {
    /// YaRN's factor of cosines and sines where a file gives none: 0.1 ln(factor) + 1 (the paper's √(1/t)).
    pub fn yarn_attention_factor(factor: f64) -> f64 {
        yarn_mscale(factor, 1.0)
    }
}

/// That with a weight on the logarithm.
pub(crate) fn yarn_mscale(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 }
}

/// Sizes and switches of one decoder. Letters as everywhere: C channels, H heads, D head size, F ffn, V vocab.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// C.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// H, query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// D; even.
    pub head_dim: usize,
    /// F.
    pub ffn: usize,
    /// V.
    pub vocab: usize,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: Rope,
    /// Longest sequence, tokens.
    pub context_length: usize,
    /// Head shares the embedding table.
    pub tied: bool,
    /// q, k and v have biases.
    pub qkv_bias: bool,
    /// o has a bias.
    pub o_bias: bool,
    /// gate, up and down have biases.
    pub mlp_bias: bool,
    /// Each head of q and k goes through an RMSNorm before its rotation, one for all query heads, one for all key heads.
    pub qk_norm: bool,
}

impl Architecture {
    /// Number of parameters of the whole model, embeddings included.
    pub fn parameters(&self) -> u64 {
        let (c, d, f) = (self.hidden as u64, self.head_dim as u64, self.ffn as u64);
        let (q, kv) = (self.heads as u64 * d, self.kv_heads as u64 * d);
        let mut layer = c * (q + 2 * kv) + q * c + 3 * c * f + 2 * c;
        if self.qkv_bias {
            layer += q + 2 * kv;
        }
        if self.o_bias {
            layer += c;
        }
        if self.mlp_bias {
            layer += 2 * f + c;
        }
        if self.qk_norm {
            layer += 2 * d;
        }
        let embeddings = self.vocab as u64 * c * if self.tied { 1 } else { 2 };
        embeddings + self.layers as u64 * layer + c
    }
}
