//! `generation_config.json`: what the model's makers advise for sampling. Advice only; does not know what a caller asks.

use std::path::Path;

use crate::config::MAX_EOS_IDS;
use crate::error::FormatError;
use crate::fields::{Fields, file_label, parse_object, read_optional};

/// Longest `generation_config.json`, bytes; real ones have under 1 kB.
pub const MAX_GENERATION_CONFIG_BYTES: u64 = 1 << 18;
/// Hottest temperature accepted; beyond it sampling is uniform anyway.
const MAX_TEMPERATURE: f64 = 100.0;
/// Largest `top_k` accepted, tokens: no vocabulary is larger.
const MAX_TOP_K: u64 = 1 << 22;

/// The fields that this program follows; `do_sample` and all others are ignored.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// Tokens that end a response; may be empty.
    pub eos_ids: Vec<u32>,
    /// First token of a sequence.
    pub bos_id: Option<u32>,
    /// Softmax temperature, ≥ 0.
    pub temperature: Option<f32>,
    /// Nucleus mass in (0, 1].
    pub top_p: Option<f32>,
    /// Candidates kept, ≥ 1; the file's 0 means no limit and reads as `None`.
    pub top_k: Option<u32>,
}

impl GenerationConfig {
    /// Reads the file of a checkpoint folder; `None` when there is none. `vocab` bounds the token ids.
    pub fn open(dir: &Path, vocab: usize) -> Result<Option<Self>, FormatError> {
        let path = dir.join("generation_config.json");
        let Some(bytes) = read_optional(&path, MAX_GENERATION_CONFIG_BYTES)? else { return Ok(None) };
        Self::parse(&file_label(&path), &bytes, vocab).map(Some)
    }

    /// Parses the content; `file` is the name for error messages.
    pub fn parse(file: &str, bytes: &[u8], vocab: usize) -> Result<Self, FormatError> {
        let map = parse_object(file, bytes)?;
        let fields = Fields::new(file, &map);
        let eos_ids = fields.token_ids("eos_token_id", MAX_EOS_IDS)?;
        let bos_id = fields.token_ids("bos_token_id", 1)?.first().copied();
        for (field, id) in eos_ids.iter().map(|id| ("eos_token_id", id)).chain(bos_id.iter().map(|id| ("bos_token_id", id))) {
            if *id as usize >= vocab {
                return Err(fields.invalid(field, format!("is {id}, outside the vocabulary of {vocab}")));
            }
        }
        let top_p = fields.number("top_p", 0.0..=1.0)?.map(|p| p as f32);
        if top_p == Some(0.0) {
            return Err(fields.invalid("top_p", "is 0, must be above 0 and at most 1"));
        }
        Ok(Self {
            eos_ids,
            bos_id,
            temperature: fields.number("temperature", 0.0..=MAX_TEMPERATURE)?.map(|t| t as f32),
            top_p,
            top_k: fields.integer("top_k", 0..=MAX_TOP_K)?.filter(|&k| k > 0).map(|k| k as u32),
        })
    }
}
