//! Files mapped into memory. Does not know what is in them.

use std::path::Path;

use memmap2::Mmap;

use crate::error::FormatError;
use crate::fields::{file_label, open_regular};

/// Bytes of any owner: a mapping, a vector, a static slice.
pub(crate) struct AnyBytes(Box<dyn AsRef<[u8]> + Send + Sync>);

impl AnyBytes {
    pub(crate) fn new(bytes: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        AnyBytes(Box::new(bytes))
    }
}

impl AsRef<[u8]> for AnyBytes {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

/// Maps a regular file. It must not be changed or cut while it is open (model folders are written once and then only read); cutting it makes
/// later reads fault, as with any mapping.
pub(crate) fn map_file(path: &Path) -> Result<Mmap, FormatError> {
    let file = open_regular(path)?;
    // SAFETY: the mapping is read-only and private to its owner. The remaining duty, that nobody truncates the
    // file, is the operator's and is stated above; there is no way to hold a model larger than memory otherwise.
    unsafe { Mmap::map(&file) }.map_err(|e| FormatError::io(&file_label(path), e))
}
