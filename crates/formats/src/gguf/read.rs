//! The container of a GGUF file: metadata by key, tensors by name. Reads from any bytes without copying them, and trusts none of them.
//! Does not know what a key or a tensor means.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::blocks::TensorType;
use super::{ALIGNMENT, MAGIC};
use crate::error::{FormatError, quoted};
use crate::fields::file_label;
use crate::map::{AnyBytes, map_file};

/// Versions of the container; the first had shorter lengths and is forgotten.
const VERSIONS: [u32; 2] = [2, 3];
/// Most pairs of metadata; real files have under 100.
pub const MAX_PAIRS: u64 = 1 << 12;
/// Most tensors: a model of 1,000 layers has some 12,000.
pub const MAX_TENSORS: u64 = 1 << 16;
/// Longest key and name of a tensor, bytes; the format allows 65,535, and 64 for names.
pub const MAX_NAME_BYTES: u64 = 1 << 10;
/// Most elements of an array: a vocabulary has under a million, its merges likewise.
pub const MAX_ELEMENTS: u64 = 1 << 24;
/// Most dimensions of a tensor, as ggml has.
const MAX_DIMENSIONS: u32 = 4;
/// Largest alignment of tensors, bytes.
const MAX_ALIGNMENT: u64 = 1 << 16;

/// Sizes of the types of values that have one, bytes, by their numbers.
const SCALARS: [(u32, usize); 11] = [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (10, 8), (11, 8), (12, 8)];
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// One value; texts and arrays stay where they lie.
#[derive(Debug, Clone)]
enum Value {
    Scalar(Scalar),
    /// Range in the file, checked to be UTF-8.
    Text(Range<usize>),
    Array {
        kind: u32,
        count: usize,
        range: Range<usize>,
    },
}

#[derive(Debug)]
struct Pair {
    value: Value,
    /// Range of key and value in the file.
    span: Range<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Scalar {
    Integer(i128),
    Float(f64),
    Flag(bool),
}

/// What the file says of one tensor, checked.
#[derive(Debug)]
struct Entry {
    kind: TensorType,
    shape: Vec<usize>,
    /// Range in the whole file, bytes.
    range: Range<usize>,
}

/// One tensor of a file, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct GgufTensor<'a> {
    /// How its values are stored.
    pub kind: TensorType,
    /// Dimensions, outermost first (the file has them the other way round).
    pub shape: &'a [usize],
    /// Whole blocks, row by row.
    pub bytes: &'a [u8],
}

/// A checked GGUF file over bytes `B`: a mapping, an owned vector or a borrowed slice.
#[derive(Debug)]
pub struct Gguf<B> {
    label: String,
    bytes: B,
    pairs: BTreeMap<String, Pair>,
    tensors: BTreeMap<String, Entry>,
    /// Where the tensors begin.
    data: usize,
}

impl Gguf<Mmap> {
    /// Maps a file. It must not be changed or cut while it is open, as with any mapping.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::from_bytes(&file_label(path), map_file(path)?)
    }
}

impl<B: AsRef<[u8]>> Gguf<B> {
    /// Checks metadata and tensors' places. `file` is the name for error messages.
    ///
    /// # Errors
    /// What is no GGUF file of version 2 or 3 in little-endian order, what contradicts itself or is cut, and tensors of other types than
    /// [`TensorType::ALL`].
    pub fn from_bytes(file: &str, bytes: B) -> Result<Self, FormatError> {
        let mut cursor = Cursor { file, bytes: bytes.as_ref(), at: 0 };
        let (tensors, pairs) = cursor.start()?;
        let pairs = cursor.pairs(pairs)?;
        let alignment = alignment(file, &pairs)?;
        let raw = cursor.tensors(tensors)?;
        // A file without tensors may end with its metadata.
        let data = cursor.at.next_multiple_of(alignment).min(cursor.bytes.len());
        let tensors = place(file, raw, cursor.bytes.len() - data, alignment)?;
        let tensors = tensors.into_iter().map(|(name, e)| (name, Entry { range: e.range.start + data..e.range.end + data, ..e })).collect();
        Ok(Gguf { label: file.to_owned(), bytes, pairs, tensors, data })
    }

