//! GGUF files read: values bit for bit as PyPI's `gguf` has them (`golden/gguf`), our own files there and back, and refusals by name.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tiger_formats::gguf::small_files;
use tiger_formats::modules::required_tensors;
use tiger_formats::{
    ChatTemplate, Checkpoint, FormatError, GenerationConfig, Gguf, GgufFile, GgufType, Merged, SafeTensors, TensorType, Tokenizer,
};

use crate::support::{put, refuses};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

#[test]
fn blocks_have_the_values_that_others_read() {
    let golden = SafeTensors::open(&root("golden/gguf/blocks.safetensors")).unwrap();
    let quantised: Vec<TensorType> = TensorType::ALL.into_iter().filter(|kind| kind.is_quantised()).collect();
    assert_eq!(2 * quantised.len(), golden.iter().count());
    for kind in quantised {
        let read = |part: &str| golden.tensor(&format!("{}.{part}", kind.name())).unwrap();
        let mut found = Vec::new();
        kind.dequantise(&read("bytes").bytes, &mut found);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&found), bits(&read("values").to_f32().unwrap()), "{}", kind.name());
    }
}

/// A folder with the checkpoint's configuration and a GGUF file of it.
fn folder(base: &Path, kind: GgufType) -> tempfile::TempDir {
    let tokenizer = if base.join("tokenizer.json").exists() { base.to_owned() } else { root("golden/gguf") };
    let checkpoint = Checkpoint::open(base).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let out = std::fs::File::create(dir.path().join("model.gguf")).unwrap();
    GgufFile::new(&Merged::new(&checkpoint, None), &tokenizer, "golden", kind).unwrap().write(out).unwrap();
    std::fs::copy(base.join("config.json"), dir.path().join("config.json")).unwrap();
    dir
}

/// Every golden checkpoint that can be written, and the built-in model.
fn bases() -> Vec<PathBuf> {
    let golden = std::fs::read_dir(root("golden/model")).unwrap().map(|entry| entry.unwrap().path());
    // llama.cpp's Qwen 3 has no biases, and its YaRN no weights of its own.
    let refused = ["qwen3_biases_f32", "llama_yarn_f32", "qwen3_yarn_f32"];
    let written = |path: &PathBuf| path.is_dir() && !refused.iter().any(|name| path.ends_with(name));
    let mut bases: Vec<PathBuf> = golden.filter(written).collect();
    assert!(bases.len() > 10);
    bases.push(root("models/nano/checkpoint"));
    bases
}

#[test]
fn our_own_files_have_the_checkpoint_s_tensors() {
    for base in bases() {
        let (before, dir) = (Checkpoint::open(&base).unwrap(), folder(&base, GgufType::Bf16));
        let after = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(before.architecture(), after.architecture());
        for (name, shape) in required_tensors(before.architecture()) {
            let (a, b) = (before.tensor(&name).unwrap(), after.tensor(&name).unwrap());
            let rounded = |v: f32| if shape.len() == 2 { half::bf16::from_f32(v).to_f32() } else { v };
            let want: Vec<f32> = a.to_f32().unwrap().into_iter().map(rounded).collect();
            assert_eq!(want, b.to_f32().unwrap(), "{}: {name}", base.display());
            assert_eq!(after.head(&name).unwrap(), (b.dtype, b.shape));
        }
    }
}

#[test]
fn a_quantised_tensor_is_made_when_it_is_asked_for() {
    let base = root("models/nano/checkpoint");
    let (before, dir) = (Checkpoint::open(&base).unwrap(), folder(&base, GgufType::Q8_0));
    let after = Checkpoint::open(dir.path()).unwrap();
    assert!(after.total_bytes() < before.total_bytes() * 6 / 10);
    assert_ne!(after.fingerprint().unwrap(), before.fingerprint().unwrap());
    assert_eq!(after.fingerprint(), Checkpoint::open(dir.path()).unwrap().fingerprint());
    for (name, _) in required_tensors(before.architecture()) {
        let (a, b) = (before.tensor(&name).unwrap().to_f32().unwrap(), after.tensor(&name).unwrap().to_f32().unwrap());
        let most = a.iter().fold(0f32, |most, v| most.max(v.abs()));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= most / 200.0), "{name}");
    }
}

