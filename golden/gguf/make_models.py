"""Tiny random models as GGUF files, and what others make of them: logits by transformers, ids by SentencePiece, transformers and llama.cpp.

    python golden/gguf/make_models.py llama-server      # writes models/*/model.gguf, models/*/expected.safetensors, pieces.json, cuts.json

`mixed` has a matrix of every quantised type; `pieces` floats and a SentencePiece vocabulary; `qwen2` biases. cuts.json has what llama.cpp makes of
Tiger-Nano's vocabulary under each name of a way to cut. Versions pinned in ../requirements.txt, llama.cpp 0.5.0-dev; no network.
"""

import io
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import gguf
import numpy
import sentencepiece
import torch
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
Kind = gguf.GGMLQuantizationType
TEXTS = [
    "", "a", "Hello", "What is the capital of Spain?", "Two  spaces,   three.", "ends with a space ", "line\nbreaks\n\nand\ttabs\r\n",
    "it's I'll WE'VE don't", "1 22 333 4444 3.14159", "naïve café, Ünïcödé", "日本語のテキスト、中文。한국어", "🐅🐯 👩‍👩‍👧", "x = [i**2 for i in range(10)]; // !?#$%",
    "The the THE theatre thereof", "▁already▁escaped▁", "\x00\x01 control", "aaaaaaaaaaaaaaaaaaaaaaaa", "<tool>x</tool>", "e\u0301 decomposed",
    # Where transformers' conversion and SentencePiece differ: a space at the start, and what follows a special token.
    " leads", "  leads twice", "\n", " ", "Say<turn>it<turn> again", "</s>after",
]
# One of each group of names that cut alike.
CUTS = ["llama-bpe", "qwen2", "deepseek-r1-qwen", "gpt-2", "smollm", "tekken"]


def random_blocks(random, name, rows, columns):
    """Blocks whose values are like weights; for K-quants, which `gguf` does not write, any bits under sane scales."""
    kind = Kind[name]
    if name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        return gguf.quants.quantize(random.normal(0, 0.06, (rows, columns)).astype(numpy.float32), kind)
    size, width = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (rows * columns // size, width), numpy.uint8)
    put = lambda at, value: blocks.__setitem__((slice(None), slice(at, at + 2)), numpy.full(len(blocks), value, numpy.float16).view(numpy.uint8).reshape(-1, 2))
    if name == "Q6_K":
        put(208, 4e-5)
    else:
        middle = 7.5 if name == "Q4_K" else 15.5
        put(0, 0.002 / middle)
        put(2, 0.002)
    return blocks.reshape(rows, -1)


def write(folder, family, sizes, types, vocabulary, random):
    hidden, ffn, heads, kv_heads, head_dim, layers = (sizes[k] for k in ("hidden", "ffn", "heads", "kv_heads", "head_dim", "layers"))
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / "model.gguf", family)
    writer.add_block_count(layers)
    writer.add_context_length(128)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    vocab = vocabulary(writer)
    matrix = lambda name, rows, columns, kind: writer.add_tensor(name, random_blocks(random, kind, rows, columns), raw_dtype=Kind[kind])
    vector = lambda name, n, mean: writer.add_tensor(name, random.normal(mean, 0.1, n).astype(numpy.float32))
    matrix("token_embd.weight", vocab, hidden, types["embd"])
    if "output" in types:
        matrix("output.weight", vocab, hidden, types["output"])
    vector("output_norm.weight", hidden, 1)
    for layer in range(layers):
        name = lambda part: f"blk.{layer}.{part}"
        shapes = {"attn_q": (heads * head_dim, hidden), "attn_k": (kv_heads * head_dim, hidden), "attn_v": (kv_heads * head_dim, hidden),
                  "attn_output": (hidden, heads * head_dim), "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)}
        for part, (rows, columns) in shapes.items():
            matrix(name(f"{part}.weight"), rows, columns, types[part])
            if family == "qwen2" and part in ("attn_q", "attn_k", "attn_v"):
                vector(name(f"{part}.bias"), rows, 0)
        vector(name("attn_norm.weight"), hidden, 1)
        vector(name("ffn_norm.weight"), hidden, 1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vocab


def expect(folder, vocab, random):
    """Logits by transformers, which has a reader of its own."""
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32, attn_implementation="eager").eval()
    tokens = torch.tensor(random.integers(0, vocab, (1, 40)))
    with torch.no_grad():
        logits = model(tokens).logits[0].numpy()
    print(folder.name, "logits", logits.std(), (folder / "model.gguf").stat().st_size, "bytes")
    save_file({"tokens": tokens[0].numpy().astype(numpy.float32), "logits": logits}, folder / "expected.safetensors")


def byte_level(folder, pre):
    def vocabulary(writer):
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        vocab = tokenizer["model"]["vocab"] | {t["content"]: t["id"] for t in tokenizer["added_tokens"]}
        special = {t["content"] for t in tokenizer["added_tokens"]}
        tokens = sorted(vocab, key=vocab.get)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens])
        writer.add_token_merges([" ".join(m) for m in tokenizer["model"]["merges"]])
        writer.add_eos_token_id(vocab[sorted(special)[0]])
        return len(tokens)
    return vocabulary


