//! The one error type of this crate. Every message names the file, the field, what is wrong and what would be right.
//! Knows no error codes of any protocol; the caller maps them.

use std::io;

/// Why a file from outside was refused.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file could not be read.
    #[error("{file}: cannot be read: {source}")]
    Io {
        /// File name or path as the caller gave it.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file contradicts its own format or another file of the folder.
    #[error("{file}: {field}: {problem}")]
    Invalid {
        /// File name.
        file: String,
        /// JSON field, tensor name or part of the file.
        field: String,
        /// What is wrong, with the value found and the one expected.
        problem: String,
    },
    /// The file is well formed but asks for something that this program does not do.
    #[error("{file}: {field}: {problem} is not supported; supported: {supported}")]
    Unsupported {
        /// File name.
        file: String,
        /// JSON field or tensor name.
        field: String,
        /// The value found.
        problem: String,
        /// What would be accepted.
        supported: String,
    },
    /// The chat template itself refused the conversation (`raise_exception`): the caller's messages are at fault.
    #[error("the chat template refused the messages: {message}")]
    TemplateRaised {
        /// The template's own words.
        message: String,
    },
    /// The prompt text is not how the text with the response begins, so they must be tokenised in pieces.
    #[error("the chat template renders the prompt differently once a response follows, at byte {common_bytes}")]
    NotAPrefix {
        /// Length of the common beginning, bytes.
        common_bytes: usize,
    },
}

impl FormatError {
    /// A contradiction in `file` at `field`.
    pub(crate) fn invalid(file: &str, field: &str, problem: impl Into<String>) -> Self {
        Self::Invalid { file: file.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    /// A request in `file` at `field` beyond what is `supported`.
    pub(crate) fn unsupported(file: &str, field: &str, problem: impl Into<String>, supported: &str) -> Self {
        Self::Unsupported { file: file.to_owned(), field: field.to_owned(), problem: problem.into(), supported: supported.to_owned() }
    }

    /// The operating system's refusal to read `file`.
    pub(crate) fn io(file: &str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source }
    }
}

/// Longest piece of an untrusted string that an error message quotes, characters: messages end in logs and answers.
const QUOTE_CHARS: usize = 80;

/// `text` for an error message: escaped, in quotes, cut when long.
pub(crate) fn quoted(text: &str) -> String {
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(QUOTE_CHARS).collect();
    if chars.next().is_some() { format!("{head:?}… (cut)") } else { format!("{head:?}") }
}
