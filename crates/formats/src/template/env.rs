//! The Jinja environment that chat templates expect: Python's string methods and printing, `tojson`, `raise_exception`.
//! Does not know messages.

use std::fmt;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value, escape_formatter};

use super::json::to_json;

/// Name of the one template in the environment.
pub(super) const NAME: &str = "chat_template";
/// Deepest nesting of macros and recursive loops; published templates have at most three.
const MAX_RECURSION: usize = 50;

/// The message of a template's `raise_exception`, carried as an error's source.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Compiles `source` with the settings that transformers uses.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_recursion_limit(MAX_RECURSION);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_formatter(|out, state, value| match value.kind() {
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from),
        ValueKind::None => out.write_str("None").map_err(Error::from),
        _ => escape_formatter(out, state, value),
    });
    // Prints everything that the template can see.
    env.remove_global("debug");
    env.set_unknown_method_callback(method);
    env.add_filter("tojson", |value: &Value, ensure_ascii: Option<bool>, kwargs: Kwargs| to_json(value, ensure_ascii, &kwargs));
    env.add_filter("trim", |text: &str, chars: Option<&str>| strip(text, chars, Side::BOTH).to_owned());
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
    });
    env.add_template_owned(NAME, replace_generation_tags(source))?;
    Ok(env)
}

/// Turns `{% generation %}…{% endgeneration %}`, which only marks what the assistant wrote, into a plain scope.
/// The signs that trim white space stay.
fn replace_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        rest = &tag[2..];
        // From behind the opening: in `{%}` the two overlap.
        let Some(end) = rest.find("%}") else {
            out.push_str("{%");
            break;
        };
        let inner = &rest[..end];
        let word = inner.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match word {
            "generation" => out.push_str(&format!("{{%{}%}}", inner.replacen(word, "with _generation = true", 1))),
            "endgeneration" => out.push_str(&format!("{{%{}%}}", inner.replacen(word, "endwith", 1))),
            // Only the opening is consumed: what looks like a tag's end may lie inside a string.
            _ => {
                out.push_str("{%");
                continue;
            }
        }
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    out
}

/// Methods of Python strings that pycompat lacks or that differ there; everything else goes to pycompat.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            let side = Side { start: name != "rstrip", end: name != "lstrip" };
            Ok(Value::from(strip(text, chars, side)))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        // Python splits at any run of its own white space.
        "split" if args.is_empty() => Ok(text.split(is_py_space).filter(|word| !word.is_empty()).map(Value::from).collect()),
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text, separator, name == "rpartition")
        }
        "rsplit" => {
            let (separator, most): (&str, Option<i64>) = from_args(args)?;
            rsplit(text, separator, most)
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn partition(text: &str, separator: &str, from_end: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    let split = if from_end { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match split {
        Some((head, tail)) => [head, separator, tail],
        None if from_end => ["", "", text],
        None => [text, "", ""],
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn rsplit(text: &str, separator: &str, most: Option<i64>) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    let mut parts: Vec<&str> = match most.and_then(|n| usize::try_from(n).ok()) {
        Some(n) => text.rsplitn(n.saturating_add(1), separator).collect(),
        None => text.rsplit(separator).collect(),
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}

#[derive(Clone, Copy)]
struct Side {
    start: bool,
    end: bool,
}

impl Side {
    const BOTH: Self = Self { start: true, end: true };
}

fn strip<'a>(text: &'a str, chars: Option<&str>, side: Side) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_py_space(c), |set| set.contains(c));
    let text = if side.start { text.trim_start_matches(drop) } else { text };
    if side.end { text.trim_end_matches(drop) } else { text }
}

/// White space as Python's `str.strip` knows it: Unicode's and the four information separators.
fn is_py_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Python's `str.strip()`.
pub(super) fn py_trim(text: &str) -> &str {
    text.trim_matches(is_py_space)
}

/// Python's `str.rstrip()`.
pub(super) fn py_trim_end(text: &str) -> &str {
    text.trim_end_matches(is_py_space)
}
