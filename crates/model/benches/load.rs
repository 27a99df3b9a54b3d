//! Time to load a checkpoint: packed from its safetensors, and read from the file that this leaves. Read once before, so that the disk does not
//! count; give the folder that the file shall lie in.
//!
//! `cargo bench -p tiger-model --bench load -- CHECKPOINT FOLDER [threads]`

#![expect(clippy::unwrap_used, reason = "a benchmark says what is wrong by panicking")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use tiger_formats::Checkpoint;
use tiger_model::{Cpu, Model, PackedFiles, Precision};

/// Reads of which each is printed.
const READS: usize = 3;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let [checkpoint, folder, threads @ ..] = args.as_slice() else { return eprintln!("give a checkpoint and a folder") };
    let threads = threads.first().map_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()), |n| n.parse().unwrap());
    let cpu = Cpu::new(threads, None);
    let (checkpoint, folder) = (Path::new(checkpoint), PathBuf::from(folder));
    for precision in [Precision::Int8, Precision::Int4] {
        let files = PackedFiles { paths: vec![folder.join(format!("{precision:?}.packed"))], min_bytes: 0 };
        let load = || {
            let begin = Instant::now();
            let loaded = files.load(&cpu, &Checkpoint::open(checkpoint).unwrap(), precision, &mut |_| {}).unwrap();
            (loaded, begin.elapsed().as_secs_f64())
        };
        let (packed, seconds) = load();
        let gib = packed.model.bytes() as f64 / f64::from(1 << 30);
        println!("{precision:?}, {threads} threads, {gib:.2} GiB: packed in {seconds:.2} s");
        let begin = Instant::now();
        files.save(&packed.model, &packed.unsaved.unwrap()).unwrap();
        println!("written in {:.2} s", begin.elapsed().as_secs_f64());
        drop::<Model>(packed.model);
        for _ in 0..READS {
            let (loaded, seconds) = load();
            assert!(loaded.unsaved.is_none(), "{:?}", loaded.problems);
            println!("read in {seconds:.2} s");
        }
        std::fs::remove_file(&files.paths[0]).unwrap();
    }
}
