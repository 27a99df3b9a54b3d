"""Writes the seed corpora of the fuzz targets: good files, cut ones, and hostile ones. Deterministic; no dependencies.

Run: python make.py
"""

import json
import pathlib
import struct

HERE = pathlib.Path(__file__).parent


def put(target, name, data):
    folder = HERE / target
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def container(header, data=b"", length=None):
    text = header if isinstance(header, str) else json.dumps(header)
    return struct.pack("<Q", len(text) if length is None else length) + text.encode() + data


def tensor(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors():
    good = container({"__metadata__": {"format": "pt"}, "a": tensor("F32", [2], 0, 8), "b": tensor("BF16", [3], 8, 14)}, bytes(14))
    files = {
        "good": good,
        "empty": b"",
        "no_tensors": container("{}"),
        "cut_length": good[:5],
        "cut_header": good[:40],
        "cut_data": good[:-1],
        "trailing": good + b"x",
        "length_max": b"\xff" * 8,
        "length_huge": struct.pack("<Q", 1 << 40) + b"{}",
        "length_over": container("{}", length=100),
        "shape_overflow": container({"a": tensor("F64", [1 << 63, 2], 0, 0)}),
        "shape_overflow_to_zero": container({"a": tensor("F32", [1 << 32, 1 << 32], 0, 0)}),
        "shape_zero_times_huge": container({"a": tensor("F32", [0, (1 << 64) - 1], 0, 0)}),
        "offsets_huge": container({"a": tensor("U8", [1], (1 << 64) - 2, (1 << 64) - 1)}, b"x"),
        "offsets_reversed": container({"a": tensor("U8", [1], 1, 0)}, b"x"),
        "overlap": container({"a": tensor("U8", [2], 0, 2), "b": tensor("U8", [2], 1, 3)}, b"xyz"),
        "hole": container({"a": tensor("U8", [1], 1, 2)}, b"xy"),
        "repeated": container('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "many_dimensions": container({"a": tensor("U8", [1] * 5000, 0, 1)}, b"x"),
        "many_tensors": container({f"t{i}": tensor("U8", [0], 0, 0) for i in range(2000)}),
        "deep_json": container("[" * 10000),
        "deep_metadata": container('{"__metadata__":' + '{"a":' * 5000),
        "bad_utf8": struct.pack("<Q", 6) + b'{"\xff":1',
        "escapes": container('{"\\u0000\\ud83d\\udc05":{"dtype":"F16","shape":[],"data_offsets":[0,2]}}', b"\x00\x7c"),
        "lone_surrogate": container('{"\\ud800":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "float_offset": container('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1e0]}}', b"x"),
    }
    for name, data in files.items():
        put("safetensors", name, data)


def packed():
    def file(header, magic=b"TIGERPKD", version=1, length=None):
        text = header if isinstance(header, str) else json.dumps(header)
        return magic + struct.pack("<II", version, len(text) if length is None else length) + text.encode()

    blocks = [{"name": "a", "form": "int8 [2, 2]", "bytes": 5000}, {"name": "b", "form": "int8 [2, 2]", "bytes": 7}]
    contents = {"layout": "fuzz", "source": "0", "blocks": blocks}
    good = file({"contents": contents, "checksums": [1, 2]})
    files = {
        "good": good,
        "empty": b"",
        "cut_prefix": good[:15],
        "cut_header": good[:60],
        "magic": file({}, magic=b"TIGERPKE"),
        "version": file({"contents": contents, "checksums": [1, 2]}, version=2),
        "length_max": file("{}", length=0xffffffff),
        "length_zero": file("", length=0),
        "layout": file({"contents": {**contents, "layout": "other" * 1000}, "checksums": [1, 2]}),
        "source": file({"contents": {**contents, "source": "1"}, "checksums": [1, 2]}),
        "bytes_huge": file({"contents": {**contents, "blocks": [{**blocks[0], "bytes": (1 << 64) - 1}, blocks[1]]}, "checksums": [1, 2]}),
        "bytes_negative": file({"contents": {**contents, "blocks": [{**blocks[0], "bytes": -1}, blocks[1]]}, "checksums": [1, 2]}),
        "blocks_many": file({"contents": {**contents, "blocks": blocks * 1000}, "checksums": [1, 2]}),
        "checksums_few": file({"contents": contents, "checksums": [1]}),
        "checksums_huge": file({"contents": contents, "checksums": [1, 1 << 32]}),
        "deep": file("[" * 10000),
        "unknown_field": file({"contents": contents, "checksums": [1, 2], "more": 0}),
    }
    for name, data in files.items():
        put("packed", name, data)


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 256},
    "bos_token_id": 1, "eos_token_id": [2, 3], "hidden_act": "silu",
}


