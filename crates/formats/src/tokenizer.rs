//! The checkpoint's tokenizer: text → ids, ids → bytes, and a stream decoder that never cuts a character.
//! Does not know the model, templates or what a turn is.

mod bytes;
mod stream;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::constraint::TokEnv;
use crate::error::{FormatError, quoted};
use crate::fields::read_limited;

use bytes::{First, TokenTable};
pub use stream::DecodeStream;

/// Longest `tokenizer.json`, bytes; the largest published ones have some 40 MB.
pub const MAX_TOKENIZER_BYTES: u64 = 128 << 20;
/// Most token ids; published vocabularies have up to some 260,000.
pub const MAX_VOCAB: usize = 1 << 20;

const FILE: &str = "tokenizer.json";

/// A tokenizer. Cloning is cheap and shares everything.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

struct Inner {
    library: tokenizers::Tokenizer,
    table: TokenTable,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a checkpoint folder.
    pub fn open(dir: &Path) -> Result<Self, FormatError> {
        Self::from_bytes(&read_limited(&dir.join(FILE), MAX_TOKENIZER_BYTES)?)
    }

    /// Reads the content of a `tokenizer.json`.
    pub fn from_bytes(json: &[u8]) -> Result<Self, FormatError> {
        let bad = |problem: String| FormatError::invalid(FILE, "file", problem);
        // The library trusts its files more than we do: a panic there means a bad file here.
        let mut library = guard("loading", || tokenizers::Tokenizer::from_bytes(json).map_err(|e| e.to_string())).map_err(bad)?;
        // Cutting or padding a prompt silently would change what the model sees.
        library.with_truncation(None).map_err(|e| bad(e.to_string()))?;
        library.with_padding(None);
        let table = TokenTable::new(json, &library)?;
        Ok(Self { inner: Arc::new(Inner { library, table }) })
    }

    /// Ids of `text`. Names of special tokens in it become special tokens, as chat templates need;
    /// `add_special` adds those that the tokenizer itself puts around a text (templates write theirs already).
    /// Takes milliseconds per 100 kB: keep it off latency-critical threads.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, FormatError> {
        let ids = guard("encoding", || {
            let encoding = self.inner.library.encode_fast(text, add_special).map_err(|e| e.to_string())?;
            Ok(encoding.get_ids().to_vec())
        });
        ids.map_err(|problem| FormatError::invalid(FILE, "encode", problem))
    }

    /// Text of `ids` without special tokens; bytes that are not UTF-8 become U+FFFD, unknown ids nothing.
    /// Exactly what a [`DecodeStream`] gives piece by piece.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = self.decode_stream();
        let mut text: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
        text.push_str(&stream.finish());
        text
    }

    /// A decoder for ids that arrive one by one.
    pub fn decode_stream(&self) -> DecodeStream {
        DecodeStream::new(self.clone())
    }

    /// Bytes that one token adds to a text, also of special tokens (their names); none for an id without a token.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.inner.table.bytes(id)
    }

    /// Whether the token is special: never shown, never made of user text unless named in it.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.table.is_special(id)
    }

    /// The id of a token by its exact name, such as `<|im_end|>`.
    pub fn token_id(&self, name: &str) -> Option<u32> {
        self.inner.library.token_to_id(name)
    }

    /// Largest id + 1. The model's vocabulary must be at least this; it is often padded beyond.
    pub fn vocab_size(&self) -> usize {
        self.inner.table.len()
    }

    /// The vocabulary as constrained decoding needs it. `eos_ids` may follow a finished value; `vocab` is the model's
    /// vocabulary size, the length of the masks. Takes tens of milliseconds: make it once.
    pub fn tok_env(&self, eos_ids: &[u32], vocab: usize) -> Result<TokEnv, FormatError> {
        if vocab < self.vocab_size() {
            let problem = format!("has ids up to {}, the model only {vocab}", self.vocab_size() - 1);
            return Err(FormatError::invalid(FILE, "vocab", problem));
        }
        TokEnv::new(self, eos_ids, vocab)
    }

    fn first(&self) -> First {
        self.inner.table.first()
    }
}

/// Runs `f`, a call into the tokenizer library, and turns its panic into an error.
fn guard<T>(doing: &str, f: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(problem)) => Err(format!("{doing} failed: {}", quoted(&problem))),
        Err(_) => Err(format!("{doing} failed: the file contradicts itself")),
    }
}
