//! Files of packed weights: what was written comes back, and nothing else does.

use std::fs::File;
use std::path::Path;

use tiger_formats::packed::{Block, Contents, PackedFile, write};
use tiger_formats::{Checkpoint, FormatError};

use crate::support::{architecture, llama_config, noise, put, weights};

const SIZES: [usize; 3] = [10_000, 1, 4096];

fn contents() -> Contents {
    let block = |(i, bytes)| Block { name: format!("block {i}"), form: "int8".to_owned(), bytes };
    let blocks = SIZES.iter().map(|&size| size as u64).enumerate().map(block).collect();
    Contents { layout: "panels".to_owned(), source: "abc".to_owned(), blocks }
}

/// Writes three blocks, the first in two pieces; returns their bytes.
fn keep(path: &Path, seed: u32) -> Vec<Vec<u8>> {
    let blocks: Vec<Vec<u8>> = SIZES.iter().map(|&size| noise(size, seed + size as u32)).collect();
    let pieces = vec![vec![&blocks[0][..77], &blocks[0][77..]], vec![&blocks[1][..]], vec![&blocks[2][..]]];
    write(path, &contents(), &pieces).unwrap();
    blocks
}

/// Reads every block in two parts, the second one first.
fn read(path: &Path, expected: &Contents) -> Result<Option<Vec<Vec<u8>>>, FormatError> {
    let Some(file) = PackedFile::open(path, expected)? else { return Ok(None) };
    let block = |block: &Block| {
        let reader = file.block(&block.name)?;
        let mut bytes = vec![0; block.bytes as usize];
        let half = bytes.len() / 2;
        reader.read(half as u64, &mut bytes[half..])?;
        reader.read(0, &mut bytes[..half])?;
        reader.finish().map(|()| bytes)
    };
    expected.blocks.iter().map(block).collect::<Result<_, _>>().map(Some)
}

fn refuses(path: &Path, expected: &Contents, words: &str) {
    let message = read(path, expected).unwrap_err().to_string();
    assert!(message.starts_with("w.packed: ") && message.contains(words), "{message}");
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/w.packed");
    assert!(read(&path, &contents()).unwrap().is_none());
    let blocks = keep(&path, 1);
    assert_eq!(read(&path, &contents()).unwrap().unwrap(), blocks);
    let blocks = keep(&path, 2);
    assert_eq!(read(&path, &contents()).unwrap().unwrap(), blocks);
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["w.packed"], "nothing is left beside it");
}

#[test]
fn a_file_of_anything_else_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.packed");
    keep(&path, 1);
    refuses(&path, &Contents { layout: "rows".to_owned(), ..contents() }, "layout: is \"panels\", this program packs \"rows\"");
    refuses(&path, &Contents { source: "abd".to_owned(), ..contents() }, "source: is another checkpoint");
    let mut other = contents();
    other.blocks.pop();
    refuses(&path, &other, "are 3 instead of 2");
    let mut other = contents();
    other.blocks[1].bytes = 2;
    refuses(&path, &other, "of 1 bytes instead of");
    let mut other = contents();
    other.blocks[1].bytes = u64::MAX;
    refuses(&path, &other, "of 1 bytes instead of");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refuses(&path, &contents(), "is not a regular file");
}

#[test]
fn every_cut_and_every_changed_byte_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.packed");
    let blocks = keep(&path, 1);
    let good = std::fs::read(&path).unwrap();
    for length in (0..good.len()).step_by(101).chain([15, 16, good.len() - 1]) {
        std::fs::write(&path, &good[..length]).unwrap();
        refuses(&path, &contents(), "");
    }
    std::fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    refuses(&path, &contents(), "instead of");
    let (mut refused, mut padding) = (0, 0);
    for at in (0..good.len()).step_by(13) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, bad).unwrap();
        match read(&path, &contents()) {
            Err(_) => refused += 1,
            // Between blocks, where nothing is read.
            Ok(found) => {
                assert_eq!(found.unwrap(), blocks);
                padding += 1;
            }
        }
    }
    assert!(refused * 13 >= SIZES.iter().sum::<usize>() && padding > 0, "{refused} refused, {padding} padding");
    let mut newer = good.clone();
    newer[8] += 1;
    std::fs::write(&path, newer).unwrap();
    refuses(&path, &contents(), "is of version 2, this program reads 1");
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 0x80;
    std::fs::write(&path, flipped).unwrap();
    refuses(&path, &contents(), "block \"block 2\": has the checksum");
}

