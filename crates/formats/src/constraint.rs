//! Constrained decoding: JSON and JSON schemas as masks over the vocabulary.
//! Does not know sampling; computing a mask takes up to milliseconds and belongs on no async thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};
use toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use crate::error::{FormatError, quoted};
use crate::tokenizer::Tokenizer;

/// Longest schema, bytes as compact JSON.
pub const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Deepest nesting of a schema.
const MAX_SCHEMA_DEPTH: usize = 64;
/// Largest count in a schema (`maxLength` and its like): a grammar counts by states.
const MAX_COUNT: u64 = 10_000;
/// Longest token that a mask may allow, bytes; the trie's own limit is 1024.
const MAX_TOKEN_BYTES: usize = 512;
/// Most bytes of all tokens together: the trie's nodes, of which it can number 4 million.
const MAX_TRIE_BYTES: usize = (1 << 22) - 2;
/// White space between JSON tokens: a space, or a line break with its indentation. Without a bound, a weak model that
/// falls into repeating line breaks would fill its whole budget with them.
const WHITE_SPACE: &str = r" |\r?\n[ \t]{0,40}";
/// Name of the thing at fault in errors.
const FILE: &str = "schema";

/// Keywords that are enforced.
const ENFORCED: [&str; 27] = [
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "const",
    "enum",
    "type",
    "items",
    "additionalItems",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "additionalProperties",
    "patternProperties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
];
/// Keywords that describe and restrict nothing.
const DESCRIPTIVE: [&str; 15] = [
    "$anchor",
    "$defs",
    "definitions",
    "$schema",
    "$id",
    "id",
    "$comment",
    "title",
    "description",
    "default",
    "readOnly",
    "writeOnly",
    "examples",
    "deprecated",
    "contentMediaType",
];

/// A tokenizer's vocabulary, prepared for grammars. Make one per model and share it.
pub struct TokEnv {
    factory: ParserFactory,
    vocab: usize,
    eos_ids: Arc<[u32]>,
}

impl std::fmt::Debug for TokEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokEnv").field("vocab", &self.vocab).finish_non_exhaustive()
    }
}

/// The vocabulary as the grammar library asks for it.
struct Vocabulary {
    trie: TokTrie,
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        self.trie.greedy_tokenize(bytes)
    }

    /// Masks only, no forced tokens: the sampled ids stay the model's own choice.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

impl TokEnv {
    pub(crate) fn new(tokenizer: &Tokenizer, eos_ids: &[u32], vocab: usize) -> Result<Self, FormatError> {
        let bad = |field: &str, problem: &str| FormatError::invalid("tokenizer.json", field, problem);
        let Some(&eos) = eos_ids.first() else {
            return Err(bad("eos_token", "is unknown, so constrained responses could never end"));
        };
        if eos_ids.iter().any(|id| *id as usize >= vocab) {
            return Err(bad("eos_token", "lies outside the vocabulary"));
        }
        let mut words = vec![Vec::new(); vocab];
        let mut total_bytes = 0;
        for (id, word) in words.iter_mut().enumerate().take(tokenizer.vocab_size()) {
            let bytes = tokenizer.token_bytes(id as u32);
            let special = tokenizer.is_special(id as u32) || eos_ids.contains(&(id as u32));
            if special {
                // The library's mark of tokens that are not text.
                word.push(TokTrie::SPECIAL_TOKEN_MARKER);
                word.extend_from_slice(format!("<special-{id}>").as_bytes());
            } else if bytes.len() <= MAX_TOKEN_BYTES && bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
                word.extend_from_slice(bytes);
            }
            total_bytes += word.len();
        }
        if total_bytes > MAX_TRIE_BYTES {
            return Err(bad("vocab", "is too large for constrained decoding"));
        }
        let build = || -> Result<ParserFactory, String> {
            let trie = TokTrie::from(&TokRxInfo::new(vocab as u32, eos), &words).with_eos_tokens(eos_ids);
            let env: toktrie::TokEnv = Arc::new(Vocabulary { trie });
            let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
            factory.quiet();
            *factory.limits_mut() = limits();
            Ok(factory)
        };
        let factory = guard(build).map_err(|problem| bad("vocab", &problem))?;
        Ok(Self { factory, vocab, eos_ids: eos_ids.into() })
    }
}

