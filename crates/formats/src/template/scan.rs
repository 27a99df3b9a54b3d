//! Refuses the one construct that the engine cannot bound: a namespace that holds itself. Namespaces are the only
//! values of the language that change, so if none is ever used as a whole (only its attributes are), no value can
//! contain itself, and every recursion over values ends. Templates of other files are refused as in transformers,
//! which has none to load. Works on the tags' tokens; does not know what they mean.

use std::collections::HashSet;

/// Why `source` is refused, if it is.
pub(super) fn check(source: &str) -> Result<(), String> {
    let tags = tags(source);
    let mut names = HashSet::new();
    for tag in &tags {
        if let ["import" | "from" | "include" | "extends", ..] = tag[..] {
            return Err(format!("{} of another template is not supported", tag[0]));
        }
        for (i, _) in tag.iter().enumerate().filter(|(i, token)| **token == "namespace" && is_value(tag, *i)) {
            match tag[..] {
                ["set", name, "=", "namespace", "(", ..] if i == 3 => names.insert(name),
                _ => return Err("namespace() is supported only as the value of a set statement".to_owned()),
            };
        }
    }
    for tag in &tags {
        for (i, name) in tag.iter().enumerate().filter(|(_, token)| names.contains(*token)) {
            let is_target = i == 1 && tag[0] == "set";
            let next = tag.get(i + 1).copied();
            if is_value(tag, i) && !is_target && !matches!(next, Some("." | "[")) {
                return Err(format!("the namespace {name} may be used only by its attributes ({name}.x)"));
            }
        }
    }
    Ok(())
}

/// Whether the name at `i` stands for a value, not for an attribute or a keyword argument.
fn is_value(tag: &[&str], i: usize) -> bool {
    let attribute = i > 0 && tag[i - 1] == ".";
    let keyword = i > 0 && matches!(tag[i - 1], "(" | ",") && tag.get(i + 1) == Some(&"=") && tag.get(i + 2) != Some(&"=");
    !attribute && !keyword
}

/// The tokens of every statement and expression of `source`: names, and single characters of everything else but
/// white space and strings.
fn tags(source: &str) -> Vec<Vec<&str>> {
    let mut tags = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else { break };
        match kind {
            '#' => rest = rest.split_once("#}").map_or("", |(_, after)| after),
            '%' | '{' => {
                let (tag, after) = tokens(&rest[1..], if kind == '%' { "%}" } else { "}}" });
                rest = after;
                if tag == ["raw"] || tag == ["-", "raw"] || tag == ["raw", "-"] || tag == ["-", "raw", "-"] {
                    rest = after_raw(rest);
                    continue;
                }
                let signs = tag.iter().take_while(|t| matches!(**t, "-" | "+")).count().min(1);
                tags.push(tag[signs..].to_vec());
            }
            _ => {}
        }
    }
    tags
}

/// What follows the end of a raw block; a block without end is left to the compiler.
fn after_raw(source: &str) -> &str {
    let mut rest = source;
    while let Some((_, after)) = rest.split_once("{%") {
        let inner = after.trim_start_matches(['-', '+']).trim_start();
        if let Some(after) = inner.strip_prefix("endraw") {
            return after;
        }
        rest = after;
    }
    ""
}

/// Tokens up to `end`, outside strings and brackets, and what follows it.
fn tokens<'a>(source: &'a str, end: &str) -> (Vec<&'a str>, &'a str) {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if depth == 0 && rest.starts_with(end) {
            return (tokens, &rest[end.len()..]);
        }
        let length = match c {
            '"' | '\'' => string_length(rest, c),
            c if c.is_alphanumeric() || c == '_' => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if !c.is_whitespace() && c != '"' && c != '\'' {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    (tokens, "")
}

/// Bytes of the string that `source` begins with, both quotes included.
fn string_length(source: &str, quote: char) -> usize {
    let mut escaped = false;
    for (i, c) in source.char_indices().skip(1) {
        if c == quote && !escaped {
            return i + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn namespaces_are_used_by_their_attributes() {
        let good = [
            "{% set ns = namespace(a=1, b='ns') %}{% set ns.a = ns.b ~ x.ns %}{{ ns['a'] }}{{ f(ns=1) }} ns",
            "{%- set ns = namespace() -%}{# ns #}{% raw %}{{ ns }}{% endraw %}{{ 'ns' }}{{ \"\\\"ns\" }}",
            "{{ {'a': {}} }} ns {% set ns = namespace() %}{% set ns = 5 %}",
            "namespace {{ 'namespace' }}{{ x.namespace }}{{ f(namespace=2) }}",
        ];
        for source in good {
            assert_eq!(check(source), Ok(()), "{source}");
        }
        let bad = [
            "{% set ns = namespace() %}{% set ns.ns = ns %}",
            "{% set ns = namespace() %}{% set ns.x = [ns] %}",
            "{%+ set ns = namespace() %}{{ {'a': {}} ~ ns }}",
            "{% raw %}{% endraw %}{% set ns = namespace() %}{{ f(ns) }}",
            "{% for m in [namespace()] %}{% set m.m = m %}{% endfor %}",
            "{% set f = namespace %}",
            "{% set a, b = namespace(), 1 %}",
            "{{ f(x=namespace()) }}",
            "{% set ns = namespace() %}{{ f(a, ns == 1) }}",
            "{% set ns = namespace() %}{{ '\\\\' ~ ns }}",
            "{% import 'chat_template' as m %}",
            "{%- include 'x' %}",
        ];
        for source in bad {
            assert!(check(source).is_err(), "{source}");
        }
    }
}
