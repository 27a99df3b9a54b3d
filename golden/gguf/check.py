"""Reads the GGUF files that TigerCity writes with PyPI's `gguf` and compares every tensor with its own, made from the checkpoint here.

    cargo build -p tiger-formats --example gguf
    python golden/gguf/check.py target/debug/examples/gguf      # writes checked.json: the hash of each file that was found right

A test of `formats` compares the hash of what it writes with that. The built-in model's file is also loaded by transformers, which has a reader
of its own: same logits as from the checkpoint. Versions pinned in ../requirements.txt; no network.
"""

import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
NANO = ROOT / "models/nano/checkpoint"
# name: (checkpoint, tokenizer's folder, type)
CASES = {
    "nano.bf16": (NANO, NANO, "bf16"),
    "nano.q8_0": (NANO, NANO, "q8_0"),
    "llama3_rope_f32.q8_0": (HERE.parent / "model/llama3_rope_f32", HERE, "q8_0"),
    "qwen2_biases_f32.bf16": (HERE.parent / "model/qwen2_biases_f32", HERE, "bf16"),
    "qwen3_tied_f32.bf16": (HERE.parent / "model/qwen3_tied_f32", HERE, "bf16"),
    "qwen3_untied_bf16.q8_0": (HERE.parent / "model/qwen3_untied_bf16", HERE, "q8_0"),
    "qwen25_yarn_f32.bf16": (HERE.parent / "model/qwen25_yarn_f32", HERE, "bf16"),
    "all_biases_f16.q8_0": (HERE.parent / "model/all_biases_f16", HERE, "q8_0"),
    "odd_ffn_linear_rope_f32.q8_0": (HERE.parent / "model/odd_ffn_linear_rope_f32", HERE, "q8_0"),
}
PARTS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
         "post_attention_layernorm": "ffn_norm"}


def new_name(name):
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def known_names(arch, layers):
    """What llama.cpp calls the tensors of a family."""
    family = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    names = [gguf.TENSOR_NAMES[part] for part in gguf.MODEL_TENSORS[family]]
    return [f"{name.format(bid=layer)}.{kind}" for name in names for layer in range(layers) for kind in ("weight", "bias")]


def permuted(tensor, heads):
    """What llama.cpp's converter does to queries and keys of a Llama."""
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def wanted(base, kind):
    config = AutoConfig.from_pretrained(base)
    tensors = {}
    for shard in sorted(base.glob("model*.safetensors")):
        with safe_open(shard, "pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name).float().numpy()
                if config.model_type == "llama" and (".q_proj." in name or ".k_proj." in name):
                    tensor = permuted(tensor, config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads)
                tensors[new_name(name)] = tensor
    rope = config.rope_parameters
    if rope["rope_type"] == "llama3":
        # Against transformers' own frequencies.
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
        scaled = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]
        plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, config.head_dim, 2).double() / config.head_dim)
        tensors["rope_freqs.weight"] = (plain / scaled.double()).float().numpy()
    return config, tensors


