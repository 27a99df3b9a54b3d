//! The safetensors container: eight bytes of header length, a JSON header, then the tensors' bytes without gaps.
//! Reads from any bytes without copying them. Does not know what a tensor means.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::{FormatError, quoted};
use crate::fields::{UniqueMap, file_label};
use crate::map::{AnyBytes, map_file};

/// Longest header, bytes: about 150,000 tensors; the largest models published have some thousands.
pub const MAX_HEADER_BYTES: usize = 16 << 20;
/// Most dimensions of a tensor; no weight of a decoder has more than two.
pub const MAX_DIMENSIONS: usize = 8;
/// Bytes before the header.
const LENGTH_BYTES: usize = 8;
/// Key of the header that holds free strings instead of a tensor.
const METADATA_KEY: &str = "__metadata__";

/// Element type of a stored tensor. Everything that the format defines in whole bytes is readable, though models
/// and adapters take only the three floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the format's own")]
pub enum Dtype {
    F32,
    F16,
    BF16,
    F64,
    F8E4M3,
    F8E5M2,
    F8E8M0,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Dtype {
    const ALL: [Self; 16] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::F64,
        Self::F8E4M3,
        Self::F8E5M2,
        Self::F8E8M0,
        Self::I64,
        Self::I32,
        Self::I16,
        Self::I8,
        Self::U64,
        Self::U32,
        Self::U16,
        Self::U8,
        Self::Bool,
    ];

    /// Name in the header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::F64 => "F64",
            Self::F8E4M3 => "F8_E4M3",
            Self::F8E5M2 => "F8_E5M2",
            Self::F8E8M0 => "F8_E8M0",
            Self::I64 => "I64",
            Self::I32 => "I32",
            Self::I16 => "I16",
            Self::I8 => "I8",
            Self::U64 => "U64",
            Self::U32 => "U32",
            Self::U16 => "U16",
            Self::U8 => "U8",
            Self::Bool => "BOOL",
        }
    }

    /// Size of one element, bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::BF16 | Self::I16 | Self::U16 => 2,
            Self::F8E4M3 | Self::F8E5M2 | Self::F8E8M0 | Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether models and adapters may hold this type.
    pub fn is_weight(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

/// One tensor of a file, borrowed where it lies there as it is needed. `bytes` are little-endian, row-major and may be unaligned.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: &'a [usize],
    /// Elements; their length is the shape's product times the element size.
    pub bytes: Cow<'a, [u8]>,
}

impl TensorView<'_> {
    /// All elements as f32; `None` for a type that is not F32, F16 or BF16.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        let pairs = || self.bytes.as_chunks::<2>().0.iter();
        match self.dtype {
            Dtype::F32 => Some(self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
            Dtype::F16 => Some(pairs().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()),
            Dtype::BF16 => Some(pairs().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()),
            _ => None,
        }
    }
}

/// What the header says of one tensor, checked.
#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Range in the whole file, bytes.
    range: Range<usize>,
}

