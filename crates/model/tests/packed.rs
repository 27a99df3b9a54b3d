//! Packed weights in a file: the second load gives the same bits, and a file that is off in any way is told, ignored and written again.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use tiger_formats::Checkpoint;
use tiger_kernels::Cpu;
use tiger_model::*;
use tiger_testkit::{Tiny, tiny_checkpoint};

/// A tiny checkpoint, last changed in 1970, and a folder for what cannot be written there.
struct Case {
    dir: TempDir,
    cpu: Cpu,
    precision: Precision,
}

impl Case {
    fn new(precision: Precision) -> Case {
        let case = Case { dir: tempfile::tempdir().unwrap(), cpu: Cpu::new(2, None), precision };
        case.make(1);
        case
    }

    fn make(&self, seed: u64) {
        tiny_checkpoint(&self.folder(), &Tiny { seed, ..Tiny::default() }).unwrap();
        let weights = File::options().write(true).open(self.folder().join("model.safetensors")).unwrap();
        weights.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("checkpoint")
    }

    fn files(&self) -> PackedFiles {
        PackedFiles { min_bytes: 0, ..PackedFiles::new(&self.folder(), &self.dir.path().join("data/packed"), "tiny", self.precision) }
    }

    fn load(&self, files: &PackedFiles) -> Loaded {
        let mut told = Vec::new();
        let checkpoint = Checkpoint::open(&self.folder()).unwrap();
        let loaded = files.load(&self.cpu, &checkpoint, self.precision, &mut |done| told.push(done)).unwrap();
        assert_eq!(told[told.len() - 2..], [0.5, 1.0]);
        loaded
    }

    /// Loads what must be in a file.
    fn read(&self, files: &PackedFiles) -> Model {
        let loaded = self.load(files);
        assert_eq!((loaded.problems, loaded.unsaved), (vec![], None));
        loaded.model
    }

    /// Loads what cannot be in a file; for each file that is there one problem of these words. Then keeps it.
    fn pack(&self, files: &PackedFiles, words: &[&str]) -> (Model, Result<PathBuf, String>) {
        let loaded = self.load(files);
        assert_eq!(loaded.problems.len(), words.len(), "{:?}", loaded.problems);
        for (problem, words) in loaded.problems.iter().zip(words) {
            assert!(problem.contains(words), "{problem}");
        }
        let saved = files.save(&loaded.model, &loaded.unsaved.unwrap());
        (loaded.model, saved)
    }

    fn logits(&self, model: &Model) -> Vec<u32> {
        let tokens: Vec<u32> = (0..40).map(|i| i * 5 % 250).collect();
        let pages: Vec<PageId> = (0..tokens.len().div_ceil(PAGE_TOKENS) as u32).map(PageId).collect();
        let segments = [Segment { rows: 0..tokens.len(), start: 0, pages: &pages, adapter: None }];
        let outputs: Vec<usize> = (0..tokens.len()).collect();
        let step = Step { tokens: &tokens, segments: &segments, outputs: &outputs };
        let hidden = model.forward(&self.cpu, &mut Kv::new(model, pages.len()), &step, &mut Workspace::default());
        let mut logits = Vec::new();
        model.logits(&self.cpu, &hidden, &mut logits);
        logits.iter().map(|v| v.to_bits()).collect()
    }
}

fn path_of(saved: Result<PathBuf, String>) -> PathBuf {
    saved.unwrap()
}

