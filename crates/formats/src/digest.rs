//! Content ids of files. Does not know what a file contains.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::FormatError;
use crate::fields::{file_label, open_regular};

/// Read size, bytes: large enough that system calls cost nothing, small enough for a stack of parallel hashes.
const BUFFER_BYTES: usize = 1 << 18;

/// SHA-256 of a file's content, 64 lower-case hexadecimal digits. Streams, so the file may be larger than memory.
pub fn sha256_file(path: &Path) -> Result<String, FormatError> {
    let file = open_regular(path)?;
    hash(file).map_err(|e| FormatError::io(&file_label(path), e))
}

/// SHA-256 of `bytes`, as [`sha256_file`] writes it.
pub fn sha256_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hash(mut file: File) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}
