//! JSON in and out of templates: values that messages and tools carry, and the `tojson` filter as transformers defines it: Python's
//! `json.dumps` without escaping of HTML. Does not know what is printed.

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// Deepest nesting printed; values come from messages (flat) or from the template's own literals.
const MAX_DEPTH: usize = 64;
/// Widest indentation of one level, characters.
const MAX_INDENT: usize = 16;
/// Longest text printed, bytes: values of a template are small.
const MAX_JSON_BYTES: usize = 1 << 24;

struct Style {
    /// Text of one level's indentation; `None` prints one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

/// A JSON value as templates see it; objects keep their order.
pub(super) fn from_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(whole)) => Value::from(whole),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(fields) => Value::from_pairs(fields.iter().map(|(name, field)| (name.as_str(), from_json(field)))),
    }
}

/// `value` as JSON with the keyword arguments of Python's function.
pub(super) fn to_json(value: &Value, ensure_ascii: Option<bool>, kwargs: &Kwargs) -> Result<String, Error> {
    let indent: Option<Value> = kwargs.get("indent")?;
    let indent = match indent.filter(|v| !v.is_none()) {
        None => None,
        Some(v) => Some(match (v.as_str(), v.as_i64()) {
            (Some(text), _) if text.len() <= MAX_INDENT => text.to_owned(),
            (None, Some(n)) if n <= MAX_INDENT as i64 => " ".repeat(n.max(0) as usize),
            _ => return Err(wrong("tojson: indent must be at most 16 characters")),
        }),
    };
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }, ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(wrong("tojson: separators must be two strings")),
    };
    let by_name: Option<bool> = kwargs.get("ensure_ascii")?;
    let style = Style {
        item_separator: item.to_owned(),
        key_separator: key.to_owned(),
        indent,
        ensure_ascii: ensure_ascii.or(by_name).unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    print(&mut out, value, &style, 0)?;
    Ok(out)
}

fn wrong(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

fn print(out: &mut String, value: &Value, style: &Style, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH || out.len() > MAX_JSON_BYTES {
        return Err(wrong("tojson: the value is too deep or too long"));
    }
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => out.push_str(&value.to_string()),
        ValueKind::Number => {
            let number = f64::try_from(value.clone()).map_err(|_| wrong("tojson: number out of range"))?;
            out.push_str(&py_float(number));
        }
        ValueKind::String => print_string(out, value.as_str().unwrap_or_default(), style.ensure_ascii),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| (None, item)).collect();
            print_group(out, items, style, ('[', ']', depth))?;
        }
        ValueKind::Map => {
            let mut items = Vec::new();
            for key in value.try_iter()? {
                items.push((Some(key_text(&key)?), value.get_item(&key)?));
            }
            if style.sort_keys {
                items.sort_by(|a, b| a.0.cmp(&b.0));
            }
            print_group(out, items, style, ('{', '}', depth))?;
        }
        _ => return Err(wrong("tojson: the value is undefined or not serializable")),
    }
    Ok(())
}

/// Prints the items of a list or map between its brackets at a depth.
fn print_group(
    out: &mut String,
    items: Vec<(Option<String>, Value)>,
    style: &Style,
    (open, close, depth): (char, char, usize),
) -> Result<(), Error> {
    let new_line = |out: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            (0..depth).for_each(|_| out.push_str(indent));
        }
    };
    out.push(open);
    let empty = items.is_empty();
    for (i, (key, item)) in items.into_iter().enumerate() {
        if i > 0 {
            out.push_str(&style.item_separator);
        }
        new_line(out, depth + 1);
        if let Some(key) = key {
            print_string(out, &key, style.ensure_ascii);
            out.push_str(&style.key_separator);
        }
        print(out, &item, style, depth + 1)?;
    }
    if !empty {
        new_line(out, depth);
    }
    out.push(close);
    Ok(())
}

fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Bool => Ok(key.is_true().to_string()),
        ValueKind::Number if key.is_integer() => Ok(key.to_string()),
        _ => Err(wrong("tojson: keys must be strings or integers")),
    }
}

fn print_string(out: &mut String, text: &str, ensure_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' || (ensure_ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Python's `repr` of a float: shortest digits, exponent form below 1e-4 and from 1e16.
fn py_float(x: f64) -> String {
    if x.is_nan() {
        return "NaN".to_owned();
    }
    if x.is_infinite() {
        return if x > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{x:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{x:?}")
}

#[cfg(test)]
mod tests {
    use super::py_float;

    #[test]
    fn floats_print_as_in_python() {
        let cases: [(f64, &str); 9] = [
            (1.0, "1.0"),
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (x, expected) in cases {
            assert_eq!(py_float(x), expected);
        }
    }
}