#[test]
fn a_file_that_scales_otherwise_than_its_folder_says_is_refused() {
    let dir = folder(&root("golden/model/llama3_rope_f32"), GgufType::Bf16);
    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("config.json"), config.replace("\"llama3\"", "\"linear\"")).unwrap();
    refuses(Checkpoint::open(dir.path()), &["model.gguf", "rope_freqs.weight", "rope_scaling"]);
}

/// The folder that is made of a GGUF file alone.
fn unpacked(file: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in small_files(&Gguf::open(file).unwrap()).unwrap() {
        put(dir.path(), name, content);
    }
    std::fs::copy(file, dir.path().join("model.gguf")).unwrap();
    dir
}

const TEXTS: [&str; 12] = [
    "",
    "a",
    "What is the capital of Spain?",
    " leading and trailing  spaces   ",
    "Tabs\tand\n\nlines\r\nof text\n",
    "it's I'll WE'VE don't",
    "1 22 333 4444 55555 3.14159",
    "naïve café übergrößen Ünïcödé",
    "日本語のテキスト、中文。한국어",
    "🐅🐯 emoji 👩‍👩‍👧",
    "x = [i**2 for i in range(10)]; // !?#$%^&*()",
    "<|system|>Be brief.<|end|><|user|>Hi<|end|>",
];

#[test]
fn our_own_file_makes_the_folder_it_came_from() {
    let base = root("models/nano/checkpoint");
    let dir = unpacked(&folder(&base, GgufType::Bf16).path().join("model.gguf"));
    let (before, after) = (Checkpoint::open(&base).unwrap(), Checkpoint::open(dir.path()).unwrap());
    assert_eq!(before.architecture(), after.architecture());
    assert_eq!((before.config().bos_id, &before.config().eos_ids), (after.config().bos_id, &after.config().eos_ids));
    let (theirs, ours) = (Tokenizer::open(&base).unwrap(), Tokenizer::open(dir.path()).unwrap());
    assert_eq!(theirs.vocab_size(), ours.vocab_size());
    for text in TEXTS {
        for add_special in [false, true] {
            let ids = theirs.encode(text, add_special).unwrap();
            assert_eq!(ids, ours.encode(text, add_special).unwrap(), "{text:?}");
            assert_eq!(theirs.decode(&ids), ours.decode(&ids));
        }
    }
    let source = |dir: &Path| ChatTemplate::open(dir).unwrap().unwrap();
    assert_eq!(source(&base).source(), source(dir.path()).source());
    for name in ["bos_token", "eos_token", "pad_token"] {
        assert_eq!(source(&base).special_token(name), source(dir.path()).special_token(name));
    }
    let advice = |dir: &Path| GenerationConfig::open(dir, 2048).unwrap().unwrap().eos_ids;
    assert_eq!(advice(&base), advice(dir.path()));
}

#[test]
fn every_shape_comes_back() {
    for base in bases() {
        let dir = unpacked(&folder(&base, GgufType::Q8_0).path().join("model.gguf"));
        let (before, after) = (Checkpoint::open(&base).unwrap(), Checkpoint::open(dir.path()).unwrap());
        assert_eq!(before.architecture(), after.architecture(), "{}", base.display());
    }
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(root(path)).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn pieces_are_what_llama_cpp_and_sentencepiece_make() {
    let dir = unpacked(&root("golden/gguf/models/pieces/model.gguf"));
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let (mut sentencepiece, mut transformers) = (0, 0);
    let rows = json("golden/gguf/pieces.json");
    for row in rows.as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let found = tokenizer.encode(text, false).unwrap();
        assert_eq!(found, ids(&row["llama.cpp"]), "{text:?}");
        sentencepiece += usize::from(found == ids(&row["sentencepiece"]));
        transformers += usize::from(found == ids(&row["transformers"]));
        let with_bos = tokenizer.encode(text, true).unwrap();
        assert_eq!(with_bos, [&[1], found.as_slice()].concat());
        // What the user defined is text, a control token is none.
        if !text.contains("<turn>") && !text.contains("</s>") && !text.contains("<tool>") && !text.contains('▁') {
            assert_eq!(tokenizer.decode(&found), text);
        }
    }
    // All but names of special and user-defined tokens in texts; and those that begin with a space, too.
    assert_eq!((rows.as_array().unwrap().len(), sentencepiece, transformers), (25, 22, 18));
    assert!(tokenizer.is_special(3) && !tokenizer.is_special(4));
}

