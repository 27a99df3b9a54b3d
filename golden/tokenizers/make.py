"""Trains a tiny tokenizer of each kind that the published families have, and writes what Python's `tokenizers` makes of hard texts.

Writes one tokenizer.json per kind and expected.json: ids of each text without and with the tokenizer's own special tokens, the text of these ids, and
the pieces of the library's stream decoder. Trained on this repository's documents; the rules of cutting are those of the families, the vocabularies
are not.

    python golden/tokenizers/make.py            # with the packages of golden/requirements.txt; no network
"""

import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.decoders import DecodeStream

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
CORPUS = ["README.md", "STYLE.md", "docs/training.md", "docs/objective.md", "crates/kernels/src/ops/rope.rs", "golden/model/make.py"]
MERGES = 350
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    "", " ", "   ", "\n", "\n\n \n", "\t\ttabs\tinside", "trailing  ", "  leading", "Hello, world!", "don't WE'LL I'D they've", "a  b   c    d",
    "1", "12", "123", "1234567890", "3.14159 1,000,000 0x1F 2²³ ½ Ⅷ ٣٤ 一二三", "2026-11-28T18:00:00Z", "v1.2.3-rc4",
    "naïve café señor Übergröße", "e\u0301 n\u0303 A\u030a (combining) \u1e9b\u0323", "ﬁ ligature Å K ① ㎏", "Zalgo: h\u0335\u0321e\u0327\u0338",
    "日本語のテキスト、漢字とかな。", "中文，没有空格的句子。", "한국어 문장입니다", "ไทย ไม่มีช่องว่าง", "العربية من اليمين", "हिन्दी क्षत्रिय", "עברית",
    "🐅", "🐅🐯 tigers 👩‍👩‍👧‍👦 👍🏽 🇫🇷 ❤️", "mixed 日本🐅text", "\u200b\u200d\ufeff", "a\u00a0b\u2003c\u3000d\u2028e", "\x00\x01\x1b[0m\x7f", "\ufffd",
    "def f(x):\n    return {'a': [1, 2]}  # note\n\n\nclass A:\n\tpass\n", "if (a != b && c >= 1) { x->y = ~z; } // end\r\n\r\nfoo();\r",
    "https://example.org/a?b=c&d=%20#e /usr/local/bin C:\\dir\\file", "camelCaseHTTPServer snake_case SCREAMING_CASE ALLCAPS iPhone",
    "<|im_start|>user\nhi<|im_end|>\n", "<think>\nhm\n</think>\n\nyes", "[INST] hi [/INST]</s>", "<s>x</s> <unk>", "<|begin_of_text|>a<|eot_id|>",
    "▁under▁score ▁", "<0x41> <0xE2>", "Ġ Ċ ĉ", "...!!!???  --- === ***", "\"quoted\" ‘single’ «guillemets» „low“", "x" * 70, "ab" * 40, "word " * 20,
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𒀀", "\u0301alone", "a\n\nb\n\n\nc", " \n x", "$1,234.56 €99 50% #1 @you",
]


def added(*names, special=True):
    return [AddedToken(name, special=special, normalized=False) for name in names]


def corpus():
    return [(ROOT / name).read_text() for name in CORPUS]


def train(pre_tokenizer, first=(), normalizer=None, alphabet=(), **model):
    """BPE on the corpus; `first` are the special tokens with the lowest ids."""
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=len(first) + len(alphabet) + MERGES, special_tokens=list(first), initial_alphabet=list(alphabet), show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def byte_level(cut, first=(), normalizer=None, **model):
    tokenizer = train(pre_tokenizers.Sequence(cut), first, normalizer, sorted(pre_tokenizers.ByteLevel.alphabet()), **model)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


def split(regex):
    return [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def begins_with(tokenizer, name):
    begin = processors.TemplateProcessing(single=f"{name} $A", pair=f"{name} $A {name}:1 $B:1", special_tokens=[(name, tokenizer.token_to_id(name))])
    byte_level = [tokenizer.post_processor] if tokenizer.post_processor else []
    tokenizer.post_processor = processors.Sequence([*byte_level, begin]) if byte_level else begin


def qwen():
    tokenizer = byte_level(split(QWEN), normalizer=normalizers.NFC())
    tokenizer.add_tokens(added("<|endoftext|>", "<|im_start|>", "<|im_end|>") + added("<tool_call>", "</tool_call>", "<think>", "</think>", special=False))
    return tokenizer


def smollm():
    cut = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    return byte_level(cut, added("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"))


def llama3():
    tokenizer = byte_level(split(LLAMA3), ignore_merges=True)
    tokenizer.add_tokens(added("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    begins_with(tokenizer, "<|begin_of_text|>")
    return tokenizer


def tekken():
    tokenizer = byte_level(split(TEKKEN), added("<unk>", "<s>", "</s>", "[INST]", "[/INST]"), ignore_merges=True)
    begins_with(tokenizer, "<s>")
    return tokenizer


def sentencepiece(pre_tokenizer=None, normalizer=None):
    """Llama 2's and Mistral's: a mark for the space, bytes for what has no token."""
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    # Pieces are words while it is trained; the published files do not cut at all.
    tokenizer = train(pre_tokenizers.Metaspace(), [*added("<unk>", "<s>", "</s>"), *tokens], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = plain["added_tokens"][:3]
    plain["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(plain))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    begins_with(tokenizer, "<s>")
    return tokenizer


def mistral_old():
    return sentencepiece(normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def mistral():
    return sentencepiece(pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first", split=False))


def expected(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    stream = DecodeStream(skip_special_tokens=True)
    return dict(ids=ids, special=tokenizer.encode(text).ids, text=tokenizer.decode(ids), pieces=[stream.step(tokenizer, i) for i in ids])


if __name__ == "__main__":
    found = {}
    for make in (qwen, smollm, llama3, tekken, mistral_old, mistral):
        tokenizer = make()
        name = make.__name__
        (HERE / f"{name}.json").write_text(tokenizer.to_str() + "\n")
        found[name] = [expected(tokenizer, text) for text in TEXTS]
        print(name, tokenizer.get_vocab_size(), "tokens,", sum(len(e["ids"]) for e in found[name]), "ids")
    (HERE / "expected.json").write_text(json.dumps(dict(texts=TEXTS, tokenizers=found), separators=(",", ":")) + "\n")
