//! What a chat of the page must be, what it is searched by, and where in it a search hit. Does not know rows.

use std::collections::HashSet;

use tiger_store::NewChat;
use tiger_wire::ChatDocument;
use tiger_wire::limits::{MAX_CHAT_NODE_ID_CHARS, MAX_CHAT_NODES, MAX_CHAT_TITLE_CHARS};

use crate::error::{ApiError, quoted};
use crate::limits::CHAT_MODEL_CHARS;

/// Characters of an excerpt, and of them those before the hit.
const EXCERPT_CHARS: usize = 80;
const EXCERPT_BEFORE: usize = 30;

/// Checks a document and makes of it what is stored.
pub fn checked(document: &ChatDocument) -> Result<NewChat, ApiError> {
    if document.title.chars().count() > MAX_CHAT_TITLE_CHARS {
        return Err(ApiError::invalid("title", format!("`title` may have {MAX_CHAT_TITLE_CHARS} characters at most")));
    }
    if document.model.chars().count() > CHAT_MODEL_CHARS {
        return Err(ApiError::invalid("model", format!("`model` may have {CHAT_MODEL_CHARS} characters at most")));
    }
    check_tree(document)?;
    Ok(NewChat {
        title: document.title.clone(),
        model: document.model.clone(),
        messages: i64::try_from(document.nodes.len()).unwrap_or(i64::MAX),
        document: serde_json::to_string(document).map_err(ApiError::internal)?,
        search: search_text(document),
    })
}

fn check_tree(document: &ChatDocument) -> Result<(), ApiError> {
    let count = document.nodes.len();
    if count > MAX_CHAT_NODES {
        return Err(ApiError::invalid("nodes", format!("the chat has {count} messages; at most {MAX_CHAT_NODES} are kept")));
    }
    let mut known = HashSet::with_capacity(count);
    for (index, node) in document.nodes.iter().enumerate() {
        let param = |field: &str| format!("nodes[{index}].{field}");
        if node.id.is_empty() || node.id.chars().count() > MAX_CHAT_NODE_ID_CHARS {
            return Err(ApiError::invalid(param("id"), format!("the id of a message must have 1 to {MAX_CHAT_NODE_ID_CHARS} characters")));
        }
        if let Some(parent) = node.parent.as_deref().filter(|parent| !known.contains(parent)) {
            let message = format!("the parent {} is no message that stands earlier; parents come before children", quoted(parent));
            return Err(ApiError::invalid(param("parent"), message));
        }
        if !known.insert(node.id.as_str()) {
            return Err(ApiError::invalid(param("id"), format!("the id {} is used twice", quoted(&node.id))));
        }
    }
    match document.leaf.as_deref().filter(|leaf| !known.contains(leaf)) {
        Some(leaf) => Err(ApiError::invalid("leaf", format!("`leaf` names {}, which is no message of this chat", quoted(leaf)))),
        None => Ok(()),
    }
}

/// Lower case, character by character, so that a part of a text folds to a part of the folded text.
pub fn fold(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

fn search_text(document: &ChatDocument) -> String {
    let texts = std::iter::once(&document.title).chain(document.nodes.iter().map(|node| &node.content));
    texts.map(|text| fold(text)).collect::<Vec<_>>().join("\n")
}

/// The text around the first place where a folded needle is in a message.
pub fn excerpt(document: &ChatDocument, needle: &str) -> Option<String> {
    document.nodes.iter().find_map(|node| excerpt_of(&node.content, needle))
}

fn excerpt_of(text: &str, needle: &str) -> Option<String> {
    let at = fold(text).find(needle)?;
    let mut folded = 0;
    let before = text.chars().take_while(|c| {
        let starts = folded;
        folded += c.to_lowercase().map(char::len_utf8).sum::<usize>();
        starts < at
    });
    let start = before.count().saturating_sub(EXCERPT_BEFORE);
    let mut rest = text.chars().skip(start);
    let piece: String = rest.by_ref().take(EXCERPT_CHARS).collect();
    let words = piece.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(format!("{}{words}{}", if start > 0 { "…" } else { "" }, if rest.next().is_some() { "…" } else { "" }))
}

/// A place in the list as it is handed out, and back.
pub fn cursor(updated: f64, id: &str) -> String {
    format!("{:016x}.{id}", updated.to_bits())
}

/// Reads [`cursor`].
pub fn place(cursor: &str) -> Option<(f64, String)> {
    let (bits, id) = cursor.split_once('.')?;
    let updated = f64::from_bits(u64::from_str_radix(bits, 16).ok()?);
    updated.is_finite().then(|| (updated, id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_text_around_the_hit() {
        let long = format!("{} Straße nach İzmir {}", "x".repeat(100), "y".repeat(100));
        for (text, needle, expected) in [
            ("Short text", "TEXT", Some("Short text".to_owned())),
            ("Short\n\n text", "short", Some("Short text".to_owned())),
            ("Short text", "other", None),
            (&long, "İZMIR", Some(format!("…{} Straße nach İzmir {}…", "x".repeat(17), "y".repeat(44)))),
        ] {
            assert_eq!(excerpt_of(text, &fold(needle)), expected, "{needle}");
        }
    }

    #[test]
    fn a_cursor_comes_back() {
        assert_eq!(place(&cursor(1_764_000_000.125, "chat_a.b")), Some((1_764_000_000.125, "chat_a.b".to_owned())));
        for wrong in ["", "x.y", "7ff0000000000000.x", "12"] {
            assert_eq!(place(wrong).filter(|_| !wrong.starts_with("12")), None, "{wrong}");
        }
    }
}
