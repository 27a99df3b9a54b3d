//! `tokenizer.json` as GGUF's metadata. Does not know how a text is cut: llama.cpp knows that by the name of the pre-tokenizer.

use std::path::Path;

use serde_json::{Map, Value};

use super::Metadata;
use crate::error::{FormatError, quoted};
use crate::fields::{parse_object, read_limited};
use crate::tokenizer::MAX_TOKENIZER_BYTES;

const FILE: &str = "tokenizer.json";
/// llama.cpp's names of pre-tokenizers by their regular expressions.
const PRE_TOKENIZERS: [(&str, &str); 2] = [
    ("llama-bpe", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    ("qwen2", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
];
/// That of byte-level BPE with its own regular expression.
const GPT2: &str = "gpt-2";
/// The same after every digit is cut off alone.
const SMOLLM: &str = "smollm";

/// llama.cpp's kinds of tokens.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// The file of a checkpoint folder.
pub(super) fn read(folder: &Path) -> Result<Map<String, Value>, FormatError> {
    parse_object(FILE, &read_limited(&folder.join(FILE), MAX_TOKENIZER_BYTES)?)
}

/// Tokens with their kinds, merges, and the pre-tokenizer's name. `vocab` is the model's.
pub(super) fn describe(metadata: &mut Metadata, json: &Map<String, Value>, vocab: usize) -> Result<(), FormatError> {
    let wrong = |field: &str, problem: String| FormatError::invalid(FILE, field, problem);
    let model = json.get("model").and_then(Value::as_object).ok_or_else(|| wrong("model", "is missing".into()))?;
    let flag = |name: &str| model.get(name).and_then(Value::as_bool) == Some(true);
    if model.get("type").and_then(Value::as_str) != Some("BPE") || flag("byte_fallback") {
        return Err(FormatError::unsupported(FILE, "model.type", "another tokenizer", "byte-level BPE"));
    }
    // llama.cpp normalises nothing; composed characters are what people write anyway.
    let normalizer = json.get("normalizer").filter(|value| !value.is_null());
    if let Some(other) = normalizer.filter(|value| value["type"] != "NFC") {
        return Err(FormatError::unsupported(FILE, "normalizer", quoted(&other.to_string()), "null, NFC"));
    }
    let pre = pre_tokenizer(json)?;
    let mut tokens: Vec<Option<(String, i32)>> = vec![None; vocab];
    let mut put = |id: &Value, text: &str, kind: i32| {
        let slot = id.as_u64().and_then(|id| tokens.get_mut(usize::try_from(id).ok()?));
        let outside = || wrong("model.vocab", format!("{} has an id outside the model's vocabulary of {vocab}", quoted(text)));
        *slot.ok_or_else(outside)? = Some((text.to_owned(), kind));
        Ok::<(), FormatError>(())
    };
    let entries = model.get("vocab").and_then(Value::as_object).ok_or_else(|| wrong("model.vocab", "is missing".into()))?;
    for (text, id) in entries {
        put(id, text, NORMAL)?;
    }
    for added in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let text = added["content"].as_str().ok_or_else(|| wrong("added_tokens", "has a token without content".into()))?;
        put(&added["id"], text, if added["special"] == true { CONTROL } else { USER_DEFINED })?;
    }
    let named = |(id, token): (usize, Option<(String, i32)>)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED));
    let (texts, kinds): (Vec<String>, Vec<i32>) = tokens.into_iter().enumerate().map(named).unzip();
    let merges = model.get("merges").and_then(Value::as_array).ok_or_else(|| wrong("model.merges", "is missing".into()))?;
    let merges: Option<Vec<String>> = merges.iter().map(merge).collect();
    metadata.text("tokenizer.ggml.model", "gpt2");
    metadata.text("tokenizer.ggml.pre", pre);
    metadata.texts("tokenizer.ggml.tokens", &texts);
    metadata.i32s("tokenizer.ggml.token_type", &kinds);
    metadata.texts("tokenizer.ggml.merges", &merges.ok_or_else(|| wrong("model.merges", "has one that is no pair".into()))?);
    Ok(())
}

/// Old files write a pair as one text.
fn merge(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => match pair.as_slice() {
            [a, b] => Some(format!("{} {}", a.as_str()?, b.as_str()?)),
            _ => None,
        },
        _ => None,
    }
}

fn pre_tokenizer(json: &Map<String, Value>) -> Result<&'static str, FormatError> {
    let whole = json.get("pre_tokenizer").cloned().unwrap_or_default();
    let one = [whole.clone()];
    let parts = whole["pretokenizers"].as_array().map_or(&one[..], Vec::as_slice);
    let supported = "byte-level BPE cut as GPT-2, Llama 3, Qwen 2 or SmolLM do";
    let unknown = || FormatError::unsupported(FILE, "pre_tokenizer", quoted(&whole.to_string()), supported);
    let plain = |part: &Value, regex: bool| {
        part["type"] == "ByteLevel" && part["add_prefix_space"] != true && part["use_regex"].as_bool().unwrap_or(true) == regex
    };
    match parts {
        [bytes] if plain(bytes, true) => Ok(GPT2),
        [digits, bytes] if digits["type"] == "Digits" && digits["individual_digits"] == true && plain(bytes, true) => Ok(SMOLLM),
        [split, bytes] if split["type"] == "Split" && split["behavior"] == "Isolated" && split["invert"] != true && plain(bytes, false) => {
            let regex = split["pattern"]["Regex"].as_str().unwrap_or_default();
            PRE_TOKENIZERS.iter().find(|(_, known)| *known == regex).map(|(name, _)| *name).ok_or_else(unknown)
        }
        _ => Err(unknown()),
    }
}