def config():
    def changed(**changes):
        return json.dumps({**CONFIG, **changes})

    files = {
        "good": changed(),
        "qwen2": changed(model_type="qwen2", architectures=None),
        "mistral": changed(model_type="mistral", architectures=None, sliding_window=None),
        "qwen3": changed(model_type="qwen3", architectures=None, attention_bias=True, use_sliding_window=True, sliding_window=1, max_window_layers=0),
        "yarn": changed(rope_scaling={"rope_type": "yarn", "factor": 1e6, "beta_fast": 1e6, "beta_slow": 1e-3, "original_max_position_embeddings": 1 << 24}),
        "yarn_flat": changed(rope_theta=1, rope_scaling={"rope_type": "yarn", "factor": 4, "mscale": 1e-300, "mscale_all_dim": 100}),
        "window_huge": changed(model_type="mistral", architectures=None, sliding_window=2**64 - 1, layer_types=[["sliding_attention"]] * 9),
        "rope_parameters": changed(rope_scaling=None, rope_parameters={"rope_type": "linear", "factor": 2, "rope_theta": 5e5}),
        "cut": changed()[:100],
        "empty": "",
        "null": "null",
        "zero_heads": changed(num_attention_heads=0),
        "zero_kv_heads": changed(num_key_value_heads=0),
        "huge": changed(hidden_size=2**64 - 1, vocab_size=2**64 - 1, num_hidden_layers=2**64 - 1),
        "beyond_u64": changed().replace("1000", "1" + "0" * 400),
        "float_beyond": changed().replace("500000.0", "1e999"),
        "nan": changed(rope_theta=float("nan")),
        "negative": changed(hidden_size=-64),
        "largest": changed(hidden_size=1 << 16, num_hidden_layers=1 << 10, vocab_size=1 << 22, intermediate_size=1 << 20),
        "ramp_equal": changed(rope_scaling={**CONFIG["rope_scaling"], "high_freq_factor": 1.0}),
        "rope_nested": changed(rope_parameters={"full_attention": {"rope_type": "default"}}),
        "many_eos": changed(eos_token_id=list(range(5000))),
        "deep": '{"model_type":' + "[" * 10000,
        "wrong_types": json.dumps({key: [key] for key in CONFIG}),
        "long_value": changed(model_type="x" * 10000),
        "generation": json.dumps({"eos_token_id": 2, "temperature": 0.6, "top_p": 0.9, "top_k": 50}),
    }
    for name, data in files.items():
        put("config", name, data)


def index():
    def mapped(**weight_map):
        return json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})

    files = {
        "good": mapped(a="model-00001-of-00002.safetensors", b="model-00002-of-00002.safetensors"),
        "empty": "",
        "no_map": "{}",
        "parent": mapped(a="../model.safetensors"),
        "absolute": mapped(a="/model.safetensors"),
        "backslash": mapped(a="..\\model.safetensors"),
        "nul": mapped(a="a\x00.safetensors"),
        "dots": mapped(a=".."),
        "long": mapped(a="x" * 10000 + ".safetensors"),
        "unicode": mapped(a="模型.safetensors"),
        "repeated": '{"weight_map":{"a":"x.safetensors","a":"y.safetensors"}}',
        "not_strings": mapped(a=1),
        "many": mapped(**{f"t{i}": f"s{i}.safetensors" for i in range(3000)}),
        "cut": mapped(a="model.safetensors")[:40],
        "deep": '{"weight_map":' + '{"a":' * 10000,
    }
    for name, data in files.items():
        put("index", name, data)


