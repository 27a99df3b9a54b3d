//! Tokenizers of both kinds against the reference library, and the stream decoder on any ids.

use proptest::prelude::*;
use serde_json::{Value, json};
use tiger_formats::Tokenizer;

use crate::support::{put, refuses, with};

/// GPT-2's alphabet, written out from its definition.
fn alphabet() -> Vec<char> {
    let mut next = 256;
    let mut stands = |byte: u32| {
        let printable = (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
        let code = if printable { byte } else { next };
        next += u32::from(!printable);
        char::from_u32(code).unwrap()
    };
    (0..256).map(&mut stands).collect()
}

/// Byte-level BPE: token `b` is byte `b`, then a few merges, then added tokens.
pub fn byte_level() -> Value {
    let letters = alphabet();
    let mut vocab: serde_json::Map<String, Value> = letters.iter().enumerate().map(|(i, c)| (c.to_string(), json!(i))).collect();
    let merges = [["h", "e"], ["l", "l"], ["he", "ll"], ["hell", "o"], ["Ġ", "w"], ["ð", "Ł"]];
    for (i, [a, b]) in merges.iter().enumerate() {
        vocab.insert(format!("{a}{b}"), json!(256 + i));
    }
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": [added(262, "<|im_start|>", true), added(263, "<|im_end|>", true), added(264, "<think>", false), added(265, "<|a b|>", false)],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges}
    })
}

/// Metaspace BPE with byte fallback, as Llama 2 and Mistral have it.
fn byte_fallback() -> Value {
    let mut names = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    names.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    names.extend(["▁", "a", "b", "▁a", "ab", "▁ab"].map(str::to_owned));
    let vocab: serde_json::Map<String, Value> = names.iter().enumerate().map(|(i, n)| (n.clone(), json!(i))).collect();
    let special: Vec<Value> = (0..3)
        .map(|id| {
            json!({"id": id, "content": names[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab, "merges": [["▁", "a"], ["a", "b"], ["▁a", "b"]]}
    })
}

fn metaspace() -> Value {
    let decoder = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    with(&byte_fallback(), json!({"decoder": decoder}))
}

pub fn load(json: &Value) -> Tokenizer {
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}

fn reference(json: &Value) -> tokenizers::Tokenizer {
    tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap()
}

#[test]
fn text_becomes_ids_and_back() {
    let tokenizer = load(&byte_level());
    let ids = tokenizer.encode("hello world <|im_end|>", false).unwrap();
    assert_eq!(ids, [259, 260, 111, 114, 108, 100, 32, 263]);
    // Special tokens are not shown; the file's truncation to 4 and padding to 9 are switched off.
    assert_eq!(tokenizer.decode(&ids), "hello world ");
    assert_eq!(tokenizer.vocab_size(), 266);
    assert_eq!((tokenizer.token_id("<|im_end|>"), tokenizer.token_id("nope")), (Some(263), None));
    assert_eq!(tokenizer.token_bytes(259), b"hello");
    assert_eq!(tokenizer.token_bytes(0xF0), [0xF0]);
    assert_eq!(tokenizer.token_bytes(265), b"<|a b|>");
    assert_eq!((tokenizer.token_bytes(266), tokenizer.token_bytes(u32::MAX)), (&b""[..], &b""[..]));
    assert!(tokenizer.is_special(263) && !tokenizer.is_special(264) && !tokenizer.is_special(9999));
    assert_eq!(tokenizer.encode("", false).unwrap(), [0; 0]);

    let fallback = load(&byte_fallback());
    assert_eq!(fallback.encode("a", true).unwrap(), [1, 262]);
    assert_eq!(fallback.encode("a", false).unwrap(), [262]);
    assert_eq!(fallback.token_bytes(262), b" a");
    assert_eq!(fallback.token_bytes(3 + 0xE2), [0xE2]);
}

#[test]
fn text_survives_the_round_trip_as_in_the_reference() {
    let texts = ["hello", " two  spaces ", "naïve 日本語 🐅🐅", "a\nb\t", "ab ab", "", "<think>x</think>", "\u{FFFD}", "Ġ ▁"];
    for json in [byte_level(), byte_fallback(), metaspace()] {
        let (ours, theirs) = (load(&json), reference(&json));
        for text in texts {
            let ids = ours.encode(text, false).unwrap();
            // The library's metaspace decoder leaves byte tokens as names; ours too, since no ByteFallback is listed.
            assert_eq!(ours.decode(&ids), theirs.decode(&ids, true).unwrap(), "{text:?}");
        }
    }
}

/// What Python's library makes of hard texts with a tokenizer of each family (`golden/tokenizers/make.py`).
#[test]
fn every_familys_tokenizer_does_as_python_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../golden/tokenizers");
    let file: Value = serde_json::from_slice(&std::fs::read(folder.join("expected.json")).unwrap()).unwrap();
    let texts = file["texts"].as_array().unwrap();
    let families = file["tokenizers"].as_object().unwrap();
    assert_eq!((families.len(), texts.len()), (6, 58));
    for (name, expected) in families {
        let tokenizer = Tokenizer::from_bytes(&std::fs::read(folder.join(format!("{name}.json"))).unwrap()).unwrap();
        for (text, expected) in texts.iter().zip(expected.as_array().unwrap()) {
            let text = text.as_str().unwrap();
            let ids = |field: &str| expected[field].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect::<Vec<_>>();
            let plain = tokenizer.encode(text, false).unwrap();
            assert_eq!(plain, ids("ids"), "{name} {text:?}");
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids("special"), "{name} {text:?}");
            let decoded = expected["text"].as_str().unwrap();
            assert_eq!(tokenizer.decode(&plain), decoded, "{name} {text:?}");
            // Their stream holds back a whole space before half a character, and U+FFFD at the end for ever; it is never ahead.
            let (mut stream, mut ours, mut theirs) = (tokenizer.decode_stream(), String::new(), String::new());
            for (id, piece) in plain.iter().zip(expected["pieces"].as_array().unwrap()) {
                ours.push_str(&stream.push(*id).unwrap_or_default());
                theirs.push_str(piece.as_str().unwrap_or_default());
                assert!(ours.starts_with(&theirs), "{name} {text:?}: {ours:?} behind {theirs:?}");
            }
            assert_eq!(ours + &stream.finish(), decoded, "{name} {text:?}");
            assert_eq!(theirs, decoded.trim_end_matches(char::REPLACEMENT_CHARACTER), "{name} {text:?}");
        }
    }
}

