//! The tokenizer of a GGUF file as `tokenizer.json`. Untrusted: everything is checked before it is written. Does not know configurations.
//!
//! Byte-level BPE (`gpt2`) lists tokens and merges. SentencePiece's BPE (`llama`) lists pieces with scores: the best-scored pair that makes a piece
//! merges first, so every way to make a piece of two others is a merge, in the order of scores (SentencePiece's `bpe_model.cc`).

use std::borrow::Cow;
use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

use super::cuts::Cut;
use super::read::Gguf;
use super::vocabulary::{BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED};
use crate::error::{FormatError, quoted};
use crate::tokenizer::MAX_VOCAB;

/// Longest piece of a SentencePiece vocabulary, bytes; real ones have up to 48.
const MAX_PIECE_BYTES: usize = 512;
/// Most bytes of all pieces; Llama 2 has 200,000. Each may be cut anywhere to find its merges.
const MAX_PIECES_BYTES: usize = 8 << 20;
/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// Tokens, merges and what is put around a text.
pub(super) struct Vocabulary<'a> {
    tokens: Vec<(Cow<'a, str>, i32)>,
    /// Ids of the two parts, best first.
    merges: Vec<(u32, u32)>,
    model: Model,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) add_bos: bool,
    add_eos: bool,
}

enum Model {
    ByteLevel(&'static Cut),
    SentencePiece { add_space_prefix: bool },
}

impl<'a> Vocabulary<'a> {
    /// Reads the tokenizer of a file; the model has `vocab` tokens.
    ///
    /// # Errors
    /// Other tokenizers than `gpt2` and `llama`, ways to cut that are unknown, and whatever contradicts itself.
    pub(super) fn read<B: AsRef<[u8]>>(file: &'a Gguf<B>, vocab: usize) -> Result<Self, FormatError> {
        let model = match file.text("tokenizer.ggml.model")? {
            Some("gpt2") => Model::ByteLevel(cut(file)?),
            Some("llama") => Model::SentencePiece { add_space_prefix: file.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) },
            Some(other) => return Err(FormatError::unsupported(file.label(), "tokenizer.ggml.model", quoted(other), "gpt2, llama")),
            None => return Err(FormatError::invalid(file.label(), "tokenizer.ggml.model", "is missing")),
        };
        let tokens = tokens(file, vocab, &model)?;
        let ids = ids(file, &tokens)?;
        let merges = match &model {
            Model::ByteLevel(_) => listed_merges(file, &ids)?,
            Model::SentencePiece { .. } => merges_of_scores(file, &tokens)?,
        };
        let id = |key: &str| special(file, key, &tokens);
        let (bos, eos) = (id("bos_token_id")?, id("eos_token_id")?);
        let unknown = match id("unknown_token_id")? {
            Some(unknown) => Some(unknown),
            None => tokens.iter().position(|(_, kind)| *kind == UNKNOWN).map(|id| id as u32),
        };
        let padding = id("padding_token_id")?;
        let by_default = match &model {
            Model::ByteLevel(cut) => cut.add_bos,
            Model::SentencePiece { .. } => true,
        };
        let add_bos = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(by_default) && bos.is_some();
        let add_eos = file.flag("tokenizer.ggml.add_eos_token")? == Some(true) && eos.is_some();
        Ok(Vocabulary { tokens, merges, model, bos, eos, unknown, padding, add_bos, add_eos })
    }

    /// A token's name.
    pub(super) fn name(&self, id: u32) -> &str {
        &self.tokens[id as usize].0
    }

    /// Whether there is such a token.
    pub(super) fn has(&self, id: u32) -> bool {
        self.tokens.get(id as usize).is_some_and(|(_, kind)| *kind != UNUSED)
    }

    /// The id of a control token of this name.
    pub(super) fn control(&self, name: &str) -> Option<u32> {
        self.tokens.iter().position(|(text, kind)| *kind == CONTROL && text == name).map(|id| id as u32)
    }

