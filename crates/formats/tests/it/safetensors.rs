//! The container: what is written is read, and every contradiction is refused.

use std::collections::BTreeMap;

use tiger_formats::safetensors::{MAX_HEADER_BYTES, TensorData, f32_bytes, write};
use tiger_formats::{Dtype, SafeTensors};

use crate::support::{put, raw_safetensors, refuses};

fn tensor<'a>(name: &str, dtype: Dtype, shape: &[usize], bytes: &'a [u8]) -> TensorData<'a> {
    TensorData { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

#[test]
fn what_is_written_is_read() {
    let floats = f32_bytes(&[1.0, -2.5, f32::MIN_POSITIVE, 4.0, 5.0, 6.0]);
    let tensors = [
        tensor("b", Dtype::F32, &[2, 3], &floats),
        tensor("odd", Dtype::U8, &[3], &[7, 8, 9]),
        tensor("a", Dtype::BF16, &[2], &[0x80, 0x3f, 0x00, 0xc0]),
        tensor("half", Dtype::F16, &[], &[0x00, 0x3c]),
        tensor("empty \"quoted\"", Dtype::F32, &[0, 5], &[]),
    ];
    let metadata = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let mut bytes = Vec::new();
    write(&mut bytes, &tensors, &metadata).unwrap();
    let mut again = Vec::new();
    write(&mut again, &tensors, &metadata).unwrap();
    assert_eq!(bytes, again);

    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "t.safetensors", &bytes);
    let mapped = SafeTensors::open(&dir.path().join("t.safetensors")).unwrap();
    let borrowed = SafeTensors::from_bytes("t", bytes.as_slice()).unwrap();
    assert_eq!(mapped.metadata(), &metadata);
    assert_eq!(mapped.iter().count(), tensors.len());
    for t in &tensors {
        for view in [mapped.tensor(&t.name).unwrap(), borrowed.tensor(&t.name).unwrap()] {
            assert_eq!((view.dtype, view.shape, &*view.bytes), (t.dtype, &t.shape[..], t.bytes));
        }
    }
    assert!(mapped.tensor("c").is_none());
    // "a" and "half" lie at odd addresses behind the three bytes of "odd".
    assert_eq!(mapped.tensor("a").unwrap().to_f32().unwrap(), [1.0, -2.0]);
    assert_eq!(mapped.tensor("half").unwrap().to_f32().unwrap(), [1.0]);
    assert_eq!(mapped.tensor("b").unwrap().to_f32().unwrap()[1], -2.5);
    assert!(mapped.tensor("odd").unwrap().to_f32().is_none());
}

#[test]
fn the_writer_refuses_contradictions() {
    let fails = |tensors: &[TensorData<'_>]| write(Vec::new(), tensors, &BTreeMap::new()).is_err();
    assert!(fails(&[tensor("a", Dtype::F32, &[2], &[0; 4])]));
    assert!(fails(&[tensor("a", Dtype::F32, &[usize::MAX, 2], &[0; 4])]));
    assert!(fails(&[tensor("a", Dtype::U8, &[1], &[0]), tensor("a", Dtype::U8, &[1], &[0])]));
    assert!(fails(&[tensor("__metadata__", Dtype::U8, &[1], &[0])]));
    assert!(!fails(&[]));
}

#[test]
fn contradictory_headers_are_refused() {
    let one = |entry: &str| format!(r#"{{"w":{entry}}}"#);
    let cases: &[(String, usize, &str)] = &[
        ("{".into(), 0, "not a JSON object"),
        ("[]".into(), 0, "an object of tensors"),
        (one(r#"{"dtype":"F4","shape":[1],"data_offsets":[0,1]}"#), 1, "unknown dtype"),
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), 4, "needs 8 bytes, has 4"),
        (one(r#"{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,4]}"#), 4, "too many"),
        (one(r#"{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,4]}"#), 4, "too many"),
        (one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#), 4, "invalid value"),
        (one(r#"{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}"#), 4, "invalid type"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,0]}"#), 4, "outside"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#), 3, "outside the 3 bytes"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}"#), 8, "not a JSON object"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#), 5, "belong to no tensor"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[1,5]}"#), 5, "gap"),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1}"#), 4, "unknown field"),
        (one(r#"{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}"#), 4, "dimensions"),
        (
            r#"{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#.into(),
            2,
            "repeated key",
        ),
        (
            r#"{"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#.into(),
            3,
            "overlaps",
        ),
        (
            r#"{"v":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#.into(),
            2,
            "overlaps",
        ),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, "invalid type"),
        (r#"{"__metadata__":{"a":"1","a":"2"}}"#.into(), 0, "repeated key"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "repeated key"),
    ];
    for (header, data, expected) in cases {
        let bytes = raw_safetensors(header, &vec![0; *data]);
        refuses(SafeTensors::from_bytes("t", bytes), &["t: ", expected]);
    }
}

#[test]
fn bad_lengths_are_refused() {
    let cases: &[(Vec<u8>, &str)] = &[
        (vec![], "0 bytes"),
        (vec![1, 0, 0], "3 bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "at most"),
        ((MAX_HEADER_BYTES as u64 + 1).to_le_bytes().to_vec(), "at most"),
        (9_u64.to_le_bytes().to_vec(), "the file is cut"),
    ];
    for (bytes, expected) in cases {
        refuses(SafeTensors::from_bytes("t", bytes.as_slice()), &[expected]);
    }
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "empty", b"");
    refuses(SafeTensors::open(&dir.path().join("empty")), &["empty"]);
    refuses(SafeTensors::open(&dir.path().join("absent")), &["absent", "cannot be read"]);
    refuses(SafeTensors::open(dir.path()), &["not a regular file"]);
}

#[test]
fn an_empty_file_of_tensors_is_fine() {
    assert_eq!(SafeTensors::from_bytes("t", raw_safetensors("{}  ", b"")).unwrap().iter().count(), 0);
}
