"""Writes a GGUF file of the shape of Llama-3.2-1B, Llama-3.1-8B or the tiny model with random bf16 weights, for `tiger bench --llama-model`.

Speed only: the weights mean nothing, and there is no vocabulary. Needs PyPI's `gguf`; 1b takes 2.3 GiB of memory, 8b 15 GiB.

    python bench/llama/shape.py 1b ./1b-bf16.gguf
    llama-quantize ./1b-bf16.gguf ./1b-q4_0.gguf Q4_0
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


def main(name, path):
    hidden, layers, heads, kv_heads, head, ffn, vocabulary, tied = SHAPES[name]
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(131072)
    out.add_embedding_length(hidden)
    out.add_block_count(layers)
    out.add_feed_forward_length(ffn)
    out.add_head_count(heads)
    out.add_head_count_kv(kv_heads)
    out.add_key_length(head)
    out.add_value_length(head)
    out.add_rope_dimension_count(head)
    out.add_rope_freq_base(500000.0)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(vocabulary)
    out.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    out.add_tokenizer_model("none")

    random = numpy.random.default_rng(1)
    # Drawing billions of normal numbers would take longer than everything measured: every matrix is a window of these.
    normal = (random.standard_normal(1 << 22).astype(numpy.float32) * 0.02).view(numpy.uint32) >> 16

    def matrix(key, rows, columns):
        start = int(random.integers(0, 1 << 16))
        bits = numpy.resize(normal[start:].astype(numpy.uint16), rows * columns)
        out.add_tensor(key, bits.reshape(rows, columns).view(numpy.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)

    def norm(key):
        out.add_tensor(key, numpy.ones(hidden, numpy.float32))

    matrix("token_embd.weight", vocabulary, hidden)
    if not tied:
        matrix("output.weight", vocabulary, hidden)
    norm("output_norm.weight")
    for layer in range(layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight")
        norm(block + "ffn_norm.weight")
        matrix(block + "attn_q.weight", heads * head, hidden)
        matrix(block + "attn_k.weight", kv_heads * head, hidden)
        matrix(block + "attn_v.weight", kv_heads * head, hidden)
        matrix(block + "attn_output.weight", hidden, heads * head)
        matrix(block + "ffn_gate.weight", ffn, hidden)
        matrix(block + "ffn_up.weight", ffn, hidden)
        matrix(block + "ffn_down.weight", hidden, ffn)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SHAPES:
        sys.exit("usage: shape.py 1b|8b|tiny OUT.gguf")
    main(*sys.argv[1:])