/// A quarter of the library's own limits or less: a schema comes from any caller, and a mask stops the whole batch.
fn limits() -> ParserLimits {
    ParserLimits {
        initial_lexer_fuel: 250_000,
        step_lexer_fuel: 50_000,
        max_lexer_states: 50_000,
        max_grammar_size: 100_000,
        // Runs large expressions over the whole vocabulary at once: seconds for a hostile one.
        precompute_large_lexemes: false,
        // Details would put the response's text into error messages.
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// The state of one constrained response.
pub struct Constraint {
    matcher: Matcher,
    vocab: usize,
    eos_ids: Arc<[u32]>,
}

impl std::fmt::Debug for Constraint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Constraint").field("done", &self.is_done()).finish_non_exhaustive()
    }
}

impl Constraint {
    /// Any JSON object.
    pub fn json_object(env: &TokEnv) -> Result<Self, FormatError> {
        Self::json_schema(env, &json!({"type": "object"}))
    }

    /// A JSON value that the schema accepts. A keyword that cannot be enforced is an error that names it: to ignore it
    /// would promise more than is kept.
    pub fn json_schema(env: &TokEnv, schema: &Value) -> Result<Self, FormatError> {
        Self::of(env, TopLevelGrammar::from_json_schema(enforceable(schema)?))
    }

    /// Any text, but what begins as a call of a tool goes on as one: see [`CallGrammar`].
    pub fn calls(env: &TokEnv, calls: &CallGrammar) -> Result<Self, FormatError> {
        Self::of(env, TopLevelGrammar::from_lark(calls.lark(&enforceable(&calls.schema)?)))
    }

    fn of(env: &TokEnv, grammar: TopLevelGrammar) -> Result<Self, FormatError> {
        let parser = guard(|| env.factory.create_parser(grammar));
        let parser = parser.map_err(|problem| FormatError::invalid(FILE, "$", problem))?;
        let matcher = Matcher::new(Ok(parser));
        match matcher.get_error() {
            Some(problem) => Err(FormatError::invalid(FILE, "$", first_line(&problem))),
            None => Ok(Self { matcher, vocab: env.vocab, eos_ids: Arc::clone(&env.eos_ids) }),
        }
    }

    /// The tokens that may come next: bit `id % 32` of word `id / 32`, ⌈V / 32⌉ words. End-of-sequence tokens are
    /// allowed once the value is complete, and alone when nothing else may follow.
    pub fn mask(&mut self) -> Result<Vec<u32>, FormatError> {
        let mask = guard(|| self.matcher.compute_mask_or_eos()).map_err(stuck)?;
        let mut words = mask.as_slice().to_vec();
        words.resize(self.vocab.div_ceil(32), 0);
        if let (Some(last), rest @ 1..) = (words.last_mut(), self.vocab % 32) {
            *last &= (1 << rest) - 1;
        }
        if words.iter().all(|w| *w == 0) {
            return Err(stuck("no token of this vocabulary can continue the value".to_owned()));
        }
        Ok(words)
    }

    /// Advances by a sampled token, which the last mask must have allowed.
    pub fn accept(&mut self, token: u32) -> Result<(), FormatError> {
        if self.is_done() && self.eos_ids.contains(&token) {
            return Ok(());
        }
        guard(|| self.matcher.consume_token(token)).map_err(stuck)
    }

    /// Whether the value is complete and nothing but an end-of-sequence token may follow.
    pub fn is_done(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }
}

/// A schema that the grammar library will enforce wholly, as it wants it.
fn enforceable(schema: &Value) -> Result<Value, FormatError> {
    if schema.to_string().len() > MAX_SCHEMA_BYTES {
        return Err(FormatError::invalid(FILE, "$", format!("is longer than {MAX_SCHEMA_BYTES} bytes")));
    }
    let Value::Object(map) = schema else {
        return Err(FormatError::invalid(FILE, "$", "must be an object"));
    };
    check_keywords(map, "$", 0)?;
    let mut schema = map.clone();
    schema.insert("x-guidance".to_owned(), json!({"whitespace_pattern": WHITE_SPACE}));
    Ok(Value::Object(schema))
}