#[test]
fn a_base_with_pieces_is_written_with_them() {
    let dir = unpacked(&root("golden/gguf/models/pieces/model.gguf"));
    put(dir.path(), "chat_template.jinja", "{{ messages[0].content }}");
    let again = unpacked(&folder(dir.path(), GgufType::Bf16).path().join("model.gguf"));
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "config.json"] {
        let read = |dir: &Path| std::fs::read_to_string(dir.join(name)).unwrap();
        assert_eq!(read(again.path()), read(dir.path()), "{name}");
    }
}

/// A file of metadata with Tiger-Nano's vocabulary, cut as `pre` says.
fn nano_vocabulary(pre: &str) -> Vec<u8> {
    nano_with(pre, Vec::new())
}

/// The same with further pairs; one whose key is there already replaces it.
fn nano_with(pre: &str, more: Vec<(&str, Bytes)>) -> Vec<u8> {
    let tokenizer = json("models/nano/checkpoint/tokenizer.json");
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(&str, u64, u32)> = vocab.iter().map(|(text, id)| (text.as_str(), id.as_u64().unwrap(), 1)).collect();
    let special: Vec<&str> = tokenizer["added_tokens"].as_array().unwrap().iter().map(|t| t["content"].as_str().unwrap()).collect();
    tokens.iter_mut().filter(|(text, ..)| special.contains(text)).for_each(|token| token.2 = 3);
    tokens.sort_by_key(|(_, id, _)| *id);
    let merges = tokenizer["model"]["merges"].as_array().unwrap();
    let list = |kind: u32, count: usize| Bytes::default().u32(9).u32(kind).u64(count as u64);
    let text = |text: &str| Bytes::default().u32(8).text(text);
    let texts = tokens.iter().fold(list(8, tokens.len()), |bytes, (text, ..)| bytes.text(text));
    let kinds = tokens.iter().fold(list(5, tokens.len()), |bytes, (.., kind)| bytes.u32(*kind));
    let pair = |pair: &Value| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    let merges = merges.iter().fold(list(8, merges.len()), |bytes, merge| bytes.text(&pair(merge)));
    let mut pairs = vec![
        ("general.architecture", text("llama")),
        ("llama.embedding_length", Bytes::default().u32(4).u32(2)),
        ("llama.attention.layer_norm_rms_epsilon", Bytes::default().u32(6).u32(1e-5_f32.to_bits())),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text(pre)),
        ("tokenizer.ggml.tokens", texts),
        ("tokenizer.ggml.token_type", kinds),
        ("tokenizer.ggml.merges", merges),
    ];
    for size in ["llama.block_count", "llama.context_length", "llama.feed_forward_length", "llama.attention.head_count"] {
        pairs.push((size, Bytes::default().u32(4).u32(1)));
    }
    pairs.retain(|(key, _)| more.iter().all(|(other, _)| other != key));
    // A pair without a value only takes the other away.
    pairs.extend(more.into_iter().filter(|(_, value)| !value.0.is_empty()));
    let start = Bytes::start(1, pairs.len() as u64);
    let bytes = pairs.into_iter().fold(start, |bytes, (key, value)| bytes.text(key).raw(&value.0));
    bytes.tensor("token_embd.weight", &[2, tokens.len() as u64], 0, 0).data(8 * tokens.len())
}