def llama_cpp(server, path, texts):
    """Ids of the texts by `llama-server`, names of special tokens read as such."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = subprocess.Popen([server, "-m", path, "--port", str(port), "-c", "64", "-t", "1", "--no-warmup"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ask(text):
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/tokenize", body, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))["tokens"]

    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
                break
            except OSError:
                time.sleep(0.1)
        return [ask(text) for text in texts]
    finally:
        running.terminate()
        running.wait()


def train_pieces():
    """A SentencePiece BPE as Llama 2's: byte fallback, a space before every text, nothing normalised."""
    text = io.StringIO((ROOT / "models/nano/questions.json").read_text())
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=text, model_writer=model, model_type="bpe", vocab_size=480, byte_fallback=True, normalization_rule_name="identity",
        add_dummy_prefix=True, remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, split_digits=True, character_coverage=0.999,
        control_symbols=["<turn>"], user_defined_symbols=["<tool>", "</tool>"], minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def pieces(processor):
    def vocabulary(writer):
        count = processor.vocab_size()
        kind = lambda i: (gguf.TokenType.UNKNOWN if processor.is_unknown(i) else gguf.TokenType.BYTE if processor.is_byte(i)
                          else gguf.TokenType.CONTROL if processor.is_control(i)
                          else gguf.TokenType.USER_DEFINED if processor.id_to_piece(i) in ("<tool>", "</tool>") else gguf.TokenType.NORMAL)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([processor.id_to_piece(i) for i in range(count)])
        writer.add_token_scores([processor.get_score(i) for i in range(count)])
        writer.add_token_types([kind(i) for i in range(count)])
        writer.add_bos_token_id(processor.bos_id())
        writer.add_eos_token_id(processor.eos_id())
        writer.add_unk_token_id(processor.unk_id())
        writer.add_add_bos_token(True)
        return count
    return vocabulary


def ids(processor, folder, server):
    """What SentencePiece itself makes of each text (it knows no control tokens in texts), transformers' conversion of the file, and llama.cpp."""
    converted = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf")
    theirs = llama_cpp(server, folder / "model.gguf", TEXTS)
    rows = [{"text": text, "sentencepiece": processor.encode(text), "transformers": converted.encode(text, add_special_tokens=False), "llama.cpp": other}
            for text, other in zip(TEXTS, theirs)]
    for r in rows:
        if not r["sentencepiece"] == r["transformers"] == r["llama.cpp"]:
            print(r)
    return rows


def cuts(server, random):
    nano = ROOT / "models/nano/checkpoint"
    sizes = {"hidden": 32, "ffn": 32, "heads": 1, "kv_heads": 1, "head_dim": 32, "layers": 1}
    types = dict.fromkeys(["embd", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"], "F16")
    found = {}
    for pre in CUTS:
        with tempfile.TemporaryDirectory() as folder:
            write(pathlib.Path(folder), "llama", sizes, types, byte_level(nano, pre), random)
            found[pre] = llama_cpp(server, pathlib.Path(folder) / "model.gguf", TEXTS)
    return {"texts": TEXTS, "ids": found}


def main(server):
    random = numpy.random.default_rng(11)
    models = HERE / "models"
    small = {"hidden": 64, "ffn": 96, "heads": 4, "kv_heads": 2, "head_dim": 16, "layers": 2}
    large = {"hidden": 256, "ffn": 256, "heads": 4, "kv_heads": 1, "head_dim": 64, "layers": 1}
    every = {"embd": "Q6_K", "attn_q": "Q4_K", "attn_k": "Q5_K", "attn_v": "Q8_0", "attn_output": "Q4_0", "ffn_gate": "Q4_1", "ffn_up": "Q5_0", "ffn_down": "Q5_1"}
    floats = {"embd": "F16", "output": "BF16", "attn_q": "BF16", "attn_k": "F16", "attn_v": "F32", "attn_output": "BF16", "ffn_gate": "F16", "ffn_up": "F32", "ffn_down": "BF16"}
    halves = dict.fromkeys(floats, "F16") | {"attn_q": "Q8_0", "ffn_up": "Q4_0"}
    processor = train_pieces()
    for name, *how in [("mixed", "llama", large, every, byte_level(HERE, "gpt-2")), ("pieces", "llama", small, floats, pieces(processor)),
                       ("qwen2", "qwen2", small, halves, byte_level(HERE, "gpt-2"))]:
        expect(models / name, write(models / name, *how, random), random)
    write_json = lambda name, value: (HERE / name).write_text(json.dumps(value) + "\n")
    write_json("pieces.json", ids(processor, models / "pieces", server))
    write_json("cuts.json", cuts(server, random))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