/// The bytes of a model's weights, as a file has them.
fn weights(case: &Case, model: &Model) -> Vec<u8> {
    let path = case.dir.path().join("compare");
    let files = PackedFiles { paths: vec![path.clone()], min_bytes: 0 };
    files.save(model, "0").unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn the_second_load_gives_the_same_bits() {
    for precision in [Precision::Int8, Precision::Int4] {
        let case = Case::new(precision);
        let (packed, saved) = case.pack(&case.files(), &[]);
        let name = if precision == Precision::Int8 { "tiger-int8.packed" } else { "tiger-int4.packed" };
        assert_eq!(saved, Ok(case.folder().join(name)));
        let read = case.read(&case.files());
        assert!(weights(&case, &read) == weights(&case, &packed));
        assert_eq!(case.logits(&read), case.logits(&packed));
        assert_eq!((read.bytes(), read.precision()), (packed.bytes(), precision));
        // Each precision has its own file.
        let other = Case { precision: if precision == Precision::Int8 { Precision::Int4 } else { Precision::Int8 }, ..case };
        assert_eq!(other.load(&other.files()).problems, Vec::<String>::new());
        assert!(other.load(&other.files()).unsaved.is_some());
    }
}

#[test]
fn a_file_that_is_off_is_told_ignored_and_written_again() {
    let case = Case::new(Precision::Int8);
    let (first, saved) = case.pack(&case.files(), &[]);
    let path = path_of(saved);
    let good = std::fs::read(&path).unwrap();
    let check = |bad: Vec<u8>, words: &str| {
        std::fs::write(&path, bad).unwrap();
        let (again, saved) = case.pack(&case.files(), &[words]);
        assert_eq!(saved, Ok(path.clone()));
        assert_eq!(case.logits(&again), case.logits(&first));
        assert!(std::fs::read(&path).unwrap() == good);
        case.read(&case.files());
    };
    let changed = |at: usize, by: u8| {
        let mut bad = good.clone();
        bad[at] ^= by;
        bad
    };
    check(Vec::new(), "has 0 bytes");
    check(good[..good.len() - 1].to_vec(), "was cut or changed");
    check(good[..5000].to_vec(), "was cut or changed");
    check(changed(0, 1), "is not that of packed weights");
    check(changed(8, 2), "is of version 3");
    check(changed(4096, 1), "block \"embedding\": has the checksum");
    check(changed(good.len() - 1, 0x10), "has the checksum");
    let text = String::from_utf8_lossy(&good[..4096]).into_owned();
    check(changed(text.find("groups of 32").unwrap() + 10, 1), "layout: is \"revision");
    check(changed(text.find("Int8 [").unwrap() + 6, 1), "blocks: one is");
}

#[test]
fn another_checkpoint_of_the_same_shape_and_time_is_noticed() {
    let case = Case::new(Precision::Int4);
    let (first, _) = case.pack(&case.files(), &[]);
    case.make(2);
    let (second, saved) = case.pack(&case.files(), &["source: is another checkpoint"]);
    saved.unwrap();
    assert_ne!(case.logits(&first), case.logits(&second));
    assert_eq!(case.logits(&case.read(&case.files())), case.logits(&second));
}

#[test]
fn where_the_checkpoint_cannot_be_written_another_folder_is() {
    let case = Case::new(Precision::Int8);
    let mut files = case.files();
    // Below a file there is no folder, whoever asks.
    files.paths[0] = case.folder().join("config.json/tiger-int8.packed");
    let (_, saved) = case.pack(&files, &[]);
    assert_eq!(saved, Ok(case.dir.path().join("data/packed/tiny-int8.packed")));
    case.read(&files);
    // A bad file in the first place is told, and the good one read.
    std::fs::write(case.folder().join("tiger-int8.packed"), "bad").unwrap();
    let loaded = case.load(&case.files());
    assert_eq!((loaded.problems.len(), loaded.unsaved), (1, None));
}

#[test]
fn without_any_place_the_model_loads_all_the_same() {
    let case = Case::new(Precision::Int4);
    let mut files = case.files();
    files.paths = ["a", "b"].map(|name| case.folder().join("config.json").join(name)).to_vec();
    for _ in 0..2 {
        let (model, saved) = case.pack(&files, &[]);
        let problem = saved.unwrap_err();
        assert!(problem.contains("config.json/a: ") && problem.contains("config.json/b: "), "{problem}");
        assert!(!case.logits(&model).is_empty());
    }
    let names = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(names(&case.folder()), 6, "nothing is left in the checkpoint");
}

#[test]
fn small_models_and_floats_have_no_file() {
    let case = Case::new(Precision::Int8);
    assert_eq!(case.load(&PackedFiles { min_bytes: MIN_PACKED_BYTES, ..case.files() }).unsaved, None);
    for precision in [Precision::Bf16, Precision::F32] {
        let case = Case { precision, ..Case::new(precision) };
        assert_eq!(case.load(&case.files()).unsaved, None);
    }
}
