//! Replays the fuzz corpora (`tests/corpus/<target>/*`, made by `tests/corpus/make.py`): no panic, no large allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tiger_formats::fuzz::ENTRIES;

/// Most bytes that reading a file may hold at once, and that much more for each byte of the file (JSON values are
/// larger in memory than as text).
const PEAK_BYTES: usize = 1 << 20;
const PEAK_PER_FILE_BYTE: usize = 40;
/// The same for templates, which are programs: the engine's own limit on one repeated string is 100 MB.
const TEMPLATE_PEAK_BYTES: usize = 256 << 20;

/// Bytes held by the process, and the most since the last reset. Templates run on threads of their own, so threads are
/// not told apart; that is why everything here is one test.
static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator; the counters are atomics, so touching them
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's duties are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The most bytes that `f` held beyond those held before.
fn peak_of(f: impl FnOnce()) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    f();
    PEAK.load(Ordering::Relaxed) - before
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn every_corpus_file_is_survived() {
    assert!(peak_of(|| drop(std::hint::black_box(vec![1_u8; PEAK_BYTES]))) >= PEAK_BYTES, "the counter counts");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    for (target, entry) in ENTRIES {
        let mut files: Vec<_> = std::fs::read_dir(corpus.join(target)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= 10, "{target} has only {} files", files.len());
        for file in files {
            let data = std::fs::read(&file).unwrap();
            let peak = peak_of(|| entry(&data));
            let limit = match target {
                "template" | "tokenizer_config" => TEMPLATE_PEAK_BYTES,
                _ => PEAK_BYTES + PEAK_PER_FILE_BYTE * data.len(),
            };
            assert!(peak < limit, "{} held {peak} bytes", file.display());
        }
    }
}
