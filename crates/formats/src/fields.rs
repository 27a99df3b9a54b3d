//! Reading small JSON files field by field, so that every refusal names file, field and value.
//! Does not know which fields a file should have.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{FormatError, quoted};

/// Name of `path` for error messages: its last part, since folders are the operator's business.
pub(crate) fn file_label(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Opens a regular file. A pipe or device would block or never end.
pub(crate) fn open_regular(path: &Path) -> Result<File, FormatError> {
    let label = file_label(path);
    let metadata = std::fs::metadata(path).map_err(|e| FormatError::io(&label, e))?;
    if !metadata.is_file() {
        return Err(FormatError::invalid(&label, "file", "is not a regular file"));
    }
    File::open(path).map_err(|e| FormatError::io(&label, e))
}

/// Whole content of a regular file of at most `max_bytes`.
pub(crate) fn read_limited(path: &Path, max_bytes: u64) -> Result<Vec<u8>, FormatError> {
    let label = file_label(path);
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells "too long" from "exactly full" even when the file grows meanwhile.
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| FormatError::io(&label, e))?;
    if bytes.len() as u64 > max_bytes {
        return Err(FormatError::invalid(&label, "file", format!("is larger than {max_bytes} bytes")));
    }
    Ok(bytes)
}

/// Like [`read_limited`], but `None` when the file does not exist.
pub(crate) fn read_optional(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, FormatError> {
    match read_limited(path, max_bytes) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FormatError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(other),
    }
}

/// A JSON object whose keys must differ: with a repeated key two readers may see two different files.
pub(crate) struct UniqueMap<T>(pub(crate) BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueVisitor<T> {
            type Value = UniqueMap<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(key) = access.next_key::<String>()? {
                    let value = access.next_value()?;
                    if let Some(name) = insert_new(&mut map, key, value) {
                        return Err(serde::de::Error::custom(format_args!("repeated key {}", quoted(&name))));
                    }
                }
                Ok(UniqueMap(map))
            }
        }
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

/// Inserts a new key, or gives the key back when it is already there.
fn insert_new<T>(map: &mut BTreeMap<String, T>, key: String, value: T) -> Option<String> {
    if map.contains_key(&key) {
        return Some(key);
    }
    map.insert(key, value);
    None
}

/// The fields of one JSON object; `prefix` is the path to a nested one.
pub(crate) struct Fields<'a> {
    file: &'a str,
    prefix: String,
    map: &'a Map<String, Value>,
}

/// Parses `bytes` as a JSON object.
pub(crate) fn parse_object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, FormatError> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(FormatError::invalid(file, "file", "must be a JSON object")),
        Err(e) => Err(FormatError::invalid(file, "file", format!("is not JSON: {e}"))),
    }
}

impl<'a> Fields<'a> {
    pub(crate) fn new(file: &'a str, map: &'a Map<String, Value>) -> Self {
        Self { file, prefix: String::new(), map }
    }

    /// Path of a field for error messages.
    pub(crate) fn path(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// The value, where JSON's null counts as absent, as in Python's configs.
    pub(crate) fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    /// Whether the field is written, be it null.
    pub(crate) fn names(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    pub(crate) fn invalid(&self, field: &str, problem: impl Into<String>) -> FormatError {
        FormatError::invalid(self.file, &self.path(field), problem)
    }

    pub(crate) fn unsupported(&self, field: &str, problem: impl Into<String>, supported: &str) -> FormatError {
        FormatError::unsupported(self.file, &self.path(field), problem, supported)
    }

    fn wrong(&self, field: &str, value: &Value, wanted: &str) -> FormatError {
        self.invalid(field, format!("is {}, must be {wanted}", quoted(&value.to_string())))
    }

    pub(crate) fn object(&self, field: &str) -> Result<Option<Fields<'a>>, FormatError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Fields { file: self.file, prefix: format!("{}.", self.path(field)), map })),
            Some(other) => Err(self.wrong(field, other, "an object or null")),
        }
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, FormatError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(field, other, "a string or null")),
        }
    }

    pub(crate) fn flag(&self, field: &str) -> Result<Option<bool>, FormatError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.wrong(field, other, "true, false or null")),
        }
    }

    pub(crate) fn integer(&self, field: &str, range: RangeInclusive<u64>) -> Result<Option<usize>, FormatError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if range.contains(&n) => Ok(Some(n as usize)),
            _ => Err(self.wrong(field, value, &format!("an integer from {} to {}", range.start(), range.end()))),
        }
    }

    pub(crate) fn required_integer(&self, field: &str, range: RangeInclusive<u64>) -> Result<usize, FormatError> {
        self.integer(field, range)?.ok_or_else(|| self.invalid(field, "is missing"))
    }

    pub(crate) fn number(&self, field: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, FormatError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_f64() {
            Some(x) if range.contains(&x) => Ok(Some(x)),
            _ => Err(self.wrong(field, value, &format!("a number from {:e} to {:e}", range.start(), range.end()))),
        }
    }

    pub(crate) fn required_number(&self, field: &str, range: RangeInclusive<f64>) -> Result<f64, FormatError> {
        self.number(field, range)?.ok_or_else(|| self.invalid(field, "is missing"))
    }

    /// One token id or a list of at most `max` of them; absent gives an empty list.
    pub(crate) fn token_ids(&self, field: &str, max: usize) -> Result<Vec<u32>, FormatError> {
        let wanted = format!("a token id or a list of at most {max}");
        let one = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let Some(value) = self.get(field) else { return Ok(Vec::new()) };
        let ids = match value {
            Value::Array(list) if list.len() <= max => list.iter().map(one).collect(),
            other => one(other).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(field, value, &wanted))
    }
}
