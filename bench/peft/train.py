"""Times a LoRA training step of PyTorch and PEFT on a shape with random weights: what `tiger bench --train --python` runs beside ours.

The same work as ours: rank 16, alpha 32, no dropout, on all seven linear maps of each layer; packed sequences, every token trained; forward,
cross-entropy, backward and AdamW on the adapter. Prints one line of JSON: tokens per second of the best timed step, and the peak resident
memory of the steps (the making of the model does not count). Speed only: the weights mean nothing.

    pip install -r bench/peft/requirements.txt
    python bench/peft/train.py --shape 1b --threads 2
    python bench/peft/train.py --shape 1b --threads 2 --checkpoint --layers 4
"""

import argparse
import json
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

# hidden, layers, heads, key heads, head size, ffn, vocabulary, tied
SHAPES = {
    "1b": (2048, 16, 32, 8, 64, 8192, 128256, True),
    "8b": (4096, 32, 32, 8, 128, 14336, 128256, False),
    "nano": (256, 4, 4, 2, 64, 704, 2048, True),
    "tiny": (288, 6, 6, 6, 48, 768, 4096, True),
}
DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
# What PyTorch computes bf16 with; without AVX-512 its products of bf16 are some twenty times slower than those of f32.
FASTEST = "bf16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "f32"
RANK = 16


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape's")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--dtype", choices=DTYPES, default=FASTEST, help="of the base; PEFT keeps the adapter in f32")
    parser.add_argument("--micro-batch", type=int, help="sequences of a pass; the default is all")
    parser.add_argument("--checkpoint", action="store_true", help="keep layer inputs only, compute layers again in the backward")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's choice")
    parser.add_argument("--warmups", type=int, default=1, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=1, help="timed steps")
    return parser.parse_args()


def make(args):
    hidden, layers, heads, kv_heads, head_size, ffn, vocabulary, tied = SHAPES[args.shape]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=args.layers or layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_size,
        tie_word_embeddings=tied,
        max_position_embeddings=131072,
        use_cache=False,
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[args.dtype])
    model = LlamaForCausalLM(config)
    torch.set_default_dtype(default)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules=targets))
    if args.checkpoint:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    return model, vocabulary


def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def peak_bytes():
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main():
    args = options()
    torch.manual_seed(1)
    if args.threads:
        torch.set_num_threads(args.threads)
    model, vocabulary = make(args)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    tokens = torch.randint(vocabulary, (args.sequences, args.length))
    reset_peak()
    best = float("inf")
    for step in range(args.warmups + args.steps):
        started = time.perf_counter()
        for part in tokens.split(args.micro_batch or args.sequences):
            loss = model(input_ids=part, labels=part).loss
            (loss * (len(part) / args.sequences)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step >= args.warmups:
            best = min(best, time.perf_counter() - started)
    result = {
        "tokens_per_s": tokens.numel() / best,
        "peak_resident_bytes": peak_bytes(),
        "dtype": args.dtype,
        "checkpointed": args.checkpoint,
        "layers": model.config.num_hidden_layers,
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