TEMPLATES = {
    "good": "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "raises": "{{ raise_exception('no ' ~ messages[0].role) }}",
    "dates": "{{ strftime_now('%A %-d %B %Y %j %U') }}",
    "cut": "{% for m in messages %}{{ m.con",
    "loops": "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "output": "{% for i in range(100000) %}{{ 'x' * 10000 }}{% endfor %}",
    "doubling": "{% set n = namespace(x='xx') %}{% for i in range(1000) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "repeat_string": "{{ ('x' * 99999999) | length }}{{ ('x' * 99999999) | length }}",
    "repeat_list": "{{ ([1] * 999999) | length }}{{ ([[1] * 1000] * 1000) | tojson | length }}",
    "nested_lists": "{% set n = namespace(x=[]) %}{% for i in range(5000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}",
    "printed_nesting": "{% set n = namespace(x=[]) %}{% for i in range(5000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    "compared_nesting": "{% set n = namespace(x=[], y=[]) %}{% for i in range(5000) %}{% set n.x = [n.x] %}{% set n.y = [n.y] %}{% endfor %}{{ n.x == n.y }}",
    "macro_recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "call_recursion": "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
    "loop_recursion": "{% for i in [[]] recursive %}{{ loop([[]]) }}{% endfor %}",
    "self_namespace": "{% set n = namespace() %}{% set n.n = n %}{{ n }}{{ n | tojson }}",
    "self_namespace_list": "{% set n = namespace() %}{% set n.n = [n] %}{{ n == n }}",
    "deep_parentheses": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "deep_ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "long_sum": "{{ " + "1+" * 5000 + "1 }}",
    "long_not": "{{ " + "not " * 5000 + "1 }}",
    "long_minus": "{{ " + "-" * 5000 + "1 }}",
    "long_filters": "{{ 1" + " | string" * 5000 + " }}",
    "long_attributes": "{{ messages" + "[0]" * 5000 + " }}",
    "long_elifs": "{% if 0 %}" + "{% elif 0 %}" * 3000 + "{% endif %}",
    "long_concat": "{{ " + "'a' ~ " * 300 + "'a' }}",
    "long_ternary": "{{ " + "1 if 0 else " * 3000 + "2 }}",
    "power": "{{ 2 ** 100000 }}{{ 9 ** 9 ** 9 ** 9 }}",
    "shift": "{{ 10 ** 38 * 10 ** 38 }}{{ -(2 ** 127) // -1 }}{{ -(2 ** 127) % -1 }}",
    "range_bounds": "{{ range(0, 9223372036854775807, 1) | list }}{{ range(5, 0, 0) }}",
    "indent": "{{ 'x\ny' | indent(99999999) }}",
    "center": "{{ 'x' | center(99999999) }}{{ '%99999999d' | format(1) }}{{ '{:99999999}'.format(1) }}",
    "batch": "{{ [1] | batch(99999999, 0) | list | length }}{{ [1] | slice(99999999) | list | length }}",
    "replace_growth": "{{ ('x' * 10000).replace('x', 'y' * 10000) | length }}",
    "join_growth": "{{ (('y' * 10000).join(range(10000))) | length }}",
    "empty_separator": "{{ 'abc'.split('') }}{{ 'abc'.replace('', 'x') }}{{ 'abc'.partition('') }}",
    "slices": "{{ 'abc'[::0] }}",
    "negative_slices": "{{ 'ü🐅c'[-99999999999:99999999999:-3] }}{{ [1,2,3][::-1] }}{{ 'abc'[5:1] }}",
    "wrong_types": "{{ messages.strip() }}{{ 1.items() }}",
    "json_keys": "{{ {1: 2, none: 3, true: 4} | tojson }}{{ {'a': undefined_thing} | tojson }}",
    "include": "{% include 'x' %}{% import 'y' as y %}",
    "extends": "{% extends 'chat_template' %}{% block a %}{% endblock %}",
    "include_self": "{% include 'chat_template' %}",
    "overlapping_tag": "{%}{{ messages[0].content }}{{ '{%' }}",
    "blocks": "{% block a %}{{ self.a() }}{% endblock %}",
    "super": "{% block a %}{{ super() }}{% endblock %}",
    "unclosed_generation": "{% generation %}x",
    "only_end_generation": "{% endgeneration %}",
    "unclosed_tag": "{% generation",
    "raw": "{% raw %}{% generation %}{{ x }}{% endraw %}",
    "bad_bytes": b"\xff\xfe{{ 1 }}",
    "nul": "\x00{{ '\x00' }}",
    "debug": "{{ debug() }}",
}


