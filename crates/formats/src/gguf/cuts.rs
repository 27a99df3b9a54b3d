//! How byte-level BPE cuts a text before it merges, by the names that `tokenizer.ggml.pre` has for it: llama.cpp (`src/llama-vocab.cpp`) knows
//! the regular expressions by these names, `tokenizer.json` writes them out. Does not know vocabularies.

use serde_json::{Value, json};

/// A step before bytes become letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Pieces of the text that match stand alone.
    Split(&'static str),
    /// Every digit stands alone.
    Digits,
}

/// One way to cut.
#[derive(Debug)]
pub(super) struct Cut {
    /// Its names; the first is the one that is written.
    names: &'static [&'static str],
    steps: &'static [Step],
    /// GPT-2's own regular expression cuts what the steps leave.
    gpt2: bool,
    /// A piece that is a token is not made by merges.
    pub(super) ignore_merges: bool,
    /// A text begins with the beginning-of-sequence token unless the file says otherwise.
    pub(super) add_bos: bool,
    /// Text is normalised to NFC. llama.cpp does not, the family's own tokenizer does.
    pub(super) nfc: bool,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const CUTS: [Cut; 6] = [
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        steps: &[Step::Split(LLAMA3)],
        gpt2: false,
        ignore_merges: true,
        add_bos: true,
        nfc: false,
    },
    Cut { names: &["qwen2"], steps: &[Step::Split(QWEN2)], gpt2: false, ignore_merges: false, add_bos: false, nfc: true },
    Cut {
        names: &["deepseek-r1-qwen", "megrez"],
        steps: &[Step::Split(QWEN2)],
        gpt2: false,
        ignore_merges: false,
        add_bos: false,
        nfc: false,
    },
    Cut { names: &["gpt-2"], steps: &[], gpt2: true, ignore_merges: false, add_bos: false, nfc: false },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell"],
        steps: &[Step::Digits],
        gpt2: true,
        ignore_merges: false,
        add_bos: false,
        nfc: false,
    },
    Cut { names: &["tekken"], steps: &[Step::Split(TEKKEN)], gpt2: false, ignore_merges: true, add_bos: true, nfc: false },
];

impl Cut {
    /// The cut of this name.
    pub(super) fn named(name: &str) -> Option<&'static Cut> {
        CUTS.iter().find(|cut| cut.names.contains(&name))
    }

    /// All names, for refusals.
    pub(super) fn supported() -> String {
        CUTS.iter().flat_map(|cut| cut.names).copied().collect::<Vec<_>>().join(", ")
    }

    /// The name that is written of the cut of a `pre_tokenizer` in `tokenizer.json`.
    pub(super) fn name_of(pre_tokenizer: &Value) -> Option<&'static str> {
        let one = [pre_tokenizer.clone()];
        let parts = pre_tokenizer["pretokenizers"].as_array().map_or(&one[..], Vec::as_slice);
        let (bytes, steps) = parts.split_last()?;
        let plain = bytes["type"] == "ByteLevel" && bytes["add_prefix_space"] != true;
        let gpt2 = bytes["use_regex"].as_bool().unwrap_or(true);
        let same = |cut: &&Cut| {
            cut.gpt2 == gpt2 && cut.steps.len() == steps.len() && cut.steps.iter().zip(steps).all(|(step, value)| step.is(value))
        };
        CUTS.iter().find(same).filter(|_| plain).map(|cut| cut.names[0])
    }

    /// `pre_tokenizer` of `tokenizer.json`.
    pub(super) fn json(&self) -> Value {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": self.gpt2});
        if self.steps.is_empty() {
            return bytes;
        }
        let steps: Vec<Value> = self.steps.iter().map(|step| step.json()).chain([bytes]).collect();
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

impl Step {
    fn json(self) -> Value {
        match self {
            Step::Split(regex) => json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}),
            Step::Digits => json!({"type": "Digits", "individual_digits": true}),
        }
    }

    fn is(self, value: &Value) -> bool {
        match self {
            Step::Split(regex) => {
                value["type"] == "Split" && value["behavior"] == "Isolated" && value["invert"] != true && value["pattern"]["Regex"] == regex
            }
            Step::Digits => value["type"] == "Digits" && value["individual_digits"] == true,
        }
    }
}