    /// `tokenizer.json`.
    pub(super) fn json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let (normalizer, pre_tokenizer, decoder) = self.surroundings();
        serde_json::to_vec(&TokenizerFile {
            version: "1.0",
            truncation: None,
            padding: None,
            added_tokens: self.added(),
            normalizer,
            pre_tokenizer,
            post_processor: self.post_processor(),
            decoder,
            model: ModelPart(self),
        })
    }

    /// Normaliser, pre-tokenizer and decoder.
    fn surroundings(&self) -> (Value, Value, Value) {
        let prefix = match &self.model {
            Model::ByteLevel(cut) => {
                let normalizer = if cut.nfc { json!({"type": "NFC"}) } else { Value::Null };
                let decoder = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
                return (normalizer, cut.json(), decoder);
            }
            Model::SentencePiece { add_space_prefix } => *add_space_prefix,
        };
        // A space before every text, also before one that begins with a space, as SentencePiece has it.
        let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if prefix {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        (json!({"type": "Sequence", "normalizers": normalizers}), Value::Null, json!({"type": "Sequence", "decoders": decoders}))
    }

    /// Tokens that are found in a text before it is cut.
    fn added(&self) -> Vec<Value> {
        let added = |(id, (text, kind)): (usize, &(Cow<'_, str>, i32))| {
            let special = matches!(*kind, CONTROL | UNKNOWN);
            (special || *kind == USER_DEFINED).then(|| {
                json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special})
            })
        };
        self.tokens.iter().enumerate().filter_map(added).collect()
    }

    /// Beginning and end of a text.
    fn post_processor(&self) -> Value {
        let (bos, eos) = (self.bos.filter(|_| self.add_bos), self.eos.filter(|_| self.add_eos));
        if bos.is_none() && eos.is_none() {
            return Value::Null;
        }
        let token = |id: u32, part: u32| json!({"SpecialToken": {"id": self.name(id), "type_id": part}});
        let text = |name: &str, part: u32| {
            let sequence = json!({"Sequence": {"id": name, "type_id": part}});
            bos.map(|id| token(id, part)).into_iter().chain([sequence]).chain(eos.map(|id| token(id, part))).collect::<Vec<Value>>()
        };
        let known = |id: u32| (self.name(id).to_owned(), json!({"id": self.name(id), "ids": [id], "tokens": [self.name(id)]}));
        let special: serde_json::Map<String, Value> = bos.into_iter().chain(eos).map(known).collect();
        let pair: Vec<Value> = text("A", 0).into_iter().chain(text("B", 1)).collect();
        json!({"type": "TemplateProcessing", "single": text("A", 0), "pair": pair, "special_tokens": special})
    }
}

#[derive(serde::Serialize)]
struct TokenizerFile<'a> {
    version: &'static str,
    truncation: Option<()>,
    padding: Option<()>,
    added_tokens: Vec<Value>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: ModelPart<'a>,
}

/// `model` of the file, written without a copy of the vocabulary.
struct ModelPart<'a>(&'a Vocabulary<'a>);
struct Vocab<'a>(&'a Vocabulary<'a>);
struct Merges<'a>(&'a Vocabulary<'a>);

impl Serialize for ModelPart<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sentencepiece = matches!(self.0.model, Model::SentencePiece { .. });
        let unknown = self.0.unknown.filter(|_| sentencepiece).map(|id| self.0.name(id));
        let ignore_merges = matches!(&self.0.model, Model::ByteLevel(cut) if cut.ignore_merges);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", "BPE")?;
        map.serialize_entry("dropout", &None::<f32>)?;
        map.serialize_entry("unk_token", &unknown)?;
        map.serialize_entry("continuing_subword_prefix", &None::<&str>)?;
        map.serialize_entry("end_of_word_suffix", &None::<&str>)?;
        map.serialize_entry("fuse_unk", &sentencepiece)?;
        map.serialize_entry("byte_fallback", &sentencepiece)?;
        map.serialize_entry("ignore_merges", &ignore_merges)?;
        map.serialize_entry("vocab", &Vocab(self.0))?;
        map.serialize_entry("merges", &Merges(self.0))?;
        map.end()
    }
}

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let used = self.0.tokens.iter().enumerate().filter(|(_, (_, kind))| *kind != UNUSED);
        serializer.collect_map(used.map(|(id, (text, _))| (text.as_ref(), id)))
    }
}

