//! The key-value part of a GGUF file, as bytes. Does not know which keys there are.

/// Types of values in the file.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
enum Kind {
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    Text = 8,
    Array = 9,
}

/// Pairs, in the order in which they were put.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    pub(super) count: u64,
    pub(super) bytes: Vec<u8>,
}

impl Metadata {
    fn begin(&mut self, key: &str, kind: Kind) {
        self.count += 1;
        put_text(&mut self.bytes, key);
        self.bytes.extend_from_slice(&(kind as u32).to_le_bytes());
    }

    fn begin_array(&mut self, key: &str, kind: Kind, length: usize) {
        self.begin(key, Kind::Array);
        self.bytes.extend_from_slice(&(kind as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(length as u64).to_le_bytes());
    }

    /// A pair as it lies in another file of version 2 or 3.
    pub(super) fn raw(&mut self, pair: &[u8]) {
        self.count += 1;
        self.bytes.extend_from_slice(pair);
    }

    pub(super) fn u32(&mut self, key: &str, value: u32) {
        self.begin(key, Kind::U32);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn f32(&mut self, key: &str, value: f32) {
        self.begin(key, Kind::F32);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn bool(&mut self, key: &str, value: bool) {
        self.begin(key, Kind::Bool);
        self.bytes.push(u8::from(value));
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.begin(key, Kind::Text);
        put_text(&mut self.bytes, value);
    }

    pub(super) fn texts(&mut self, key: &str, values: &[String]) {
        self.begin_array(key, Kind::Text, values.len());
        values.iter().for_each(|value| put_text(&mut self.bytes, value));
    }

    pub(super) fn i32s(&mut self, key: &str, values: &[i32]) {
        self.begin_array(key, Kind::I32, values.len());
        values.iter().for_each(|value| self.bytes.extend_from_slice(&value.to_le_bytes()));
    }
}

/// Length, then UTF-8.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
