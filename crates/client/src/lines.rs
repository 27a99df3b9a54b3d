//! Cuts a byte stream into lines, wherever the network cut it. Does not know what a line holds.

/// Bytes since the last line end.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The lines that are complete now, empty ones left out.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = line.trim_ascii();
            if !line.is_empty() {
                lines.push(line.to_vec());
            }
        }
        lines
    }

    /// What is left when the stream ends without a line end.
    pub(crate) fn finish(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.rest);
        (!line.trim_ascii().is_empty()).then(|| line.trim_ascii().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_gives_the_same_lines() {
        let text = "{\"a\":\"ä\"}\n\n{\"b\":2}\r\n{\"c\":3}".as_bytes();
        let want: Vec<Vec<u8>> = ["{\"a\":\"ä\"}", "{\"b\":2}", "{\"c\":3}"].iter().map(|s| s.as_bytes().to_vec()).collect();
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                let mut lines = Lines::default();
                let mut got = Vec::new();
                for part in [&text[..cut], &text[cut..second], &text[second..]] {
                    got.extend(lines.push(part));
                }
                got.extend(lines.finish());
                assert_eq!(got, want, "cut at {cut} and {second}");
            }
        }
    }
}