fn tokenizer_of(bytes: Vec<u8>) -> Result<Tokenizer, FormatError> {
    let files = small_files(&Gguf::from_bytes("x.gguf", bytes)?)?;
    let (_, tokenizer) = files.iter().find(|(name, _)| *name == "tokenizer.json").unwrap();
    Tokenizer::from_bytes(tokenizer)
}

#[test]
fn texts_are_cut_as_llama_cpp_cuts_them() {
    let golden = json("golden/gguf/cuts.json");
    for (pre, lists) in golden["ids"].as_object().unwrap() {
        let tokenizer = tokenizer_of(nano_vocabulary(pre)).unwrap();
        for (text, want) in golden["texts"].as_array().unwrap().iter().zip(lists.as_array().unwrap()) {
            let text = text.as_str().unwrap();
            // Qwen 2's own tokenizer composes characters first; llama.cpp leaves that out.
            if pre == "qwen2" && text.contains('\u{301}') {
                assert_eq!(tokenizer.encode(text, false).unwrap(), tokenizer.encode("é decomposed", false).unwrap());
                continue;
            }
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(want), "{pre}: {text:?}");
        }
    }
    refuses(tokenizer_of(nano_vocabulary("nobody")), &["tokenizer.ggml.pre", "nobody", "llama-bpe", "smollm"]);
}

/// Builds files piece by piece.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    fn text(self, text: &str) -> Self {
        let mut next = self.u64(text.len() as u64);
        next.0.extend(text.as_bytes());
        next
    }
    fn start(tensors: u64, pairs: u64) -> Self {
        Bytes(b"GGUF".to_vec()).u32(3).u64(tensors).u64(pairs)
    }
    fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        let start = self.text(name).u32(shape.len() as u32);
        shape.iter().fold(start, |bytes, n| bytes.u64(*n)).u32(kind).u64(offset)
    }
    fn data(mut self, bytes: usize) -> Vec<u8> {
        self.0.resize(self.0.len().next_multiple_of(32) + bytes, 0);
        self.0
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    let start = Bytes::start;
    let read = |bytes: Vec<u8>| Gguf::from_bytes("x.gguf", bytes).map(|_| ());
    read(start(2, 0).tensor("a", &[32, 2], 8, 0).tensor("b", &[3], 0, 96).data(108)).unwrap();
    refuses(read(b"GGUX".to_vec()), &["x.gguf", "does not begin with GGUF"]);
    refuses(read(Bytes(b"GGUF".to_vec()).u32(1).data(64)), &["version", "1", "2, 3"]);
    refuses(read(Bytes(b"GGUF\0\0\0\x03".to_vec()).data(64)), &["version", "big-endian"]);
    refuses(read(start(u64::MAX, 0).0), &["tensor_count", "65536"]);
    refuses(read(start(0, u64::MAX).0), &["metadata_kv_count", "4096"]);
    refuses(read(start(0, 1).text("a").u32(4).0), &["\"a\"", "cut"]);
    refuses(read(start(0, 1).text("a").u32(13).u32(0).0), &["\"a\"", "type 13"]);
    refuses(read(start(0, 2).text("a").u32(4).u32(0).text("a").u32(4).u32(0).0), &["repeated key", "\"a\""]);
    refuses(read(start(0, 1).text("a").u32(9).u32(4).u64(u64::MAX).0), &["\"a\"", "elements"]);
    refuses(read(start(0, 1).text("a").u32(9).u32(9).u64(1).0), &["\"a\"", "array of type 9"]);
    refuses(read(start(0, 1).text("a").u32(8).u64(u64::MAX).0), &["\"a\"", "cut"]);
    refuses(read(start(0, 1).text("general.alignment").u32(4).u32(24).0), &["general.alignment", "power of two"]);
    refuses(read(start(1, 0).tensor("a", &[32], 11, 0).data(64)), &["\"a\"", "Q3_K", "Q4_K, Q5_K, Q6_K"]);
    refuses(read(start(1, 0).tensor("a", &[32], 99, 0).data(64)), &["\"a\"", "type 99"]);
    refuses(read(start(1, 0).tensor("a", &[33], 8, 0).data(64)), &["\"a\"", "33", "multiples of 32"]);
    refuses(read(start(1, 0).tensor("a", &[1 << 40, 1 << 40], 0, 0).data(64)), &["\"a\"", "too large"]);
    refuses(read(start(1, 0).tensor("a", &[0, 1 << 63, 1 << 63], 0, 0).data(64)), &["\"a\"", "without any values"]);
    refuses(read(start(1, 0).tensor("a", &[1, 1, 1, 1, 1], 0, 0).data(64)), &["5 dimensions"]);
    refuses(read(start(1, 0).tensor("a", &[100], 0, 0).data(64)), &["\"a\"", "400 bytes", "64 bytes of data"]);
    refuses(read(start(1, 0).tensor("a", &[4], 0, u64::MAX).data(64)), &["\"a\"", "cut"]);
    refuses(read(start(1, 0).tensor("a", &[4], 0, 32).data(64)), &["\"a\"", "begins at 32"]);
    refuses(read(start(2, 0).tensor("a", &[4], 0, 0).tensor("b", &[4], 0, 0).data(64)), &["begins at 0", "ends at 32"]);
    refuses(read(start(2, 0).tensor("a", &[4], 0, 0).tensor("a", &[4], 0, 32).data(64)), &["repeated name"]);
}

