//! Packed weights that the server keeps.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tiger_server::{App, Config};

use crate::harness::{Options, config};

/// Starts a server that loads Tiny, waits until `path` has more than `bytes`, and stops it.
async fn start(config: &Config, path: &Path, bytes: u64) {
    let app = App::open(config.clone()).await.expect("app");
    for _ in 0..1000 {
        if std::fs::metadata(path).is_ok_and(|file| file.len() > bytes) {
            app.close().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{} was not written", path.display());
}

#[tokio::test(flavor = "multi_thread")]
async fn packed_weights_are_kept_and_mended() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let mut config = config(dir.path(), &Options::default());
    config.precision = tiger_model::Precision::Int8;
    config.packed_min_bytes = 0;
    config.preload = vec!["Tiny".to_owned()];
    let path: PathBuf = dir.path().join("tiny/tiger-int8.packed");
    start(&config, &path, 0).await;
    let first = std::fs::read(&path).expect("file");
    std::fs::write(&path, b"bad").expect("file");
    start(&config, &path, 3).await;
    assert!(std::fs::read(&path).expect("file") == first);
    // Where the checkpoint's folder takes no file, the data directory does.
    std::fs::remove_file(&path).expect("file");
    std::fs::create_dir(&path).expect("folder");
    let other = dir.path().join("packed/tiny-int8.packed");
    start(&config, &other, 0).await;
    assert!(std::fs::read(&other).expect("file") == first);
}
