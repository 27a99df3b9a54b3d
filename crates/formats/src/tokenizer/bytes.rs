//! The bytes of every token, from the tokenizer's decoder description.
//! Does not know text: a token may hold half a character.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::{FILE, MAX_VOCAB};
use crate::error::{FormatError, quoted};

const SUPPORTED: &str = "ByteLevel; Replace, ByteFallback, Fuse and Strip in sequence; Metaspace";
/// Most bytes of all tokens together; published vocabularies have under 4 MB.
const MAX_TABLE_BYTES: usize = 64 << 20;

/// What the decoder removes at the start of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// Nothing.
    Keep,
    /// Up to this many spaces.
    Strip(usize),
    /// Every space of the first token.
    WholeToken,
}

/// All tokens' bytes, by id.
pub(super) struct TokenTable {
    data: Vec<u8>,
    /// `ends[id]` is where token `id` ends in `data`; it begins where the one before ends.
    ends: Vec<u32>,
    special: Vec<bool>,
    first: First,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
}

impl TokenTable {
    pub(super) fn new(json: &[u8], library: &tokenizers::Tokenizer) -> Result<Self, FormatError> {
        let head: Head = serde_json::from_slice(json).map_err(|e| FormatError::invalid(FILE, "decoder", e.to_string()))?;
        let decoder = Decoder::parse(&head.decoder)?;
        // The library numbers added tokens itself; where the file says otherwise, the model means other tokens.
        if let Some(wrong) = head.added_tokens.iter().find(|t| library.token_to_id(&t.content) != Some(t.id)) {
            let problem = format!("token {} has id {}, which is not the next free one", quoted(&wrong.content), wrong.id);
            return Err(FormatError::invalid(FILE, "added_tokens", problem));
        }
        let vocab = library.get_vocab(true);
        let added = library.get_added_tokens_decoder();
        let len = vocab.values().chain(added.keys()).max().map_or(0, |&id| id as usize + 1);
        if len == 0 || len > MAX_VOCAB {
            return Err(FormatError::invalid(FILE, "vocab", format!("has ids up to {len}, must be 1 to {MAX_VOCAB}")));
        }
        let mut names: Vec<&str> = vec![""; len];
        for (name, &id) in &vocab {
            names[id as usize] = name;
        }
        let mut special = vec![false; len];
        for (&id, token) in &added {
            names[id as usize] = &token.content;
            special[id as usize] = token.special;
        }
        let mut data = Vec::new();
        let mut ends = Vec::with_capacity(len);
        for name in names {
            decoder.append(name, &mut data);
            if data.len() > MAX_TABLE_BYTES {
                return Err(FormatError::invalid(FILE, "vocab", format!("has more than {MAX_TABLE_BYTES} bytes")));
            }
            ends.push(data.len() as u32);
        }
        Ok(Self { data, ends, special, first: decoder.first })
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn first(&self) -> First {
        self.first
    }

    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let Some(&end) = self.ends.get(id) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.data[start as usize..end as usize]
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }
}

/// How a token's name becomes bytes.
struct Decoder {
    /// Characters that stand for bytes (GPT-2's alphabet), when the names are written in them.
    alphabet: Option<HashMap<char, u8>>,
    replacements: Vec<(String, String)>,
    byte_fallback: bool,
    first: First,
}

impl Decoder {
    fn parse(value: &Value) -> Result<Self, FormatError> {
        let mut decoder = Self { alphabet: None, replacements: Vec::new(), byte_fallback: false, first: First::Keep };
        let steps = match (kind(value), value.get("decoders")) {
            ("Sequence", Some(Value::Array(steps))) => steps.as_slice(),
            _ => std::slice::from_ref(value),
        };
        let mut fused = false;
        for step in steps {
            decoder.add(step, fused)?;
            fused |= kind(step) == "Fuse";
        }
        // Names in the byte alphabet are already complete; a second rule would apply to text that we no longer see.
        if decoder.alphabet.is_some() && steps.iter().any(|s| !matches!(kind(s), "ByteLevel" | "Fuse")) {
            return Err(FormatError::unsupported(FILE, "decoder", "ByteLevel with other steps", SUPPORTED));
        }
        Ok(decoder)
    }

    fn add(&mut self, step: &Value, fused: bool) -> Result<(), FormatError> {
        let text = |field: &str| step.get(field).and_then(Value::as_str);
        match kind(step) {
            "ByteLevel" => self.alphabet = Some(alphabet()),
            "ByteFallback" => self.byte_fallback = true,
            "Fuse" => {}
            "Replace" => {
                let pattern = step.get("pattern").and_then(|p| p.get("String")).and_then(Value::as_str);
                let (Some(pattern), Some(content)) = (pattern.filter(|p| !p.is_empty()), text("content")) else {
                    return Err(FormatError::unsupported(FILE, "decoder.pattern", "this pattern", "a plain string"));
                };
                self.replacements.push((pattern.to_owned(), content.to_owned()));
            }
            "Strip" => {
                let number = |field: &str| step.get(field).and_then(Value::as_u64);
                match (fused, text("content"), number("start"), number("stop")) {
                    (true, Some(" "), Some(start @ 0..=16), Some(0)) => self.first = First::Strip(start as usize),
                    _ => {
                        let found = quoted(&step.to_string());
                        return Err(FormatError::unsupported(FILE, "decoder", found, "Strip of leading spaces after Fuse"));
                    }
                }
            }
            "Metaspace" => {
                self.replacements.push((text("replacement").unwrap_or("▁").to_owned(), " ".to_owned()));
                if text("prepend_scheme").unwrap_or("always") != "never" {
                    self.first = First::WholeToken;
                }
            }
            other => return Err(FormatError::unsupported(FILE, "decoder", quoted(other), SUPPORTED)),
        }
        Ok(())
    }

    fn append(&self, name: &str, data: &mut Vec<u8>) {
        if let Some(alphabet) = &self.alphabet {
            let start = data.len();
            for c in name.chars() {
                match alphabet.get(&c) {
                    Some(byte) => data.push(*byte),
                    // Not written in the alphabet (an added token with a space): the name is the text.
                    None => {
                        data.truncate(start);
                        data.extend_from_slice(name.as_bytes());
                        return;
                    }
                }
            }
            return;
        }
        if self.byte_fallback
            && let Some(byte) = fallback_byte(name)
        {
            data.push(byte);
            return;
        }
        let mut text = name.to_owned();
        for (pattern, content) in &self.replacements {
            text = text.replace(pattern, content);
        }
        data.extend_from_slice(text.as_bytes());
    }
}

fn kind(step: &Value) -> &str {
    step.get("type").and_then(Value::as_str).unwrap_or("none")
}

/// The byte of a name like `<0x0A>`.
fn fallback_byte(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes, in order, for the
/// characters from U+0100 on.
fn alphabet() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255_u8)
        .map(|byte| {
            let c = match byte {
                b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
                _ => {
                    next += 1;
                    char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
                }
            };
            (c, byte)
        })
        .collect()
}
