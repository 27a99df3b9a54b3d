//! Files of packed weights: what a program once computed from a checkpoint, kept so that the next start need not compute it again.
//! Knows blocks of bytes with names and checksums, not what the bytes mean, nor when a file is worth writing.
//!
//! Sixteen bytes (magic, version of this container, length of the header), a JSON header, then the blocks, each from a multiple of 4 KiB
//! on. A reader says what it expects, all of it: how bytes are laid out, what they were made from, which blocks of which sizes. A file that
//! says anything else is of no use, so there is nothing else to parse from it than its checksums.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::error::{FormatError, quoted};
use crate::fields::{file_label, open_regular};

const MAGIC: [u8; 8] = *b"TIGERPKD";
/// Of the container; other bytes inside the blocks are for [`Contents::layout`] to tell apart.
const VERSION: u32 = 1;
/// Magic, version, length of the header.
const PREFIX_BYTES: usize = 16;
/// Longest header, bytes: about 10,000 blocks; a model of 1,000 layers has 4,002.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// Where blocks begin: pages of most systems, sectors of all disks.
const ALIGN_BYTES: u64 = 4096;
/// Bytes that must stay free on the disk after writing: databases and logs live there too.
const FREE_MARGIN_BYTES: u64 = 2 << 30;
/// End of the name of a file that is not whole yet.
const UNFINISHED: &str = ".tmp";

/// What a file holds, but for checksums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    /// How bytes lie in blocks, in words that change whenever the bytes would.
    pub layout: String,
    /// What the blocks were made from, see [`crate::Checkpoint::fingerprint`].
    pub source: String,
    /// In the file's order.
    pub blocks: Vec<Block>,
}

/// One block of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Unique name.
    pub name: String,
    /// Type and shape, in words.
    pub form: String,
    /// Length.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    contents: Contents,
    /// CRC-32 (IEEE 802.3) of each block.
    checksums: Vec<u32>,
}

/// An open file that holds what was expected, as far as its header says.
#[derive(Debug)]
pub struct PackedFile {
    label: String,
    file: File,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    name: String,
    offset: u64,
    bytes: u64,
    checksum: u32,
}

impl PackedFile {
    /// Opens `path`; `None` if there is no such file, an error that says what is off if it is not what is `expected`.
    pub fn open(path: &Path, expected: &Contents) -> Result<Option<PackedFile>, FormatError> {
        let label = file_label(path);
        let file = match open_regular(path) {
            Err(FormatError::Io { source, .. }) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            other => other?,
        };
        let length = file.metadata().map_err(|e| FormatError::io(&label, e))?.len();
        let mut start = Vec::new();
        (&file).take((PREFIX_BYTES + MAX_HEADER_BYTES) as u64).read_to_end(&mut start).map_err(|e| FormatError::io(&label, e))?;
        let (places, end) = parse(&label, &start, expected)?;
        if length != end {
            return Err(FormatError::invalid(&label, "file", format!("has {length} bytes instead of {end}; it was cut or changed")));
        }
        Ok(Some(PackedFile { label, file, places }))
    }

    /// Reads the block of this name, one of the expected.
    pub fn block(&self, name: &str) -> Result<BlockReader<'_>, FormatError> {
        let place = self.places.iter().find(|place| place.name == name);
        let place = place.ok_or_else(|| FormatError::invalid(&self.label, &format!("block {}", quoted(name)), "is missing"))?;
        Ok(BlockReader { file: self, place, parts: Mutex::default() })
    }
}

/// Reads one block in parts, in any order and from several threads, and checks it on the way.
#[derive(Debug)]
pub struct BlockReader<'a> {
    file: &'a PackedFile,
    place: &'a Place,
    parts: Mutex<Vec<Part>>,
}

/// A part that was read.
#[derive(Debug)]
struct Part {
    from: u64,
    bytes: u64,
    hasher: crc32fast::Hasher,
}