impl Serialize for Merges<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.merges.iter().map(|(a, b)| [self.0.name(*a), self.0.name(*b)]))
    }
}

fn cut<B: AsRef<[u8]>>(file: &Gguf<B>) -> Result<&'static Cut, FormatError> {
    const KEY: &str = "tokenizer.ggml.pre";
    let Some(name) = file.text(KEY)? else {
        let problem = "is missing: the file is from before May 2024 and does not say how its tokenizer cuts text; convert the model anew";
        return Err(FormatError::invalid(file.label(), KEY, problem));
    };
    Cut::named(name).ok_or_else(|| FormatError::unsupported(file.label(), KEY, quoted(name), &Cut::supported()))
}

/// Every token with its kind.
fn tokens<'a, B: AsRef<[u8]>>(file: &'a Gguf<B>, vocab: usize, model: &Model) -> Result<Vec<(Cow<'a, str>, i32)>, FormatError> {
    let required = |key: &str| FormatError::invalid(file.label(), key, "is missing");
    let texts = file.texts("tokenizer.ggml.tokens")?.ok_or_else(|| required("tokenizer.ggml.tokens"))?;
    let kinds = file.numbers("tokenizer.ggml.token_type")?.ok_or_else(|| required("tokenizer.ggml.token_type"))?;
    if texts.is_empty() || texts.len() > vocab.min(MAX_VOCAB) {
        let problem = format!("has {} tokens, must have 1 to {}", texts.len(), vocab.min(MAX_VOCAB));
        return Err(FormatError::invalid(file.label(), "tokenizer.ggml.tokens", problem));
    }
    if kinds.len() != texts.len() {
        let problem = format!("has {} kinds for {} tokens", kinds.len(), texts.len());
        return Err(FormatError::invalid(file.label(), "tokenizer.ggml.token_type", problem));
    }
    let sentencepiece = matches!(model, Model::SentencePiece { .. });
    let token = |(text, kind): (&'a str, f64)| {
        let kind = kind as i32;
        if !(NORMAL..=BYTE).contains(&kind) {
            let problem = format!("gives {} the kind {kind}, must be {NORMAL} to {BYTE}", quoted(text));
            return Err(FormatError::invalid(file.label(), "tokenizer.ggml.token_type", problem));
        }
        // What the user defined is found in the text itself, where spaces are spaces.
        let text = match sentencepiece && kind == USER_DEFINED && text.contains(SPACE) {
            true => Cow::Owned(text.replace(SPACE, " ")),
            false => Cow::Borrowed(text),
        };
        Ok((text, kind))
    };
    texts.into_iter().zip(kinds).map(token).collect()
}