    /// The file's name for error messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The tensor with this name in the file.
    pub fn tensor(&self, name: &str) -> Option<GgufTensor<'_>> {
        self.tensors.get(name).map(|e| self.view(e))
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, GgufTensor<'_>)> {
        self.tensors.iter().map(|(name, e)| (name.as_str(), self.view(e)))
    }

    /// The file's bytes before the first tensor.
    pub(crate) fn header(&self) -> &[u8] {
        &self.bytes.as_ref()[..self.data]
    }

    /// The same file with the kind of its bytes forgotten.
    pub(crate) fn boxed(self) -> Gguf<AnyBytes>
    where
        B: Send + Sync + 'static,
    {
        Gguf { label: self.label, bytes: AnyBytes::new(self.bytes), pairs: self.pairs, tensors: self.tensors, data: self.data }
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> GgufTensor<'a> {
        // In bounds: `place` compared every range with the length of these same bytes.
        GgufTensor { kind: entry.kind, shape: &entry.shape, bytes: &self.bytes.as_ref()[entry.range.clone()] }
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.pairs.get(key).map(|pair| &pair.value)
    }

    /// Keys and values as they lie in the file, of all keys that begin with `prefix`.
    pub(crate) fn raw_pairs(&self, prefix: &str) -> impl Iterator<Item = &[u8]> {
        let pairs = self.pairs.iter().filter(move |(key, _)| key.starts_with(prefix));
        pairs.map(|(_, pair)| &self.bytes.as_ref()[pair.span.clone()])
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    /// A text.
    pub fn text(&self, key: &str) -> Result<Option<&str>, FormatError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Text(range)) => Ok(Some(self.slice(range.clone()))),
            Some(_) => Err(self.wrong(key, "a text")),
        }
    }

    /// A whole number that is not negative.
    pub fn integer(&self, key: &str) -> Result<Option<u64>, FormatError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Scalar(Scalar::Integer(n))) if *n >= 0 => Ok(Some(*n as u64)),
            Some(_) => Err(self.wrong(key, "one whole number, not negative")),
        }
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, FormatError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Scalar(Scalar::Float(x))) if x.is_finite() => Ok(Some(*x)),
            Some(Value::Scalar(Scalar::Integer(n))) => Ok(Some(*n as f64)),
            Some(_) => Err(self.wrong(key, "one finite number")),
        }
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, FormatError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Scalar(Scalar::Flag(flag))) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, FormatError> {
        let Some((count, range)) = self.array(key, "a list of texts", |kind| kind == TEXT)? else { return Ok(None) };
        let mut cursor = Cursor { file: &self.label, bytes: &self.bytes.as_ref()[..range.end], at: range.start };
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            let range = cursor.text(key, u64::MAX)?;
            texts.push(self.slice(range));
        }
        Ok(Some(texts))
    }

    /// A list of numbers, whole or not.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, FormatError> {
        let number = |kind| kind != TEXT && kind != BOOL && kind != ARRAY;
        let Some((count, range)) = self.array(key, "a list of numbers", number)? else { return Ok(None) };
        let Some(Value::Array { kind, .. }) = self.value(key) else { return Ok(None) };
        let size = range.len() / count.max(1);
        let bytes = &self.bytes.as_ref()[range];
        let value = |bytes: &[u8]| match scalar(*kind, bytes) {
            Some(Scalar::Integer(n)) => n as f64,
            Some(Scalar::Float(x)) => x,
            _ => f64::NAN,
        };
        Ok(Some(bytes.chunks_exact(size.max(1)).map(value).collect()))
    }

    fn array(&self, key: &str, wanted: &str, of: impl Fn(u32) -> bool) -> Result<Option<(usize, Range<usize>)>, FormatError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array { kind, count, range }) if of(*kind) => Ok(Some((*count, range.clone()))),
            Some(_) => Err(self.wrong(key, wanted)),
        }
    }

    fn slice(&self, range: Range<usize>) -> &str {
        // Every text was found to be UTF-8 when the file was opened.
        std::str::from_utf8(&self.bytes.as_ref()[range]).unwrap_or_default()
    }

    fn wrong(&self, key: &str, wanted: &str) -> FormatError {
        FormatError::invalid(&self.label, key, format!("must be {wanted}"))
    }
}

fn alignment(file: &str, pairs: &BTreeMap<String, Pair>) -> Result<usize, FormatError> {
    match pairs.get("general.alignment").map(|pair| &pair.value) {
        None => Ok(ALIGNMENT),
        Some(Value::Scalar(Scalar::Integer(n))) if (1..=i128::from(MAX_ALIGNMENT)).contains(n) && n.count_ones() == 1 => Ok(*n as usize),
        Some(_) => Err(FormatError::invalid(file, "general.alignment", format!("must be a power of two up to {MAX_ALIGNMENT}"))),
    }
}

/// A tensor as the file describes it: its offset, and how many bytes it needs.
struct Raw {
    kind: TensorType,
    shape: Vec<usize>,
    offset: u64,
    bytes: u64,
}