#[test]
fn a_block_must_be_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.packed");
    keep(&path, 1);
    let file = PackedFile::open(&path, &contents()).unwrap().unwrap();
    let finish = |parts: &[(u64, usize)]| {
        let reader = file.block("block 0")?;
        parts.iter().try_for_each(|&(from, length)| reader.read(from, &mut vec![0; length]))?;
        reader.finish()
    };
    finish(&[(5000, 5000), (0, 5000)]).unwrap();
    finish(&[(0, 5000)]).unwrap_err();
    finish(&[(0, 5000), (5001, 4999)]).unwrap_err();
    finish(&[(0, 5001), (5000, 5000)]).unwrap_err();
    finish(&[(0, 10_001)]).unwrap_err();
    finish(&[(u64::MAX, 2)]).unwrap_err();
    file.block("block 3").unwrap_err();
}

#[test]
fn leftovers_of_the_dead_are_removed_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.packed");
    let alive = File::create(dir.path().join("w.packed.4000000001.tmp")).unwrap();
    alive.lock().unwrap();
    for name in ["w.packed.4000000002.tmp", "w.packed.x.tmp", "v.packed.4000000002.tmp"] {
        put(dir.path(), name, "cut");
    }
    keep(&path, 1);
    let mut names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["v.packed.4000000002.tmp", "w.packed", "w.packed.4000000001.tmp", "w.packed.x.tmp"]);
}

#[test]
fn a_write_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.packed");
    let wrong = write(&path, &contents(), &[vec![&[0; 5]], vec![], vec![]]).unwrap_err();
    assert_eq!(wrong.kind(), std::io::ErrorKind::InvalidInput);
    // A folder cannot be replaced by a file: the last step fails.
    std::fs::create_dir(&path).unwrap();
    let pieces = SIZES.map(|size| vec![0; size]);
    let pieces: Vec<Vec<&[u8]>> = pieces.iter().map(|piece| vec![&piece[..]]).collect();
    write(&path, &contents(), &pieces).unwrap_err();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// The kernel's own folder has no room at all.
#[cfg(target_os = "linux")]
#[test]
fn nothing_is_tried_without_room() {
    let pieces = SIZES.map(|size| vec![0; size]);
    let pieces: Vec<Vec<&[u8]>> = pieces.iter().map(|piece| vec![&piece[..]]).collect();
    let error = write(Path::new("/proc/w.packed"), &contents(), &pieces).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
}

#[test]
fn a_fingerprint_tells_checkpoints_apart() {
    let dir = tempfile::tempdir().unwrap();
    let config = llama_config();
    let tensors = tiger_formats::modules::required_tensors(&architecture(&config));
    let path = dir.path().join("model.safetensors");
    put(dir.path(), "config.json", config.to_string());
    put(dir.path(), "model.safetensors", weights(&tensors));
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let touch = |time| File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    let fingerprint = || Checkpoint::open(dir.path()).unwrap().fingerprint().unwrap();
    touch(time);
    let first = fingerprint();
    assert_eq!(first.len(), 64);
    assert_eq!(fingerprint(), first);
    touch(time + std::time::Duration::from_nanos(1_000));
    assert_ne!(fingerprint(), first, "another time of change");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    touch(time);
    assert_ne!(fingerprint(), first, "other values of the same length at the same time");
    let built_in = Checkpoint::from_bytes(config.to_string().as_bytes(), bytes).unwrap();
    assert_eq!(built_in.fingerprint(), None);
}
