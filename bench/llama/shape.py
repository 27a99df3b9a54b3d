"""Writes a GGUF file of the shape of Llama-3.2-1B, Llama-3.1-8B or the tiny model with random weights, for `tiger bench --llama-model`.

Speed only: the weights mean nothing, and there is no vocabulary. Needs PyPI's `gguf`, and memory for the whole file. The types of the
tensors are those that llama-quantize chooses: the head of a Q4_0 file is Q6_K.

    python bench/llama/shape.py 1b ./1b-bf16.gguf
    python bench/llama/shape.py 8b ./8b-q4_0.gguf Q4_0
"""

import sys

import gguf
import numpy

# hidden, layers, heads, key heads, head size, ffn, vocabulary, tied
SHAPES = {
    "1b": (2048, 16, 32, 8, 64, 8192, 128256, True),
    "8b": (4096, 32, 32, 8, 128, 14336, 128256, False),
    "tiny": (288, 6, 6, 6, 48, 768, 4096, True),
}


TYPES = {
    "BF16": gguf.GGMLQuantizationType.BF16,
    "Q8_0": gguf.GGMLQuantizationType.Q8_0,
    "Q4_0": gguf.GGMLQuantizationType.Q4_0,
    "Q6_K": gguf.GGMLQuantizationType.Q6_K,
}


def window(random, kind):
    """Bytes of some millions of normal weights; every matrix is a stretch of these, for drawing billions would outlast all measuring."""
    normal = random.standard_normal(1 << 22).astype(numpy.float32) * 0.02
    if kind != "Q6_K":
        return gguf.quants.quantize(normal, TYPES[kind]).view(numpy.uint8)
    # The library cannot make these: per 256 weights their bits and scales, then one half-precision scale of all.
    blocks = random.integers(0, 256, ((1 << 22) // 256, 210), numpy.uint8)
    blocks[:, 208:] = numpy.full((1, 1), 1e-5, numpy.float16).view(numpy.uint8)
    return blocks.reshape(-1)


def main(name, path, kind):
    hidden, layers, heads, kv_heads, head_size, ffn, vocabulary, tied = SHAPES[name]
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(131072)
    out.add_embedding_length(hidden)
    out.add_block_count(layers)
    out.add_feed_forward_length(ffn)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(head_size)
    out.add_value_length(head_size)
    out.add_rope_dimension_count(head_size)
    out.add_rope_freq_base(500000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(vocabulary)
    out.add_file_type(gguf.LlamaFileType["MOSTLY_" + kind])
    out.add_tokenizer_model("none")

    random = numpy.random.default_rng(1)
    windows = {}

    def matrix(key, rows, columns, kind=kind):
        if kind not in windows:
            windows[kind] = window(random, kind)
        values, size = gguf.GGML_QUANT_SIZES[TYPES[kind]]
        start = int(random.integers(0, 1 << 8)) * size
        data = numpy.resize(windows[kind][start:], rows * columns // values * size)
        out.add_tensor(key, data.reshape(rows, -1), raw_dtype=TYPES[kind])

    def norm(key):
        out.add_tensor(key, numpy.ones(hidden, numpy.float32))

    head = "Q6_K" if kind == "Q4_0" and hidden % 256 == 0 else kind
    matrix("token_embd.weight", vocabulary, hidden, head if tied else kind)
    if not tied:
        matrix("output.weight", vocabulary, hidden, head)
    norm("output_norm.weight")
    for layer in range(layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight")
        norm(block + "ffn_norm.weight")
        matrix(block + "attn_q.weight", heads * head_size, hidden)
        matrix(block + "attn_k.weight", kv_heads * head_size, hidden)
        matrix(block + "attn_v.weight", kv_heads * head_size, hidden)
        matrix(block + "attn_output.weight", hidden, heads * head_size)
        matrix(block + "ffn_gate.weight", ffn, hidden)
        matrix(block + "ffn_up.weight", ffn, hidden)
        matrix(block + "ffn_down.weight", hidden, ffn)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 4 or sys.argv[1] not in SHAPES or sys.argv[3:] not in ([], ["BF16"], ["Q8_0"], ["Q4_0"]):
        sys.exit("usage: shape.py 1b|8b|tiny OUT.gguf [BF16|Q8_0|Q4_0]")
    main(*sys.argv[1:3], sys.argv[3] if sys.argv[3:] else "BF16")