/// Every tensor lies within the data and at a multiple of the alignment, and follows the one before it, but for padding: no overlap (two names for
/// one weight would train one and change both), no gap (where a file could hide another file). Ranges are relative to the data.
fn place(file: &str, raw: BTreeMap<String, Raw>, data_bytes: usize, alignment: usize) -> Result<BTreeMap<String, Entry>, FormatError> {
    let mut order: Vec<(&String, &Raw)> = raw.iter().collect();
    order.sort_by_key(|(_, t)| (t.offset, t.bytes));
    let mut next = 0;
    for (name, tensor) in order {
        let bad = |problem: String| FormatError::invalid(file, &format!("tensor {}", quoted(name)), problem);
        let end = tensor.offset.checked_add(tensor.bytes).filter(|end| *end <= data_bytes as u64);
        let Some(end) = end else {
            return Err(bad(format!(
                "needs {} bytes from {} on, but there are {data_bytes} bytes of data; the file may be cut",
                tensor.bytes, tensor.offset
            )));
        };
        if tensor.offset != next {
            return Err(bad(format!("begins at {}, but the tensor before it ends at {next}", tensor.offset)));
        }
        next = end.next_multiple_of(alignment as u64);
    }
    let entry = |t: Raw| Entry { kind: t.kind, shape: t.shape, range: t.offset as usize..(t.offset + t.bytes) as usize };
    Ok(raw.into_iter().map(|(name, t)| (name, entry(t))).collect())
}

/// A number or flag; `bytes` are as long as its type says.
fn scalar(kind: u32, bytes: &[u8]) -> Option<Scalar> {
    let mut wide = [0; 8];
    wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    let spare = 64 - 8 * bytes.len() as u32;
    let signed = (unsigned << (spare % 64)) as i64 >> (spare % 64);
    Some(match kind {
        0 | 2 | 4 | 10 => Scalar::Integer(i128::from(unsigned)),
        1 | 3 | 5 | 11 => Scalar::Integer(i128::from(signed)),
        6 => Scalar::Float(widen(f32::from_bits(unsigned as u32))),
        12 => Scalar::Float(f64::from_bits(unsigned)),
        BOOL if unsigned <= 1 => Scalar::Flag(unsigned == 1),
        _ => return None,
    })
}