/// One tensor's header as written.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The header as written: tensors, and under one reserved key free strings. Names may not repeat.
#[derive(Default)]
struct RawHeader {
    tensors: BTreeMap<String, RawEntry>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeaderVisitor;
        impl<'de> Visitor<'de> for HeaderVisitor {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                let mut has_metadata = false;
                while let Some(name) = access.next_key::<String>()? {
                    if name == METADATA_KEY && !has_metadata {
                        header.metadata = access.next_value::<UniqueMap<String>>()?.0;
                        has_metadata = true;
                    } else if name == METADATA_KEY || header.tensors.contains_key(&name) {
                        return Err(A::Error::custom(format_args!("repeated key {}", quoted(&name))));
                    } else {
                        header.tensors.insert(name, access.next_value()?);
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// A checked safetensors file over bytes `B`: a mapping, an owned vector or a borrowed slice.
#[derive(Debug)]
pub struct SafeTensors<B> {
    bytes: B,
    tensors: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl SafeTensors<Mmap> {
    /// Maps a file. It must not be changed or cut while it is open, as with any mapping.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::from_bytes(&file_label(path), map_file(path)?)
    }
}

impl<B: AsRef<[u8]>> SafeTensors<B> {
    /// Checks the header of `bytes`. `file` is the name for error messages.
    pub fn from_bytes(file: &str, bytes: B) -> Result<Self, FormatError> {
        let (tensors, metadata) = parse_header(file, bytes.as_ref())?;
        Ok(Self { bytes, tensors, metadata })
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.get(name).map(|e| self.view(e))
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().map(|(name, e)| (name.as_str(), self.view(e)))
    }

    /// The file's bytes before the first tensor.
    pub(crate) fn header(&self) -> &[u8] {
        let bytes = self.bytes.as_ref();
        let data = self.tensors.values().map(|e| e.range.start).min().unwrap_or(bytes.len());
        &bytes[..data]
    }

    /// Free strings that the writer left.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The same file with the kind of its bytes forgotten.
    pub(crate) fn boxed(self) -> SafeTensors<AnyBytes>
    where
        B: Send + Sync + 'static,
    {
        SafeTensors { bytes: AnyBytes::new(self.bytes), tensors: self.tensors, metadata: self.metadata }
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> TensorView<'a> {
        // In bounds: `parse_header` compared every range with the length of these same bytes.
        let bytes = Cow::Borrowed(&self.bytes.as_ref()[entry.range.clone()]);
        TensorView { dtype: entry.dtype, shape: &entry.shape, bytes }
    }
}

type Header = (BTreeMap<String, Entry>, BTreeMap<String, String>);

fn parse_header(file: &str, bytes: &[u8]) -> Result<Header, FormatError> {
    let bad = |problem: String| FormatError::invalid(file, "header", problem);
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(bad(format!("the file has {} bytes, a safetensors file has at least 8", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES as u64 {
        return Err(bad(format!("is {length} bytes long, at most {MAX_HEADER_BYTES} are allowed")));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(bad(format!("is {length} bytes long but only {} follow; the file is cut", rest.len())));
    };
    let raw: RawHeader = serde_json::from_slice(header).map_err(|e| bad(format!("is not a JSON object of tensors: {e}")))?;
    let start = LENGTH_BYTES + header.len();
    let mut tensors = BTreeMap::new();
    for (name, raw) in raw.tensors {
        let entry = check_entry(raw, start, data.len())
            .map_err(|problem| FormatError::invalid(file, &format!("tensor {}", quoted(&name)), problem))?;
        tensors.insert(name, entry);
    }
    check_layout(file, &tensors, start..bytes.len())?;
    Ok((tensors, raw.metadata))
}

fn check_entry(raw: RawEntry, start: usize, data_bytes: usize) -> Result<Entry, String> {
    let Some(dtype) = Dtype::ALL.into_iter().find(|d| d.name() == raw.dtype) else {
        return Err(format!("unknown dtype {}", quoted(&raw.dtype)));
    };
    if raw.shape.len() > MAX_DIMENSIONS {
        return Err(format!("has {} dimensions, at most {MAX_DIMENSIONS} are allowed", raw.shape.len()));
    }
    let size = raw.shape.iter().try_fold(dtype.bytes() as u64, |product, &n| product.checked_mul(n));
    let (begin, end) = raw.data_offsets;
    if begin > end || end > data_bytes as u64 {
        return Err(format!("bytes {begin}..{end} lie outside the {data_bytes} bytes of data; the file may be cut"));
    }
    if size != Some(end - begin) {
        let needed = size.map_or("too many".to_owned(), |n| n.to_string());
        return Err(format!("shape {:?} of {} needs {needed} bytes, has {}", raw.shape, raw.dtype, end - begin));
    }
    let shape = raw.shape.iter().map(|&n| usize::try_from(n)).collect::<Result<_, _>>();
    let shape = shape.map_err(|_| "a dimension does not fit this machine".to_owned())?;
    Ok(Entry { dtype, shape, range: start + begin as usize..start + end as usize })
}

/// Tensors must lie one after another from the first data byte to the last: no overlap (two names for one weight
/// would train one and change both), no gap (where a file could hide another file).
fn check_layout(file: &str, tensors: &BTreeMap<String, Entry>, data: Range<usize>) -> Result<(), FormatError> {
    let mut order: Vec<(&String, &Entry)> = tensors.iter().collect();
    order.sort_by_key(|(_, e)| (e.range.start, e.range.end));
    let mut next = data.start;
    for (name, entry) in order {
        if entry.range.start != next {
            let what = if entry.range.start < next { "overlaps the tensor before it" } else { "follows a gap" };
            return Err(FormatError::invalid(file, &format!("tensor {}", quoted(name)), what));
        }
        next = entry.range.end;
    }
    if next != data.end {
        return Err(FormatError::invalid(file, "header", format!("{} bytes belong to no tensor", data.end - next)));
    }
    Ok(())
}

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct TensorData<'a> {
    /// Unique name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Little-endian elements, row-major.
    pub bytes: &'a [u8],
}

/// A tensor to be written, without its elements.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorHead {
    /// Unique name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// Writes tensors in the given order. The bytes depend on nothing but the arguments. Atomicity (temporary file,
/// fsync, rename) is the caller's. Fails with `InvalidInput` when names repeat or a length contradicts its shape.
pub fn write(out: impl Write, tensors: &[TensorData<'_>], metadata: &BTreeMap<String, String>) -> io::Result<()> {
    let head = |t: &TensorData<'_>| TensorHead { name: t.name.clone(), dtype: t.dtype, shape: t.shape.clone() };
    let heads: Vec<TensorHead> = tensors.iter().map(head).collect();
    // All lengths before the first byte.
    for (i, head) in heads.iter().enumerate() {
        check_length(head, tensors[i].bytes)?;
    }
    write_streamed(out, &heads, metadata, |i| Ok(Cow::Borrowed(tensors[i].bytes)))
}

/// The same, with elements that `data` makes, tensor by tensor, when their place in the file is reached.
pub fn write_streamed<'a>(
    mut out: impl Write,
    heads: &[TensorHead],
    metadata: &BTreeMap<String, String>,
    mut data: impl FnMut(usize) -> io::Result<Cow<'a, [u8]>>,
) -> io::Result<()> {
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        header.insert(METADATA_KEY.to_owned(), serde_json::json!(metadata));
    }
    let mut seen = HashSet::new();
    let mut offset = 0;
    for head in heads {
        if head.name == METADATA_KEY || !seen.insert(head.name.as_str()) {
            return Err(wrong(format!("{}: the name is taken", head.name)));
        }
        let size = head.size().ok_or_else(|| wrong(format!("{}: shape {:?} is too large", head.name, head.shape)))?;
        let end = offset + size;
        let entry = serde_json::json!({"dtype": head.dtype.name(), "shape": head.shape, "data_offsets": [offset, end]});
        header.insert(head.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // Spaces after the header align the data to 8 bytes, which other readers of the format expect.
    header.resize(header.len().next_multiple_of(LENGTH_BYTES), b' ');
    if header.len() > MAX_HEADER_BYTES {
        return Err(wrong(format!("the header would be {} bytes, more than {MAX_HEADER_BYTES}", header.len())));
    }
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    for (i, head) in heads.iter().enumerate() {
        let bytes = data(i)?;
        check_length(head, &bytes)?;
        out.write_all(&bytes)?;
    }
    Ok(())
}

impl TensorHead {
    /// Bytes of its elements.
    fn size(&self) -> Option<usize> {
        self.shape.iter().try_fold(self.dtype.bytes(), |product, &n| product.checked_mul(n))
    }
}

fn check_length(head: &TensorHead, bytes: &[u8]) -> io::Result<()> {
    match head.size() == Some(bytes.len()) {
        true => Ok(()),
        false => Err(wrong(format!("{}: shape {:?} does not fit {} bytes", head.name, head.shape, bytes.len()))),
    }
}

fn wrong(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

/// Little-endian bytes of `values`, for [`TensorData::bytes`].
pub fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
