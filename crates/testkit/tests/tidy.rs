//! The house rules that no compiler knows: crate edges, file length, opening comments, forbidden words. They ratchet: the list of old
//! offenders may only shrink. Does not judge style that rustfmt and clippy judge.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines of a file, tests excluded.
const MAX_FILE_LINES: usize = 600;

/// Files over [`MAX_FILE_LINES`], by name. Only ever remove a line here.
const LONG_FILES: [&str; 0] = [];

/// Which crate may depend on which (invariants 1 and 8 of ARCHITECTURE.md are edges that are not here).
const EDGES: [(&str, &[&str]); 10] = [
    ("wire", &[]),
    ("formats", &[]),
    ("kernels", &[]),
    ("model", &["kernels", "formats"]),
    ("engine", &["model", "kernels"]),
    ("store", &[]),
    ("server", &["wire", "formats", "engine", "store", "model"]),
    ("client", &["wire"]),
    ("cli", &["wire", "client", "server", "engine", "store", "formats", "kernels", "model"]),
    ("testkit", &["formats", "kernels", "model"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn rust_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("crates"), root().join("fuzz"), root().join("examples"), root().join("bench")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the walk finds the sources");
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

#[test]
fn crates_depend_only_where_the_house_allows() {
    let allowed: BTreeSet<(String, String)> =
        EDGES.iter().flat_map(|(from, to)| to.iter().map(|to| (from.to_string(), to.to_string()))).collect();
    for (from, _) in EDGES {
        let manifest = std::fs::read_to_string(root().join("crates").join(from).join("Cargo.toml")).unwrap();
        let normal = manifest.split("[dev-dependencies]").next().unwrap();
        for line in normal.lines().filter_map(|line| line.strip_prefix("tiger-")) {
            let to = line.split(['.', ' ', '=']).next().unwrap();
            assert!(
                allowed.contains(&(from.to_string(), to.to_string())),
                "crate {from} may not depend on {to} (house rule: crates/testkit/tests/tidy.rs)"
            );
        }
    }
    let folders: BTreeSet<String> =
        std::fs::read_dir(root().join("crates")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    let known: BTreeSet<String> = EDGES.iter().map(|(from, _)| from.to_string()).collect();
    assert_eq!(folders, known, "a new crate needs a line in EDGES and a reason in ARCHITECTURE.md");
}

#[test]
fn every_file_opens_with_its_job() {
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let opening = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
        assert!(opening.starts_with("//!"), "{} must open with //! and its job", name(&path));
    }
}

#[test]
fn files_stay_short() {
    for path in rust_files() {
        let name = name(&path);
        if name.contains("/tests/") || name.contains("/benches/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.split("\n#[cfg(test)]").next().unwrap().lines().count();
        let excused = LONG_FILES.contains(&name.as_str());
        assert!(lines <= MAX_FILE_LINES || excused, "{name} has {lines} lines (at most {MAX_FILE_LINES}): split it by topic");
        assert!(lines > MAX_FILE_LINES || !excused, "{name} is short now: remove it from LONG_FILES");
    }
}

#[test]
fn forbidden_words_stay_out() {
    // Written in halves so that this file does not find itself.
    let words =
        [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!("), concat!("#[", "ignore"), concat!("#[", "allow(")];
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let found = words.iter().find(|word| line.contains(**word));
            assert!(found.is_none(), "{}:{}: {} is not allowed", name(&path), number + 1, found.unwrap());
        }
    }
}

#[test]
fn unsafe_stays_where_it_is_defended() {
    for path in rust_files() {
        let name = name(&path);
        let room =
            ["crates/kernels/", "crates/formats/src/safetensors", "crates/formats/src/map"].iter().any(|room| name.starts_with(room));
        if room || name.contains("/tests/") || name.contains("fuzz/") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl") {
                let defended = lines[number.saturating_sub(3)..=number].iter().any(|l| l.contains("SAFETY"));
                assert!(defended, "{name}:{}: unsafe outside kernels needs a SAFETY comment", number + 1);
            }
        }
    }
}

/// Sources of the web page: what it is built from, and its journeys.
fn page_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join("playground/src"), root().join("playground/e2e")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| ["ts", "svelte", "css"].iter().any(|known| kind == *known)) {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the walk finds the page");
    files.sort();
    files
}

#[test]
fn the_pages_files_open_with_their_job_and_stay_short() {
    for path in page_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        let opens = ["//", "/*", "<!--"].iter().any(|mark| text.starts_with(mark));
        assert!(opens || name(&path).ends_with(".test.ts"), "{} must open with a comment that says its job", name(&path));
        let lines = text.lines().count();
        assert!(lines <= MAX_FILE_LINES, "{} has {lines} lines (at most {MAX_FILE_LINES}): split it by topic", name(&path));
    }
}

/// The policy of the page runs no inline style or script, and its colours have names.
#[test]
fn the_page_keeps_to_its_tokens() {
    for path in page_files().iter().filter(|path| path.extension().is_some_and(|kind| kind == "svelte")) {
        let text = std::fs::read_to_string(path).unwrap();
        for (number, line) in text.lines().enumerate() {
            for word in [" style=\"", "javascript:"] {
                assert!(!line.contains(word), "{}:{}: {word} is refused by the content policy", name(path), number + 1);
            }
        }
    }
}