/// Ids by name, of the tokens that are in use.
fn ids<'v, B: AsRef<[u8]>>(file: &Gguf<B>, tokens: &'v [(Cow<'_, str>, i32)]) -> Result<HashMap<&'v str, u32>, FormatError> {
    let mut ids = HashMap::with_capacity(tokens.len());
    for (id, (text, _)) in tokens.iter().enumerate().filter(|(_, (_, kind))| *kind != UNUSED) {
        if let Some(first) = ids.insert(text.as_ref(), id as u32) {
            let problem = format!("has {} twice, as {first} and {id}", quoted(text));
            return Err(FormatError::invalid(file.label(), "tokenizer.ggml.tokens", problem));
        }
    }
    Ok(ids)
}

/// The merges of byte-level BPE: two tokens with a space between, which together are a token.
fn listed_merges<B: AsRef<[u8]>>(file: &Gguf<B>, ids: &HashMap<&str, u32>) -> Result<Vec<(u32, u32)>, FormatError> {
    const KEY: &str = "tokenizer.ggml.merges";
    let merges = file.texts(KEY)?.ok_or_else(|| FormatError::invalid(file.label(), KEY, "is missing"))?;
    let pair = |text: &str| {
        // A part may itself begin with a space.
        let first = text.chars().next()?.len_utf8();
        let space = text[first..].find(' ')? + first;
        let (a, b) = (&text[..space], &text[space + 1..]);
        ids.get([a, b].concat().as_str())?;
        Some((*ids.get(a)?, *ids.get(b)?))
    };
    let checked = |text: &&str| {
        let problem = || format!("has {}, which is no pair of tokens that together are a token", quoted(text));
        pair(text).ok_or_else(|| FormatError::invalid(file.label(), KEY, problem()))
    };
    merges.iter().map(checked).collect()
}

/// A merge with what it is sorted by.
struct Scored {
    score: f64,
    chars: [usize; 2],
    made: u32,
    parts: (u32, u32),
}

/// Every way to make a normal piece of two others, best score first; among equals the longer first part, as transformers' conversion has it.
fn merges_of_scores<B: AsRef<[u8]>>(file: &Gguf<B>, tokens: &[(Cow<'_, str>, i32)]) -> Result<Vec<(u32, u32)>, FormatError> {
    const KEY: &str = "tokenizer.ggml.scores";
    let scores = file.numbers(KEY)?.ok_or_else(|| FormatError::invalid(file.label(), KEY, "is missing"))?;
    if scores.len() != tokens.len() || scores.iter().any(|score| !score.is_finite()) {
        return Err(FormatError::invalid(file.label(), KEY, format!("must be {} finite numbers", tokens.len())));
    }
    let normal = || tokens.iter().enumerate().filter(|(_, (_, kind))| *kind == NORMAL);
    let bytes: usize = normal().map(|(_, (text, _))| text.len()).sum();
    if let Some((_, (text, _))) = normal().find(|(_, (text, _))| text.len() > MAX_PIECE_BYTES || bytes > MAX_PIECES_BYTES) {
        let problem = format!("have {bytes} bytes, or {} is too long: at most {MAX_PIECES_BYTES} and {MAX_PIECE_BYTES} each", quoted(text));
        return Err(FormatError::invalid(file.label(), "tokenizer.ggml.tokens", problem));
    }
    let ids: HashMap<&str, u32> = normal().map(|(id, (text, _))| (text.as_ref(), id as u32)).collect();
    let mut merges = Vec::new();
    for (made, (text, _)) in normal() {
        for (at, _) in text.char_indices().skip(1) {
            let (a, b) = text.split_at(at);
            if let (Some(first), Some(second)) = (ids.get(a), ids.get(b)) {
                let chars = [a.chars().count(), b.chars().count()];
                merges.push(Scored { score: scores[made], chars, made: made as u32, parts: (*first, *second) });
            }
        }
    }
    merges.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.chars.cmp(&a.chars)).then(a.made.cmp(&b.made)).then(a.parts.cmp(&b.parts)));
    Ok(merges.into_iter().map(|merge| merge.parts).collect())
}

/// The id of a special token.
fn special<B: AsRef<[u8]>>(file: &Gguf<B>, key: &str, tokens: &[(Cow<'_, str>, i32)]) -> Result<Option<u32>, FormatError> {
    let key = format!("tokenizer.ggml.{key}");
    let Some(id) = file.integer(&key)? else { return Ok(None) };
    match tokens.get(usize::try_from(id).unwrap_or(usize::MAX)) {
        Some((_, kind)) if *kind != UNUSED => Ok(Some(id as u32)),
        _ => Err(FormatError::invalid(file.label(), &key, format!("is {id}, which is none of {} tokens", tokens.len()))),
    }
}