def check(name, program, base, tokenizer, kind):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.gguf"
        subprocess.run([program, base, tokenizer, kind, path], check=True)
        config, tensors = wanted(base, kind)
        reader = gguf.GGUFReader(path)
        assert {t.name for t in reader.tensors} == set(tensors), set(tensors) ^ {t.name for t in reader.tensors}
        for tensor in reader.tensors:
            want = tensors[tensor.name]
            assert tuple(reversed(tensor.shape.tolist())) == want.shape, tensor.name
            block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_0][0]
            kind_here = "f32" if want.ndim == 1 else kind if kind != "q8_0" or want.shape[1] % block == 0 else "bf16"
            assert tensor.tensor_type == gguf.GGMLQuantizationType[kind_here.upper()], tensor.name
            if tensor.name == "rope_freqs.weight":
                assert numpy.allclose(tensor.data, want, rtol=1e-5), (tensor.data, want)
                continue
            data = gguf.quants.quantize(want, tensor.tensor_type)
            assert tensor.data.tobytes() == data.tobytes(), tensor.name
        field = lambda key: reader.fields[key].contents()
        arch = config.model_type if config.model_type.startswith("qwen") else "llama"
        assert arch in gguf.MODEL_ARCH_NAMES.values() and set(known_names(arch, config.num_hidden_layers)) >= set(tensors) - {"rope_freqs.weight"}
        found = {key: field(key.format(arch)) for key in (
            "general.architecture", "{}.block_count", "{}.embedding_length", "{}.feed_forward_length", "{}.attention.head_count",
            "{}.attention.head_count_kv", "{}.attention.key_length", "{}.rope.dimension_count", "{}.context_length", "{}.vocab_size")}
        want = [arch, config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads, config.num_key_value_heads,
                getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads] * 2
        rope = config.rope_parameters
        context = config.max_position_embeddings
        if rope["rope_type"] == "yarn":
            context = int(rope["factor"] * rope["original_max_position_embeddings"])
            scaling = {key: field(f"{arch}.rope.scaling.{key}") for key in ("type", "factor", "original_context_length")}
            assert scaling == dict(type="yarn", factor=rope["factor"], original_context_length=rope["original_max_position_embeddings"]), scaling
        assert list(found.values()) == want[:7] + [want[6], context, config.vocab_size], found
        assert numpy.float32(field(f"{arch}.attention.layer_norm_rms_epsilon")) == numpy.float32(config.rms_norm_eps)
        assert field(f"{arch}.rope.freq_base") == config.rope_parameters["rope_theta"]
        if config.rope_parameters["rope_type"] == "linear":
            assert (field(f"{arch}.rope.scaling.type"), field(f"{arch}.rope.scaling.factor")) == ("linear", config.rope_parameters["factor"])
        check_vocabulary(field, tokenizer, config)
        if name == "nano.bf16":
            check_logits(pathlib.Path(folder), base)
        return hashlib.sha256(path.read_bytes()).hexdigest()


def check_vocabulary(field, folder, config):
    json_of = lambda name: json.loads((folder / name).read_text())
    tokenizer, names = json_of("tokenizer.json"), json_of("tokenizer_config.json")
    tokens, kinds = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    assert len(tokens) == len(kinds) == config.vocab_size
    special = {t["id"]: t["content"] for t in tokenizer["added_tokens"]}
    by_id = {i: t for t, i in tokenizer["model"]["vocab"].items()} | special
    for i, (token, kind) in enumerate(zip(tokens, kinds)):
        want = (by_id[i], gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL) if i in by_id else (f"[PAD{i}]", gguf.TokenType.UNUSED)
        assert (token, kind) == want, (i, token, kind)
    assert field("tokenizer.ggml.merges") == [" ".join(m) for m in tokenizer["model"]["merges"]]
    assert field("tokenizer.ggml.model") == "gpt2"
    assert field("tokenizer.ggml.pre") == ("llama-bpe" if folder == NANO else "gpt-2")
    for key in ("bos", "eos"):
        assert tokens[field(f"tokenizer.ggml.{key}_token_id")] == names[f"{key}_token"]
    assert field("tokenizer.ggml.add_bos_token") is False
    template = folder / "chat_template.jinja"
    assert field("tokenizer.chat_template") == (template.read_text() if template.exists() else names["chat_template"])


def check_logits(folder, base):
    tokens = torch.arange(5, 70)[None]
    load = lambda path, **how: AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **how).eval()
    with torch.no_grad():
        ours, theirs = load(folder, gguf_file="model.gguf")(tokens).logits, load(base)(tokens).logits
    error = ((ours - theirs).norm() / theirs.norm()).item()
    print("transformers reads the file: relative error of logits", error)
    assert error < 1e-5


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    found = {name: check(name, sys.argv[1], *case) for name, case in CASES.items()}
    (HERE / "checked.json").write_text(json.dumps(found, indent=1) + "\n")
    print("all equal")
