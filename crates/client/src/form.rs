//! An adapter's two files as a form (RFC 7578). Does not know what is in them.

use bytes::Bytes;

/// What a model is made of.
#[derive(Debug, Clone)]
pub struct NewAdapter {
    /// Name of the new model.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The base that the adapter was trained on, id or name.
    pub parent_model: String,
    /// Content of `adapter_config.json`.
    pub config: Vec<u8>,
    /// Content of `adapter_model.safetensors`.
    pub weights: Vec<u8>,
}

impl NewAdapter {
    /// Content type and body.
    pub(crate) fn form(&self) -> (String, Bytes) {
        let parts: [(&str, &[u8]); 5] = [
            ("name", self.name.as_bytes()),
            ("description", self.description.as_bytes()),
            ("parent_model", self.parent_model.as_bytes()),
            ("adapter_config", &self.config),
            ("adapter_model", &self.weights),
        ];
        let free = |edge: &String| !parts.iter().any(|(_, content)| contains(content, edge.as_bytes()));
        let edge = (0u64..).map(|n| format!("tigercity-part-{n:08x}")).find(free).unwrap_or_default();
        let mut body = Vec::with_capacity(self.weights.len() + self.config.len() + (1 << 12));
        for (name, content) in parts {
            body.extend_from_slice(format!("--{edge}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").as_bytes());
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("--{edge}--\r\n").as_bytes());
        (format!("multipart/form-data; boundary={edge}"), Bytes::from(body))
    }
}

/// Whether `part` is in `whole`. Its first byte is rare in weights, so this is one pass.
fn contains(whole: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return true };
    let mut rest = whole;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        if rest[at..].starts_with(part) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_is_in_no_part() {
        let weights = b"xx--tigercity-part-00000000 tigercity-part-0000000".to_vec();
        let adapter =
            NewAdapter { name: "n".into(), description: String::new(), parent_model: "b".into(), config: b"{}".to_vec(), weights };
        let (kind, body) = adapter.form();
        assert_eq!(kind, "multipart/form-data; boundary=tigercity-part-00000001");
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!(text.matches("--tigercity-part-00000001").count(), 6);
        assert!(text.contains("name=\"adapter_model\"\r\n\r\nxx--tigercity-part-00000000"));
    }
}