/// f32 → the f64 that prints the same, so that 1e-5 stays 1e-5 in what is written of it.
fn widen(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Reads from the front.
struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn invalid(&self, field: &str, problem: impl Into<String>) -> FormatError {
        FormatError::invalid(self.file, field, problem)
    }

    fn take(&mut self, field: &str, count: u64) -> Result<Range<usize>, FormatError> {
        let left = (self.bytes.len() - self.at) as u64;
        if count > left {
            return Err(self.invalid(field, format!("needs {count} bytes, but {left} follow; the file is cut")));
        }
        let start = self.at;
        self.at += count as usize;
        Ok(start..self.at)
    }

    fn u32(&mut self, field: &str) -> Result<u32, FormatError> {
        let range = self.take(field, 4)?;
        Ok(self.bytes[range].iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)))
    }

    fn u64(&mut self, field: &str) -> Result<u64, FormatError> {
        let range = self.take(field, 8)?;
        Ok(self.bytes[range].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn text(&mut self, field: &str, max_bytes: u64) -> Result<Range<usize>, FormatError> {
        let length = self.u64(field)?;
        if length > max_bytes {
            return Err(self.invalid(field, format!("is {length} bytes long, at most {max_bytes} are allowed")));
        }
        let range = self.take(field, length)?;
        match std::str::from_utf8(&self.bytes[range.clone()]) {
            Ok(_) => Ok(range),
            Err(_) => Err(self.invalid(field, "is not UTF-8")),
        }
    }

    fn owned(&mut self, field: &str) -> Result<String, FormatError> {
        let range = self.text(field, MAX_NAME_BYTES)?;
        Ok(String::from_utf8_lossy(&self.bytes[range]).into_owned())
    }

    /// Numbers of tensors and of pairs.
    fn start(&mut self) -> Result<(u64, u64), FormatError> {
        let magic = self.take("file", MAGIC.len() as u64)?;
        if &self.bytes[magic] != MAGIC {
            return Err(self.invalid("file", "is no GGUF file: it does not begin with GGUF"));
        }
        let version = self.u32("version")?;
        if !VERSIONS.contains(&version) {
            let found = if VERSIONS.contains(&version.swap_bytes()) { "big-endian order".to_owned() } else { version.to_string() };
            return Err(FormatError::unsupported(self.file, "version", found, "2, 3, in little-endian order"));
        }
        let (tensors, pairs) = (self.u64("tensor_count")?, self.u64("metadata_kv_count")?);
        for (field, count, max) in [("tensor_count", tensors, MAX_TENSORS), ("metadata_kv_count", pairs, MAX_PAIRS)] {
            if count > max {
                return Err(self.invalid(field, format!("is {count}, at most {max} are allowed")));
            }
        }
        Ok((tensors, pairs))
    }

    fn pairs(&mut self, count: u64) -> Result<BTreeMap<String, Pair>, FormatError> {
        let mut pairs = BTreeMap::new();
        for _ in 0..count {
            let start = self.at;
            let key = self.owned("metadata key")?;
            let field = quoted(&key);
            let kind = self.u32(&field)?;
            let value = self.value(&field, kind)?;
            if pairs.contains_key(&key) {
                return Err(self.invalid("metadata", format!("repeated key {}", quoted(&key))));
            }
            pairs.insert(key, Pair { value, span: start..self.at });
        }
        Ok(pairs)
    }

    fn value(&mut self, key: &str, kind: u32) -> Result<Value, FormatError> {
        let size = |kind: u32| SCALARS.iter().find(|(number, _)| *number == kind).map(|(_, size)| *size);
        if let Some(size) = size(kind) {
            let range = self.take(key, size as u64)?;
            let value = scalar(kind, &self.bytes[range]);
            return value.map(Value::Scalar).ok_or_else(|| self.invalid(key, "must be 0 or 1"));
        }
        match kind {
            TEXT => Ok(Value::Text(self.text(key, u64::MAX)?)),
            ARRAY => {
                let (kind, count) = (self.u32(key)?, self.u64(key)?);
                if count > MAX_ELEMENTS {
                    return Err(self.invalid(key, format!("has {count} elements, at most {MAX_ELEMENTS} are allowed")));
                }
                let start = self.at;
                match size(kind) {
                    Some(size) => {
                        self.take(key, count * size as u64)?;
                    }
                    None if kind == TEXT => {
                        for _ in 0..count {
                            self.text(key, u64::MAX)?;
                        }
                    }
                    None => return Err(FormatError::unsupported(self.file, key, format!("an array of type {kind}"), "numbers, texts")),
                }
                Ok(Value::Array { kind, count: count as usize, range: start..self.at })
            }
            other => Err(self.invalid(key, format!("has type {other}, which the format does not have"))),
        }
    }

    fn tensors(&mut self, count: u64) -> Result<BTreeMap<String, Raw>, FormatError> {
        let mut tensors = BTreeMap::new();
        for _ in 0..count {
            let name = self.owned("tensor name")?;
            let raw = self.tensor(&format!("tensor {}", quoted(&name)))?;
            if tensors.contains_key(&name) {
                return Err(self.invalid("tensors", format!("repeated name {}", quoted(&name))));
            }
            tensors.insert(name, raw);
        }
        Ok(tensors)
    }

    fn tensor(&mut self, field: &str) -> Result<Raw, FormatError> {
        let dimensions = self.u32(field)?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(self.invalid(field, format!("has {dimensions} dimensions, must have 1 to {MAX_DIMENSIONS}")));
        }
        let mut shape = Vec::with_capacity(dimensions as usize);
        for _ in 0..dimensions {
            shape.push(self.u64(field)?);
        }
        // Nothing has no use, and behind a zero sizes without bounds would count as small.
        if shape.contains(&0) {
            return Err(self.invalid(field, format!("has shape {shape:?}, without any values")));
        }
        let (number, offset) = (self.u32(field)?, self.u64(field)?);
        let kind =
            TensorType::of_number(number).map_err(|name| FormatError::unsupported(self.file, field, name, &TensorType::supported()))?;
        let width = kind.block_values() as u64;
        if !shape[0].is_multiple_of(width) {
            let problem = format!("has rows of {} values, {} needs multiples of {width}", shape[0], kind.name());
            return Err(self.invalid(field, problem));
        }
        let values = shape.iter().try_fold(1_u64, |product, n| product.checked_mul(*n));
        let bytes = values.and_then(|values| (values / width).checked_mul(kind.block_bytes() as u64));
        let sizes: Option<Vec<usize>> = shape.iter().rev().map(|n| usize::try_from(*n).ok()).collect();
        let (Some(bytes), Some(shape)) = (bytes, sizes) else {
            return Err(self.invalid(field, format!("shape {shape:?} is too large")));
        };
        Ok(Raw { kind, shape, offset, bytes })
    }
}