impl BlockReader<'_> {
    fn wrong(&self, problem: impl Into<String>) -> FormatError {
        FormatError::invalid(&self.file.label, &format!("block {}", quoted(&self.place.name)), problem)
    }

    /// Fills `out` from byte `from` of the block on. The bytes may not be used before [`BlockReader::finish`] has said that they are whole.
    pub fn read(&self, from: u64, out: &mut [u8]) -> Result<(), FormatError> {
        if from.checked_add(out.len() as u64).is_none_or(|end| end > self.place.bytes) {
            return Err(self.wrong("is read beyond its end"));
        }
        if out.is_empty() {
            return Ok(());
        }
        self.file.file.read_exact_at(out, self.place.offset + from).map_err(|e| FormatError::io(&self.file.label, e))?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(out);
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(Part { from, bytes: out.len() as u64, hasher });
        Ok(())
    }

    /// Whether the parts were the whole block, each byte once, with its checksum.
    pub fn finish(self) -> Result<(), FormatError> {
        let mut parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        parts.sort_by_key(|part| part.from);
        let mut whole = crc32fast::Hasher::new();
        let mut next = 0;
        for Part { from, bytes, hasher } in &parts {
            if *from != next {
                return Err(self.wrong(format!("has a part read at byte {from} instead of {next}")));
            }
            whole.combine(hasher);
            next = from + bytes;
        }
        if next != self.place.bytes {
            return Err(self.wrong(format!("was read to byte {next} of {}", self.place.bytes)));
        }
        let found = whole.finalize();
        if found != self.place.checksum {
            let problem = format!("has the checksum {found:08x} instead of {:08x}; it was changed", self.place.checksum);
            return Err(self.wrong(problem));
        }
        Ok(())
    }
}

/// Places of the blocks, and the length of the whole file, from the file's first bytes.
fn parse(label: &str, start: &[u8], expected: &Contents) -> Result<(Vec<Place>, u64), FormatError> {
    let bad = |problem: String| FormatError::invalid(label, "header", problem);
    let (prefix, rest) = start.split_first_chunk::<PREFIX_BYTES>().ok_or_else(|| bad(format!("the file has {} bytes", start.len())))?;
    let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, l0, l1, l2, l3] = *prefix;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != MAGIC {
        return Err(bad("is not that of packed weights".to_owned()));
    }
    let version = u32::from_le_bytes([v0, v1, v2, v3]);
    if version != VERSION {
        return Err(bad(format!("is of version {version}, this program reads {VERSION}")));
    }
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let header = rest.get(..length).ok_or_else(|| bad(format!("is {length} bytes long, {} are there", rest.len())))?;
    let header: Header = serde_json::from_slice(header).map_err(|e| bad(format!("cannot be read: {e}")))?;
    compare(label, &header.contents, expected)?;
    if header.checksums.len() != expected.blocks.len() {
        return Err(bad(format!("has {} checksums for {} blocks", header.checksums.len(), expected.blocks.len())));
    }
    let (offsets, end) = offsets(PREFIX_BYTES + length, expected).ok_or_else(|| bad("names sizes beyond any file".to_owned()))?;
    let places = offsets.into_iter().zip(&expected.blocks).zip(header.checksums);
    Ok((places.map(|((offset, block), checksum)| Place { name: block.name.clone(), offset, bytes: block.bytes, checksum }).collect(), end))
}

/// Says the first difference.
fn compare(label: &str, found: &Contents, expected: &Contents) -> Result<(), FormatError> {
    let invalid = |field: &str, problem: String| Err(FormatError::invalid(label, field, problem));
    if found.layout != expected.layout {
        return invalid("layout", format!("is {}, this program packs {}", quoted(&found.layout), quoted(&expected.layout)));
    }
    if found.source != expected.source {
        return invalid("source", "is another checkpoint, or this one before it was changed".to_owned());
    }
    if found.blocks.len() != expected.blocks.len() {
        return invalid("blocks", format!("are {} instead of {}", found.blocks.len(), expected.blocks.len()));
    }
    match found.blocks.iter().zip(&expected.blocks).find(|(found, expected)| found != expected) {
        None => Ok(()),
        Some((found, expected)) => {
            let say = |block: &Block| format!("{} {} of {} bytes", quoted(&block.name), quoted(&block.form), block.bytes);
            invalid("blocks", format!("one is {} instead of {}", say(found), say(expected)))
        }
    }
}

/// Where the blocks begin behind `header_end`, and where the last one ends; `None` beyond what a file can have.
fn offsets(header_end: usize, contents: &Contents) -> Option<(Vec<u64>, u64)> {
    let mut end = header_end as u64;
    let mut offsets = Vec::with_capacity(contents.blocks.len());
    for block in &contents.blocks {
        let offset = end.checked_next_multiple_of(ALIGN_BYTES)?;
        offsets.push(offset);
        end = offset.checked_add(block.bytes)?;
    }
    Some((offsets, end))
}

