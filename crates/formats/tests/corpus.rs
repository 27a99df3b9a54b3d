//! Replays the fuzz corpora (`tests/corpus/<target>/*`, made by `tests/corpus/make.py`): no panic, no large allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use tiger_formats::fuzz::ENTRIES;

/// Most bytes that reading a file may hold at once, and that much more for each byte of the file (JSON values are
/// larger in memory than as text).
const PEAK_BYTES: usize = 1 << 20;
const PEAK_PER_FILE_BYTE: usize = 40;
/// The same for templates, which are programs: the engine's own limit on one repeated string is 100 MB.
const TEMPLATE_PEAK_BYTES: usize = 256 << 20;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, counting what this thread holds.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; the counters are plain cells without
// destructor, so that touching them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.get().saturating_add(layout.size());
        HELD.set(held);
        PEAK.set(PEAK.get().max(held));
        // SAFETY: the caller's duties are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn every_corpus_file_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for (target, entry) in ENTRIES {
        let mut files: Vec<_> = std::fs::read_dir(corpus.join(target)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{target} has only {} files", files.len());
        for file in files {
            let data = std::fs::read(&file).unwrap();
            let before = HELD.get();
            PEAK.set(before);
            let started = std::time::Instant::now(); entry(&data); eprintln!("{} {:?} {}", file.display(), started.elapsed(), PEAK.get()-before);
            let peak = PEAK.get() - before;
            let limit = match target {
                "template" | "tokenizer_config" => TEMPLATE_PEAK_BYTES,
                _ => PEAK_BYTES + PEAK_PER_FILE_BYTE * data.len(),
            };
            assert!(peak < limit, "{} held {peak} bytes", file.display());
        }
    }
}

#[test]
fn the_counter_counts() {
    let before = HELD.get();
    PEAK.set(before);
    drop(vec![1_u8; PEAK_BYTES]);
    assert!(PEAK.get() - before >= PEAK_BYTES);
    assert_eq!(HELD.get(), before);
}
