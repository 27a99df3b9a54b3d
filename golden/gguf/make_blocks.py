"""Random blocks of every quantised type, and their values by PyPI's `gguf`: what tiger_formats must give bit for bit.

    python golden/gguf/make_blocks.py      # writes blocks.safetensors

Scales are any finite halves, zeros and subnormals among them. Versions pinned in ../requirements.txt; no network.
"""

import pathlib

import gguf
import numpy
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
# name: places of the halves in a block, bytes
TYPES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
BLOCKS = 12


def halves(random, count):
    """Small ones mostly, as in models, and the corners."""
    bits = numpy.concatenate([
        random.normal(0, 0.02, count - 5).astype(numpy.float16).view(numpy.uint16),
        numpy.array([0x0000, 0x8000, 0x0001, 0x7BFF, 0x3C00], numpy.uint16),
    ])
    random.shuffle(bits)
    return bits


def main():
    random = numpy.random.default_rng(7)
    tensors = {}
    for name, places in TYPES.items():
        kind = gguf.GGMLQuantizationType[name]
        blocks = random.integers(0, 256, (BLOCKS, gguf.GGML_QUANT_SIZES[kind][1]), numpy.uint8)
        for place in places:
            blocks[:, place : place + 2] = halves(random, BLOCKS).view(numpy.uint8).reshape(BLOCKS, 2)
        tensors[f"{name}.bytes"] = blocks.reshape(-1)
        tensors[f"{name}.values"] = gguf.quants.dequantize(blocks, kind).reshape(-1)
        assert numpy.isfinite(tensors[f"{name}.values"]).all(), name
    save_file(tensors, HERE / "blocks.safetensors")


if __name__ == "__main__":
    main()
