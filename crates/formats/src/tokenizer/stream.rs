//! Text from ids that arrive one by one. Does not know when a response ends.

use super::Tokenizer;
use super::bytes::First;

/// Decodes ids to text pieces that never hold half a character. The pieces and [`Self::finish`] joined are
/// [`Tokenizer::decode`] of all ids. Each push costs the length of its own token.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    tokenizer: Tokenizer,
    /// The start of one character, at most three bytes.
    pending: Vec<u8>,
    /// What is still to be removed at the start of the text.
    first: First,
}

impl DecodeStream {
    pub(super) fn new(tokenizer: Tokenizer) -> Self {
        let first = tokenizer.first();
        Self { tokenizer, pending: Vec::new(), first }
    }

    /// Takes the next id and gives the text that is now certain, if any. Special tokens give nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        if self.tokenizer.is_special(id) || self.tokenizer.token_bytes(id).is_empty() {
            return None;
        }
        let token = self.tokenizer.token_bytes(id);
        match self.first {
            First::Keep => self.pending.extend_from_slice(token),
            First::WholeToken => {
                self.pending.extend(token.iter().filter(|b| **b != b' '));
                self.first = First::Keep;
            }
            First::Strip(count) => {
                let spaces = token.iter().take(count).take_while(|b| **b == b' ').count();
                self.pending.extend_from_slice(&token[spaces..]);
                self.first = if spaces == token.len() { First::Strip(count - spaces) } else { First::Keep };
            }
        }
        let text = take_certain(&mut self.pending);
        (!text.is_empty()).then_some(text)
    }

    /// The end of the ids: what is left becomes U+FFFD.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Takes the bytes that no later byte can change, with U+FFFD for invalid ones, and leaves the start of a character.
fn take_certain(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest = pending.as_slice();
    loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                rest = &[];
                break;
            }
            Err(e) => {
                let (valid, after) = rest.split_at(e.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                rest = after;
                let Some(bad) = e.error_len() else { break };
                text.push(char::REPLACEMENT_CHARACTER);
                rest = &rest[bad..];
            }
        }
    }
    let keep = rest.len();
    pending.drain(..pending.len() - keep);
    text
}