/// How a model that may answer in text or call tools writes a call.
#[derive(Debug, Clone, PartialEq)]
pub struct CallGrammar {
    /// JSON schema of one call.
    pub schema: Value,
    /// Marks around each call, with text before it; without marks, a whole answer that begins with a brace is a call.
    pub marks: Option<(&'static str, &'static str)>,
    /// Without marks: an answer that begins with a bracket is a list of calls.
    pub listed: bool,
}

impl CallGrammar {
    /// The grammar in llguidance's dialect of Lark. The marks are fixed words of letters, `<`, `_`, `/` and `>`.
    fn lark(&self, schema: &Value) -> String {
        let Some((open, close)) = self.marks else {
            let list = if self.listed { r#" | SPACE? "[" SPACE? call (SPACE? "," SPACE? call)* SPACE? "]" SPACE?"# } else { "" };
            let bracket = if self.listed { r"\[" } else { "" };
            return format!(
                "start: TEXT? | SPACE? call SPACE?{list}\ncall: %json {schema}\nTEXT: /[ \\t\\r\\n]*[^{{{bracket} \\t\\r\\n](?s:.*)/\nSPACE: /[ \\t\\r\\n]{{1,8}}/\n"
            );
        };
        let (open_re, close) = (open.replace('/', r"\/"), close);
        format!(
            "start: called* REST?\ncalled: opened SPACE? call SPACE? \"{close}\"\nopened[suffix=\"{open}\"]: ANY\ncall: %json {schema}\nANY: /(?s:.*)/\nREST: /(?s:.+)/ & ~/(?s:.*){open_re}(?s:.*)/\nSPACE: /[ \\t\\r\\n]{{1,8}}/\n"
        )
    }
}

fn stuck(problem: String) -> FormatError {
    FormatError::invalid(FILE, "constraint", problem)
}

/// Runs a call into the grammar library, and turns its panic into an error.
fn guard<T, E: std::fmt::Display>(f: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(first_line(&e.to_string())),
        Err(_) => Err("the grammar library failed".to_owned()),
    }
}

fn first_line(problem: &str) -> String {
    let line = problem.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

/// Refuses keywords that would be ignored. Walks only where schemas may stand, so that property names and constant
/// values are not taken for keywords.
fn check_keywords(schema: &Map<String, Value>, path: &str, depth: usize) -> Result<(), FormatError> {
    if depth > MAX_SCHEMA_DEPTH {
        return Err(FormatError::invalid(FILE, path, format!("is nested deeper than {MAX_SCHEMA_DEPTH}")));
    }
    let walk = |value: &Value, path: String| match value {
        Value::Object(map) => check_keywords(map, &path, depth + 1),
        _ => Ok(()),
    };
    for (keyword, value) in schema {
        let here = format!("{path}.{keyword}");
        if !ENFORCED.contains(&keyword.as_str()) && !DESCRIPTIVE.contains(&keyword.as_str()) {
            let field = format!("{path}.{}", keyword.chars().take(60).collect::<String>());
            return Err(FormatError::unsupported(FILE, &field, "this keyword", &ENFORCED.join(", ")));
        }
        match (keyword.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                named.iter().try_for_each(|(name, v)| walk(v, format!("{here}.{name}")))?;
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Value::Array(list)) => {
                list.iter().enumerate().try_for_each(|(i, v)| walk(v, format!("{here}[{i}]")))?;
            }
            ("items" | "additionalItems" | "additionalProperties", v) => walk(v, here)?,
            ("minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties", v)
                if v.as_u64().is_some_and(|n| n > MAX_COUNT) =>
            {
                return Err(FormatError::unsupported(FILE, &here, quoted(&v.to_string()), &format!("at most {MAX_COUNT}")));
            }
            ("$ref", Value::String(target)) if !target.starts_with('#') => {
                return Err(FormatError::unsupported(FILE, &here, quoted(target), "references within the schema (#/…)"));
            }
            _ => {}
        }
    }
    Ok(())
}