#[test]
fn what_this_program_does_not_compute_is_refused() {
    let (number, text, flag) = (
        |n: u32| Bytes::default().u32(4).u32(n),
        |text: &str| Bytes::default().u32(8).text(text),
        |flag: u8| Bytes(vec![7, 0, 0, 0, flag]),
    );
    let read = |more: Vec<(&str, Bytes)>| small_files(&Gguf::from_bytes("x.gguf", nano_with("llama-bpe", more)).unwrap()).map(|_| ());
    read(vec![("llama.expert_count", number(0)), ("llama.attention.sliding_window", number(1))]).unwrap();
    let refused = |key: &str, value: Bytes, parts: &[&str]| refuses(read(vec![(key, value)]), &[&["x.gguf", key], parts].concat());
    refused("general.architecture", text("gemma3"), &["gemma3", "llama (Llama and Mistral), qwen2, qwen3"]);
    refused("general.architecture", number(1), &["must be a text"]);
    refused("llama.expert_count", number(8), &["8"]);
    refused("llama.attention.causal", flag(0), &["false"]);
    refused("llama.rope.scaling.type", text("longrope"), &["longrope", "linear"]);
    refused("llama.rope.dimension_count", number(1), &["1", "2"]);
    refused("llama.attention.head_count", number(0), &["is 0"]);
    refused("llama.attention.head_count", Bytes::default().u32(9).u32(4).u64(1).u32(1), &["one whole number"]);
    refused("llama.block_count", Bytes::default(), &["is missing"]);
    refused("split.count", number(2), &["llama-gguf-split --merge"]);
    refused("tokenizer.ggml.pre", Bytes::default(), &["is missing", "convert the model anew"]);
    refused("tokenizer.ggml.model", text("bert"), &["bert", "gpt2, llama"]);
    refused("tokenizer.ggml.merges", Bytes::default().u32(9).u32(8).u64(1).text("a \u{2}"), &["no pair of tokens"]);
    refused("tokenizer.ggml.token_type", Bytes::default().u32(9).u32(5).u64(1).u32(1), &["1 kinds for 2048 tokens"]);
    refused("tokenizer.ggml.eos_token_id", number(2048), &["2048", "none of 2048 tokens"]);
    refuses(read(vec![("llama.block_count", number(u32::MAX))]), &["num_hidden_layers", "4294967295"]);
}
