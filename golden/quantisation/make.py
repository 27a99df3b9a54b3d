"""What Q8_0 and Q4_0 would cost Tiger-Nano: KL to the unrounded model, with weights and activations rounded as those formats do.

Job: write error.json, which the tests of crates/model compare int8 and int4 with.
Does not know: how ours are rounded.

Run: python make.py   (torch, transformers)
Source of the formats: blocks of 32 along the input; Q8_0: d = max|x| / 127 as f16, q = round(x / d); Q4_0: d = (the value of largest
magnitude) / -8 as f16, q = min(15, trunc(x / d + 8.5)) - 8. Activations are rounded as Q8_0 in both. The head, which is the embedding, is
Q8_0 in both: that is kinder to Q4_0 than its usual mixture.
"""

import json
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

HERE = Path(__file__).parent
NANO = HERE / "../../models/nano"
BLOCK, TOKENS = 32, 2048


def q8_0(x):
    b = x.reshape(-1, BLOCK)
    d = b.abs().amax(1, keepdim=True) / 127
    q = torch.where(d > 0, (b / d), torch.zeros_like(b)).round()
    return (q * d.half().float()).reshape(x.shape)


def q4_0(x):
    b = x.reshape(-1, BLOCK)
    extreme = b.gather(1, b.abs().argmax(1, keepdim=True))
    d = extreme / -8
    q = torch.where(d != 0, b / d, torch.zeros_like(b)) + 8.5
    return ((q.trunc().clamp(max=15) - 8) * d.half().float()).reshape(x.shape)


def rounded(model, weight):
    for name, linear in model.named_modules():
        if isinstance(linear, torch.nn.Linear):
            linear.weight.data = (q8_0 if name == "lm_head" else weight)(linear.weight.data)
            linear.register_forward_pre_hook(lambda module, x: (q8_0(x[0]),))
    return model


@torch.no_grad()
def main():
    def load():
        return LlamaForCausalLM.from_pretrained(NANO / "checkpoint", dtype=torch.float32).eval()

    questions = json.loads((NANO / "questions.json").read_text())
    text = "".join(f"<|bos|><|user|>{x['question']}<|end|><|assistant|>{x['answer']}<|end|>" for x in questions["unseen"])
    ids = AutoTokenizer.from_pretrained(NANO / "checkpoint")(text, add_special_tokens=False).input_ids[:TOKENS]
    windows = torch.tensor(ids[:len(ids) // 256 * 256]).reshape(-1, 256)
    p = load()(windows).logits.double().log_softmax(-1)
    out = {"windows": windows.tolist()}
    for name, weight in (("q8_0", q8_0), ("q4_0", q4_0)):
        q = rounded(load(), weight)(windows).logits.double().log_softmax(-1)
        out[name] = (p.exp() * (p - q)).sum(-1).mean().item()
        print(name, out[name])
    (HERE / "error.json").write_text(json.dumps(out) + "\n")


main()
