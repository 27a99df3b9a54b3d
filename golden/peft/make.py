"""Lets PEFT make LoRA adapters with ranks, scales and modules of all kinds on the tiny bases of ../model, and load what TigerCity makes of them.

    python make.py adapters      # each case's adapter as PEFT saves it, and expected.safetensors: token ids, PEFT's logits in f32
    cargo run -p tiger-model --example export -- golden/model/BASE golden/peft/CASE golden/peft/CASE/exported      (for each case)
    python make.py check         # PEFT loads `exported` onto the base: logits within 1e-3 of what it had before; exported.json

Versions pinned in ../requirements.txt; no network. Does not know the Rust code that reads the files.
"""

import json
import pathlib
import shutil
import sys

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
TOLERANCE = 1e-3
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# name: (base, what the adapter's configuration says)
CASES = {
    "patterns": ("qwen2_biases_f32", dict(
        r=4, lora_alpha=8, target_modules=ALL,
        rank_pattern={r"layers\.1\.self_attn\.q_proj": 9, "q_proj": 2, "down_proj": 6},
        alpha_pattern={"^model.layers.0.self_attn.._proj": 3, "gate_proj": 32, "down_proj": 1})),
    "rslora_subset": ("llama3_rope_f32", dict(r=5, lora_alpha=7, use_rslora=True, target_modules=["q_proj", "self_attn.v_proj", "up_proj"],
                                             rank_pattern={"up_proj": 2})),
    "one_layer": ("mha_untied_f32", dict(r=3, lora_alpha=6, target_modules=["model.layers.1.self_attn.o_proj", "model.layers.0.mlp.gate_proj"])),
    "normed_heads": ("qwen3_untied_bf16", dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])),
    "regex_targets": ("all_biases_f16", dict(r=2, lora_alpha=4, target_modules=r".*layers\.0\.(self_attn\.(q|k)_proj|mlp\.down_proj)")),
}


def base_of(name):
    # transformers would load an adapter that lies beside the base.
    copy = HERE / ".base"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(HERE.parent / "model" / name, copy, ignore=shutil.ignore_patterns("adapter_*"))
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32, attn_implementation="eager").eval()
    shutil.rmtree(copy)
    return model


def make(name, base, config):
    torch.manual_seed(sum(map(ord, name)))
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = peft.get_peft_model(base_of(base), peft.LoraConfig(task_type="CAUSAL_LM", **config)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[1] ** 0.5)
        tokens = [torch.randint(0, model.config.vocab_size, (length,)) for length in (40, 9)]
        expected = {f"tokens.{i}": t.float() for i, t in enumerate(tokens)}
        expected |= {f"logits.{i}": model(t[None]).logits[0].contiguous() for i, t in enumerate(tokens)}
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    saved = json.loads((folder / "adapter_config.json").read_text())
    saved["base_model_name_or_path"] = base
    # PEFT keeps a set.
    if isinstance(saved["target_modules"], list):
        saved["target_modules"].sort()
    (folder / "adapter_config.json").write_text(json.dumps(saved, indent=1) + "\n")
    save_file(expected, folder / "expected.safetensors")
    print(name, "made")


def check(name, base):
    folder = HERE / name
    expected = load_file(folder / "expected.safetensors")
    model = peft.PeftModel.from_pretrained(base_of(base), folder / "exported").eval()
    plain = base_of(base)
    worst, moved = 0.0, 0.0
    with torch.no_grad():
        for i in range(2):
            tokens, want = expected[f"tokens.{i}"].long()[None], expected[f"logits.{i}"]
            worst = max(worst, ((model(tokens).logits[0] - want).norm() / want.norm()).item())
            moved = max(moved, ((plain(tokens).logits[0] - want).norm() / want.norm()).item())
    print(name, "relative error", worst, "without the adapter", moved)
    if worst > TOLERANCE or moved < 10 * TOLERANCE:
        sys.exit(f"{name}: PEFT does not find the adapter's logits again")
    return {"relative_error": worst, "without_adapter": moved}


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["adapters"]:
        for name, (base, config) in CASES.items():
            make(name, base, config)
    elif sys.argv[1:] == ["check"]:
        found = {name: check(name, base) for name, (base, _) in CASES.items()}
        (HERE / "exported.json").write_text(json.dumps(found, indent=1) + "\n")
    else:
        sys.exit(__doc__)
