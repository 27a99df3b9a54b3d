"""Lets PEFT write a LoRA adapter for a tiny Llama, with facts to check a reader by.

Writes adapter/{adapter_config.json, adapter_model.safetensors, facts.json}.
Run: python make_adapter.py   (versions pinned in ../requirements.txt; no network)
"""

import json
import pathlib

import peft
import torch
import transformers

OUT = pathlib.Path(__file__).parent / "adapter"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=12, vocab_size=16, max_position_embeddings=64,
    )
    base = transformers.LlamaForCausalLM(config)
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, lora)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.uniform_(-1, 1)
    model.save_pretrained(OUT)
    (OUT / "README.md").unlink(missing_ok=True)
    facts = {}
    for name, tensor in peft.get_peft_model_state_dict(model).items():
        # base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
        _, _, _, _, layer, block, module, half, _ = name.split(".")
        flat = tensor.double().flatten()
        weighted = (flat * torch.arange(1, len(flat) + 1, dtype=torch.float64)).sum().item()
        facts.setdefault(f"{layer}.{block}.{module}", {})[half[-1].lower()] = weighted
    (OUT / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