def templates():
    for name, source in TEMPLATES.items():
        put("template", name, source)


def tokenizer_config():
    files = {
        "good": json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATES["good"]}),
        "named": json.dumps({"chat_template": [{"name": "default", "template": TEMPLATES["generation"]}, {"name": "tool", "template": "x"}]}),
        "no_default": json.dumps({"chat_template": [{"name": "tool", "template": "x"}]}),
        "list_of_wrong": json.dumps({"chat_template": [1, None, {"name": 5}, {"name": "default", "template": 7}]}),
        "not_text": json.dumps({"chat_template": 5}),
        "no_template": json.dumps({"bos_token": "<s>"}),
        "token_of_wrong_type": json.dumps({"bos_token": [1], "chat_template": "x"}),
        "token_object_without_content": json.dumps({"bos_token": {"a": 1}, "chat_template": "{{ bos_token }}"}),
        "long_token": json.dumps({"bos_token": "x" * 100000, "chat_template": "{% for i in range(100000) %}{{ bos_token }}{% endfor %}"}),
        "empty": "",
        "cut": json.dumps({"chat_template": TEMPLATES["good"]})[:60],
        "deep": '{"chat_template":' + "[" * 10000,
        "hostile": json.dumps({"chat_template": TEMPLATES["doubling"]}),
    }
    for name, data in files.items():
        put("tokenizer_config", name, data)


ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
Q = "base_model.model.model.layers.0.self_attn.q_proj."


def peft():
    def weights(a=(2, 8), b=(8, 2), dtype="F32", fill=b"\x00\x00\x80\x3f"):
        size = {"F32": 4, "BF16": 2, "I8": 1}[dtype]
        split, end = a[0] * a[1] * size, (a[0] * a[1] + b[0] * b[1]) * size
        header = {Q + "lora_A.weight": tensor(dtype, list(a), 0, split), Q + "lora_B.weight": tensor(dtype, list(b), split, end)}
        return container(header, (fill * end)[:end])

    def changed(**changes):
        return json.dumps({**ADAPTER, **changes}).encode()

    good = changed() + b"\0" + weights()
    files = {
        "good": good,
        "bf16": changed() + b"\0" + weights(dtype="BF16", fill=b"\x80\x3f"),
        "i8": changed() + b"\0" + weights(dtype="I8"),
        "pattern": changed(target_modules="all-linear") + b"\0" + weights(),
        "rank_mismatch": changed(r=3) + b"\0" + weights(),
        "rank_zero": changed(r=0) + b"\0" + weights((0, 8), (8, 0)),
        "rank_huge": changed(r=2**63) + b"\0" + weights(),
        "transposed": changed() + b"\0" + weights((8, 2), (2, 8)),
        "nan": changed() + b"\0" + weights(fill=b"\xff\xff\xff\x7f"),
        "own_rank": changed(r=5, rank_pattern={r"layers\.0\..*\.q_proj": 2}, alpha_pattern={"q_proj": 3}, use_rslora=True) + b"\0" + weights(),
        "alpha_zero": changed(lora_alpha=0, alpha_pattern={"q_proj": 1e6}) + b"\0" + weights(),
        "alpha_overflows": changed(lora_alpha=1e-37, alpha_pattern={"q_proj": 1e6}) + b"\0" + weights(),
        "alpha_vanishes": changed(lora_alpha=1e-320) + b"\0" + weights(),
        "pattern_explodes": changed(alpha_pattern={"(((a{99}){99}){99}){99}": 1}) + b"\0" + weights(),
        "pattern_looks_around": changed(alpha_pattern={"(?=q)q_proj": 1}) + b"\0" + weights(),
        "patterns_many": changed(alpha_pattern={f"a{i}": 1 for i in range(2000)}) + b"\0" + weights(),
        "no_weights": changed(),
        "empty": b"",
        "only_separator": b"\0",
        "cut": good[:-3],
        "cut_header": good[:150],
        "no_modules": changed(target_modules=[]) + b"\0" + container("{}"),
        "dora": changed(use_dora=True) + b"\0" + weights(),
        "rank_pattern": changed(rank_pattern={"q_proj": 8}) + b"\0" + weights(),
        "wrong_layer": (changed() + b"\0" + weights()).replace(b"layers.0", b"layers.9"),
        "alpha_nan": changed(lora_alpha=float("nan")) + b"\0" + weights(),
    }
    for name, data in files.items():
        put("peft", name, data)