#[test]
fn a_character_is_never_cut() {
    let tokenizer = load(&byte_level());
    let mut stream = tokenizer.decode_stream();
    // 261 is the first two bytes of every emoji.
    let pieces: Vec<Option<String>> = [104, 261, 144, 133, 263, 0xE6, 104, 0xE6].map(|id| stream.push(id)).to_vec();
    let text = |s: &str| Some(s.to_owned());
    assert_eq!(pieces, [text("h"), None, None, text("🐅"), None, None, text("\u{FFFD}h"), None]);
    assert_eq!(stream.finish(), "\u{FFFD}");
}

proptest! {
    #[test]
    fn pieces_join_to_the_whole(ids in prop::collection::vec(0..300_u32, 0..40)) {
        for (json, byte_level) in [(byte_level(), true), (byte_fallback(), false), (metaspace(), false)] {
            let tokenizer = load_cached(&json, byte_level);
            let mut stream = tokenizer.decode_stream();
            let mut joined: String = ids.iter().filter_map(|&id| stream.push(id)).collect();
            joined.push_str(&stream.finish());
            prop_assert_eq!(&joined, &tokenizer.decode(&ids));
            let shown = ids.iter().filter(|id| !tokenizer.is_special(**id));
            let bytes: Vec<u8> = shown.flat_map(|id| tokenizer.token_bytes(*id).to_vec()).collect();
            if byte_level {
                prop_assert_eq!(&joined, &String::from_utf8_lossy(&bytes));
                prop_assert_eq!(&joined, &reference_cached().decode(&ids, true).unwrap());
            } else if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(text.ends_with(&joined));
            }
        }
    }
}

fn load_cached(json: &Value, is_byte_level: bool) -> Tokenizer {
    static ONCE: std::sync::OnceLock<Tokenizer> = std::sync::OnceLock::new();
    if is_byte_level { ONCE.get_or_init(|| load(json)).clone() } else { load(json) }
}

fn reference_cached() -> &'static tokenizers::Tokenizer {
    static ONCE: std::sync::OnceLock<tokenizers::Tokenizer> = std::sync::OnceLock::new();
    ONCE.get_or_init(|| reference(&byte_level()))
}

#[test]
fn tokenizers_that_cannot_be_followed_are_refused() {
    let far = json!([{"id": 4_000_000_000_u32, "content": "<far>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}]);
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let regex = json!({"type": "Replace", "pattern": {"Regex": "▁"}, "content": " "});
    for (changes, parts) in [
        (json!({"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true}}), &["decoder", "WordPiece", "ByteLevel"][..]),
        (json!({"decoder": null}), &["decoder", "none"]),
        (json!({"decoder": strip}), &["decoder", "Strip", "after Fuse"]),
        (json!({"decoder": regex}), &["decoder", "plain string"]),
        (
            json!({"decoder": {"type": "Sequence", "decoders": [{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}, regex]}}),
            &["decoder"],
        ),
        (json!({"model": {"type": "Nope"}}), &["loading failed"]),
        (json!({"added_tokens": far}), &["added_tokens", "<far>", "4000000000"]),
    ] {
        let json = with(&byte_level(), changes.clone());
        refuses(Tokenizer::from_bytes(json.to_string().as_bytes()), &[&["tokenizer.json"], parts].concat());
    }
    for text in ["", "{}", "[]", "null", "{\"model\":"] {
        refuses(Tokenizer::from_bytes(text.as_bytes()), &["tokenizer.json"]);
    }
    let dir = tempfile::tempdir().unwrap();
    refuses(Tokenizer::open(dir.path()), &["tokenizer.json", "cannot be read"]);
    put(dir.path(), "tokenizer.json", byte_level().to_string());
    assert_eq!(Tokenizer::open(dir.path()).unwrap().vocab_size(), 266);
}
