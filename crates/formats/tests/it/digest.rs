//! Content ids against known answers.

use tiger_formats::digest::{sha256_bytes, sha256_file};

use crate::support::{put, refuses};

#[test]
fn known_digests() {
    let dir = tempfile::tempdir().unwrap();
    let million = vec![b'a'; 1_000_000];
    let cases: [(&[u8], &str); 3] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (&million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ];
    for (content, expected) in cases {
        put(dir.path(), "f", content);
        assert_eq!(sha256_file(&dir.path().join("f")).unwrap(), expected);
        assert_eq!(sha256_bytes(content), expected);
    }
    refuses(sha256_file(dir.path()), &["not a regular file"]);
}