U32, F32, BOOL, TEXT, ARRAY, I32 = 4, 6, 7, 8, 9, 5


def gguf_text(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_pair(key, value):
    """Key and value; a Python type becomes the format's."""
    head = gguf_text(key)
    if isinstance(value, bool):
        return head + struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return head + struct.pack("<II", U32, value)
    if isinstance(value, float):
        return head + struct.pack("<If", F32, value)
    if isinstance(value, str):
        return head + struct.pack("<I", TEXT) + gguf_text(value)
    kind = {str: TEXT, float: F32, int: I32}[type(value[0])]
    items = {TEXT: gguf_text, F32: lambda x: struct.pack("<f", x), I32: lambda x: struct.pack("<i", x)}[kind]
    return head + struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(map(items, value))


def gguf_tensor(name, shape, kind, offset):
    """Dimensions innermost first, as the file has them."""
    return gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf_file(pairs, tensors, data=0, version=3, counts=None, extra=b""):
    counts = counts or (len(tensors), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts)
    head += b"".join(gguf_pair(*pair) for pair in pairs.items()) + b"".join(gguf_tensor(*t) for t in tensors) + extra
    return head + bytes(-len(head) % 32 + data)


def gguf():
    model = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 64, "llama.embedding_length": 32,
        "llama.feed_forward_length": 32, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0,
    }
    bpe = model | {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.tokens": ["a", "b", "ab", "<e>", "[PAD4]"],
        "tokenizer.ggml.token_type": [1, 1, 1, 3, 5], "tokenizer.ggml.merges": ["a b"], "tokenizer.ggml.eos_token_id": 3,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + ["\u2581", "a", "aa", "aaa", "\u2581a", "  "]
    spm = model | {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": pieces, "tokenizer.ggml.scores": [0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -5.0, 0.0],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * 5 + [4], "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
    }
    tensors, offset = [], 0

    def put_tensor(name, shape, kind, size):
        nonlocal offset
        tensors.append((name, shape, kind, offset))
        offset += size + -size % 32

    put_tensor("token_embd.weight", [32, 5], 8, 5 * 34)
    put_tensor("output_norm.weight", [32], 0, 128)
    for part, rows, kind, size in [("attn_q", 32, 2, 18), ("attn_k", 16, 3, 20), ("attn_v", 16, 6, 22), ("attn_output", 32, 7, 24),
                                   ("ffn_gate", 32, 1, 64), ("ffn_up", 32, 30, 64), ("ffn_down", 32, 8, 34)]:
        put_tensor(f"blk.0.{part}.weight", [32, rows], kind, rows * size)
    for part in ["attn_norm", "ffn_norm"]:
        put_tensor(f"blk.0.{part}.weight", [32], 0, 128)
    good = gguf_file(bpe, tensors, offset)
    one = lambda *t, data=64: gguf_file({}, [("a", *t)], data)
    pair = lambda raw, count=1: gguf_file({}, [], counts=(0, count), extra=raw)
    array = lambda kind, count, raw=b"": pair(gguf_text("a") + struct.pack("<IIQ", ARRAY, kind, count) + raw)
    files = {
        "good": good,
        "sentencepiece": gguf_file(spm, tensors, offset),
        "qwen2": gguf_file({k.replace("llama.", "qwen2."): ("qwen2" if v == "llama" else v) for k, v in bpe.items()}, tensors, offset),
        "version_2": gguf_file(bpe, tensors, offset, version=2),
        "k_quants": gguf_file({}, [("a", [256, 2], 12, 0), ("b", [256], 13, 288), ("c", [256], 14, 480)], 690),
        "empty": b"",
        "magic": good[:4],
        "cut_metadata": good[:200],
        "cut_tensors": good[:-offset - 60],
        "cut_data": good[:-1],
        "big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "counts_max": gguf_file({}, [], counts=((1 << 64) - 1, (1 << 64) - 1)),
        "counts_within": gguf_file({}, [], counts=(1 << 16, 1 << 12)),
        "key_max": pair(struct.pack("<Q", (1 << 64) - 1)),
        "key_not_utf8": pair(gguf_text(b"\xff") + struct.pack("<II", U32, 1)),
        "key_repeated": pair(gguf_pair("a", 1) + gguf_pair("a", 2), 2),
        "type_unknown": pair(gguf_text("a") + struct.pack("<I", 99)),
        "bool_two": pair(gguf_text("a") + struct.pack("<IB", BOOL, 2)),
        "array_max": array(U32, (1 << 64) - 1),
        "array_within": array(U32, 1 << 24),
        "array_texts_within": array(TEXT, 1 << 24, bytes(8 * 500)),
        "array_arrays": array(ARRAY, 3, struct.pack("<IQ", ARRAY, 3) * 3),
        "alignment_zero": gguf_file({"general.alignment": 0}, []),
        "alignment_one": gguf_file({"general.alignment": 1}, [("a", [4], 0, 0)], 16),
        "alignment_huge": gguf_file({"general.alignment": 1 << 31}, [("a", [4], 0, 0)], 16),
        "alignment_text": gguf_file({"general.alignment": "32"}, []),
        "dimensions_none": one([], 0, 0),
        "dimensions_many": one([1] * 5, 0, 0),
        "dimensions_max": one([(1 << 64) - 1] * 4, 0, 0),
        "dimension_zero": one([0, (1 << 64) - 1], 0, 0, data=0),
        "dimension_zero_then_huge": one([0, 1 << 63, 1 << 63], 0, 0, data=0),
        "dimension_zero_first": one([0], 12, 0, data=0),
        "block_cut": one([31], 8, 0),
        "kind_unknown": one([32], 4, 0),
        "offset_max": one([4], 0, (1 << 64) - 1),
        "offset_unaligned": one([4], 0, 4),
        "gap": gguf_file({}, [("a", [4], 0, 0), ("b", [4], 0, 64)], 96),
        "overlap": gguf_file({}, [("a", [16], 0, 0), ("b", [4], 0, 32)], 96),
        "tensor_repeated": gguf_file({}, [("a", [4], 0, 0), ("a", [4], 0, 32)], 96),
        "many_tensors": gguf_file({}, [(f"t{i}", [8], 0, 32 * i) for i in range(500)], 32 * 500),
        "merge_unknown": gguf_file(bpe | {"tokenizer.ggml.merges": ["a c"]}, tensors, offset),
        "merge_no_space": gguf_file(bpe | {"tokenizer.ggml.merges": ["ab"]}, tensors, offset),
        "tokens_repeated": gguf_file(bpe | {"tokenizer.ggml.tokens": ["a", "a", "ab", "<e>", "x"]}, tensors, offset),
        "tokens_numbers": gguf_file(bpe | {"tokenizer.ggml.tokens": [1, 2, 3]}, tensors, offset),
        "token_types_few": gguf_file(bpe | {"tokenizer.ggml.token_type": [1]}, tensors, offset),
        "pre_unknown": gguf_file(bpe | {"tokenizer.ggml.pre": "nobody"}, tensors, offset),
        "eos_outside": gguf_file(bpe | {"tokenizer.ggml.eos_token_id": 77}, tensors, offset),
        "scores_nan": gguf_file(spm | {"tokenizer.ggml.scores": [float("nan")] * len(pieces)}, tensors, offset),
        "sizes_huge": gguf_file(bpe | {"llama.block_count": 0xFFFFFFFF, "llama.embedding_length": 0xFFFFFFFF}, tensors, offset),
        "heads_zero": gguf_file(bpe | {"llama.attention.head_count": 0}, tensors, offset),
        "heads_array": gguf_file(bpe | {"llama.attention.head_count": [4, 4]}, tensors, offset),
        "rope_factors": gguf_file(bpe, [("rope_freqs.weight", [4], 0, 0)] + [(n, s, k, o + 32) for n, s, k, o in tensors], offset + 32),
    }
    for name, data in files.items():
        put("gguf", name, data)


if __name__ == "__main__":
    gguf()
    safetensors()
    config()
    index()
    templates()
    tokenizer_config()
    peft()
    packed()