/// Writes a file of `contents`, of which `blocks` are the bytes, each in pieces one after the other: into a temporary file beside it, to the
/// disk, then renamed. So `path` is a whole file at any time, however many processes write it; what a crash leaves is removed by the next
/// write. Fails without trying when less than a margin would stay free.
pub fn write(path: &Path, contents: &Contents, blocks: &[Vec<&[u8]>]) -> io::Result<()> {
    let wrong = |problem: &str| io::Error::new(io::ErrorKind::InvalidInput, problem.to_owned());
    let lengths = blocks.iter().map(|pieces| pieces.iter().map(|piece| piece.len() as u64).sum::<u64>());
    if !lengths.eq(contents.blocks.iter().map(|block| block.bytes)) {
        return Err(wrong("the blocks are not of the lengths that the contents name"));
    }
    let checksums = blocks.iter().map(|pieces| {
        let mut hasher = crc32fast::Hasher::new();
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finalize()
    });
    let header = Header { contents: contents.clone(), checksums: checksums.collect() };
    let header = serde_json::to_vec(&header)?;
    if header.len() > MAX_HEADER_BYTES {
        return Err(wrong("the header would be too long"));
    }
    let Some((offsets, end)) = offsets(PREFIX_BYTES + header.len(), contents) else { return Err(wrong("the file would be too long")) };
    let folder = path.parent().ok_or_else(|| wrong("the path has no folder"))?;
    std::fs::create_dir_all(folder)?;
    remove_unfinished(path);
    let free = free_bytes(folder)?;
    if free < end.saturating_add(FREE_MARGIN_BYTES) {
        let problem = format!("{end} bytes are needed and {FREE_MARGIN_BYTES} should stay free, but {free} are");
        return Err(io::Error::new(io::ErrorKind::StorageFull, problem));
    }
    let temporary = Unfinished::new(path)?;
    let mut file = &temporary.file;
    file.write_all(&MAGIC)?;
    file.write_all(&VERSION.to_le_bytes())?;
    file.write_all(&(header.len() as u32).to_le_bytes())?;
    file.write_all(&header)?;
    let mut at = (PREFIX_BYTES + header.len()) as u64;
    for ((pieces, offset), block) in blocks.iter().zip(offsets).zip(&contents.blocks) {
        file.write_all(&[0; ALIGN_BYTES as usize][..(offset - at) as usize])?;
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        at = offset + block.bytes;
    }
    temporary.rename(path)?;
    // The name too must reach the disk; where folders cannot be synced, it will in time.
    File::open(folder).and_then(|folder| folder.sync_all()).or(Ok(()))
}

/// A file being written; removed when dropped before it was renamed. Its lock says that its writer lives.
struct Unfinished {
    file: File,
    path: PathBuf,
    whole: bool,
}

impl Unfinished {
    fn new(target: &Path) -> io::Result<Unfinished> {
        let mut path = target.as_os_str().to_owned();
        path.push(format!(".{}{UNFINISHED}", std::process::id()));
        let path = PathBuf::from(path);
        let busy = || io::Error::new(io::ErrorKind::ResourceBusy, "it is being written already");
        let opened = OpenOptions::new().write(true).create_new(true).open(&path);
        // Another thread of this process is at it, or another process that cleans up.
        let file = opened.map_err(|e| if e.kind() == io::ErrorKind::AlreadyExists { busy() } else { e })?;
        let unfinished = Unfinished { file, path, whole: false };
        // A file system without locks still works, but its leftovers stay.
        match unfinished.file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(busy()),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(unfinished),
        }
    }

    fn rename(mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.whole {
            // Nothing more can be done; the next write tries again.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes what writers of `path` that no longer live have left. What cannot be removed now stays for the next time.
fn remove_unfinished(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let left = file_name.to_str().and_then(|file| file.strip_prefix(name)).is_some_and(|rest| {
            let process = rest.strip_prefix('.').and_then(|rest| rest.strip_suffix(UNFINISHED));
            process.is_some_and(|process| !process.is_empty() && process.bytes().all(|b| b.is_ascii_digit()))
        });
        if left && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Bytes that this user may still write to the disk of `folder`.
fn free_bytes(folder: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// For the fuzz target: any header against one that was expected.
pub(crate) fn fuzz(data: &[u8]) {
    let block = |name: &str, bytes| Block { name: name.to_owned(), form: "int8 [2, 2]".to_owned(), bytes };
    let expected = Contents { layout: "fuzz".to_owned(), source: "0".to_owned(), blocks: vec![block("a", 5000), block("b", 7)] };
    if let Ok((places, end)) = parse("fuzz", data, &expected) {
        assert!(places.len() == 2 && places[0].offset + 5000 <= places[1].offset && places[1].offset + 7 == end);
    }
}
