"""Golden numbers of the decoder, made by transformers and autograd in f32.

Writes, per case: a tiny random checkpoint folder as transformers saves it, `adapter.safetensors` (LoRA weights under PEFT's names) and
`expected.safetensors` (token ids, logits of the bare base and with the adapter, gradients of a loss at the head).
Does not know the Rust code that reads them.

    python golden/model/make.py            # all, or only those named; with the packages of golden/requirements.txt
"""

import json
import pathlib
import shutil
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

HERE = pathlib.Path(__file__).parent
MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
BASE = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, intermediate_size=96, vocab_size=97,
            max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=None)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
LLAMA32 = dict(rope_type="llama3", rope_theta=500000.0, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)


def plain(theta):
    return dict(rope_type="default", rope_theta=theta)


def yarn(theta, original_max_position_embeddings=32, **more):
    return dict(rope_type="yarn", rope_theta=theta, original_max_position_embeddings=original_max_position_embeddings, **more)


QWEN3 = dict(hidden_size=48, num_key_value_heads=2, head_dim=32, rms_norm_eps=1e-6, rope_parameters=plain(1e6), attention_bias=False,
             use_sliding_window=False, sliding_window=None, max_window_layers=2)
MISTRAL = dict(hidden_size=40, num_key_value_heads=2, head_dim=16, intermediate_size=140, rope_parameters=plain(1e6))

# name: (config class, changes, stored dtype, adapter rank)
CASES = {
    "mha_untied_f32": (LlamaConfig, {}, torch.float32, 4),
    "gqa4_tied_bf16": (LlamaConfig, dict(num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=True), torch.bfloat16, 8),
    "gqa8_wide_head_bf16": (LlamaConfig, dict(num_attention_heads=8, num_key_value_heads=1, head_dim=16), torch.bfloat16, 16),
    "llama3_rope_f32": (LlamaConfig, dict(rope_theta=10000.0, rope_scaling=LLAMA3, num_key_value_heads=1), torch.float32, 3),
    "qwen2_biases_f32": (Qwen2Config, dict(num_key_value_heads=2, tie_word_embeddings=True), torch.float32, 20),
    "odd_ffn_linear_rope_f32": (LlamaConfig, dict(hidden_size=60, num_attention_heads=3, num_key_value_heads=3, head_dim=20, intermediate_size=45,
                                                rope_scaling=dict(rope_type="linear", factor=2.0)), torch.float32, 5),
    "all_biases_f16": (LlamaConfig, dict(attention_bias=True, mlp_bias=True, num_key_value_heads=2), torch.float16, 7),
    # The families as they are published, at the size of a thumb: every switch is the real one, ratios of sizes too.
    "llama32_f32": (LlamaConfig, dict(hidden_size=48, num_attention_heads=8, num_key_value_heads=2, head_dim=6, intermediate_size=192,
                                      tie_word_embeddings=True, rope_parameters=LLAMA32), torch.float32, 4),
    "smollm2_bf16": (LlamaConfig, dict(hidden_size=72, num_attention_heads=9, num_key_value_heads=3, intermediate_size=192, tie_word_embeddings=True,
                                       rope_parameters=plain(1e5), is_llama_config=True, rope_interleaved=False), torch.bfloat16, 3),
    "qwen25_untied_bf16": (Qwen2Config, dict(num_key_value_heads=1, rms_norm_eps=1e-6, rope_parameters=plain(1e6), use_sliding_window=False,
                                             sliding_window=32, max_window_layers=1), torch.bfloat16, 4),
    "qwen3_tied_f32": (Qwen3Config, QWEN3 | dict(tie_word_embeddings=True), torch.float32, 4),
    "qwen3_untied_bf16": (Qwen3Config, QWEN3 | dict(num_key_value_heads=1), torch.bfloat16, 4),
    "qwen3_biases_f32": (Qwen3Config, QWEN3 | dict(num_attention_heads=3, num_key_value_heads=3, head_dim=20, attention_bias=True), torch.float32, 3),
    # YaRN as the cards of Qwen 2.5 and 3 recommend it, and with every parameter of its own. Ramps begin and end inside the channels.
    "qwen25_yarn_f32": (Qwen2Config, dict(hidden_size=48, num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=32, rms_norm_eps=1e-6,
                                          tie_word_embeddings=True, rope_parameters=yarn(1e4, factor=4.0)), torch.float32, 3),
    "qwen3_yarn_f32": (Qwen3Config, QWEN3 | dict(num_key_value_heads=1, tie_word_embeddings=True, rope_parameters=yarn(
        1e4, factor=2.5, original_max_position_embeddings=64, beta_fast=4.0, beta_slow=1.5, attention_factor=1.3, truncate=False)), torch.float32, 3),
    "llama_yarn_f32": (LlamaConfig, dict(hidden_size=40, num_attention_heads=2, num_key_value_heads=1, rope_parameters=yarn(
        1e4, factor=8.0, beta_fast=3.0, mscale=1.0, mscale_all_dim=0.4)), torch.float32, 3),
    "mistral_f32": (MistralConfig, MISTRAL | dict(sliding_window=None), torch.float32, 4),
    # Written as transformers 4 did; the first sequence is as long as the window, and so is the context.
    "mistral_window_old_f32": (MistralConfig, MISTRAL | dict(sliding_window=64), torch.float32, 4),
}


class LoRA(torch.nn.Module):
    """y = W x + b + (alpha / rank) B A x, in PEFT's layout: A [R, K], B [N, R]."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.a = torch.nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.b = torch.nn.Parameter(0.3 * torch.randn(base.out_features, rank) / rank**0.5)

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.a.T) @ self.b.T


def put_lora(model, rank, alpha):
    pairs = {}
    for index, layer in enumerate(model.model.layers):
        for path in MODULES:
            parent = layer.get_submodule(path.rsplit(".", 1)[0])
            name = path.rsplit(".", 1)[1]
            lora = LoRA(getattr(parent, name), rank, alpha)
            setattr(parent, name, lora)
            pairs[f"base_model.model.model.layers.{index}.{path}"] = lora
    return pairs


def write_old(path):
    """The same configuration in the words of transformers 4."""
    config = json.loads(path.read_text())
    config |= dict(torch_dtype=config.pop("dtype"), rope_theta=config.pop("rope_parameters")["rope_theta"], transformers_version="4.34.0.dev0")
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def make(name, config_class, changes, dtype, rank):
    torch.manual_seed(sum(map(ord, name)))
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)  # transformers would load an adapter left there
    config = config_class(**{**BASE, **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for key, parameter in model.named_parameters():
        with torch.no_grad():
            if "norm" in key:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "bias" in key:
                parameter.copy_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(4.0)  # transformers' 0.02 makes logits too flat to tell a fault from noise
    model.to(dtype).save_pretrained(folder, max_shard_size="60KB" if name == "mha_untied_f32" else "5GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if "_old_" in name:
        write_old(folder / "config.json")
    # Read back, not cast back: casting rounds the rotary frequencies too, which no checkpoint holds.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    lengths = [getattr(config, "sliding_window", None) or 90, 23]
    tokens = [torch.randint(0, config.vocab_size, (length,)) for length in lengths]
    base_logits = [model(t[None]).logits[0] for t in tokens]
    alpha = 2.0 * rank
    pairs = put_lora(model, rank, alpha)
    logits = [model(t[None]).logits[0] for t in tokens]
    out, loss = {}, 0.0
    for i, (t, z, z_base) in enumerate(zip(tokens, logits, base_logits)):
        coefficient = torch.randn(len(t) - 1) / 10
        weight = torch.rand(len(t) - 1) / 20
        logprob = z.log_softmax(-1)
        picked = logprob[:-1].gather(1, t[1:, None])[:, 0]
        kl = (logprob[:-1].exp() * (logprob[:-1] - z_base.log_softmax(-1)[:-1])).sum(-1)
        loss = loss + (coefficient * picked).sum() + (weight * kl).sum()
        out |= {f"tokens.{i}": t.float(), f"base_logits.{i}": z_base, f"logits.{i}": z, f"coefficient.{i}": coefficient,
                f"weight.{i}": weight, f"logprob.{i}": picked, f"kl.{i}": kl, f"entropy.{i}": -(logprob.exp() * logprob).sum(-1)[:-1]}
    loss.backward()
    adapter = {}
    for key, lora in pairs.items():
        adapter[f"{key}.lora_A.weight"], adapter[f"{key}.lora_B.weight"] = lora.a, lora.b
        out[f"{key}.lora_A.grad"], out[f"{key}.lora_B.grad"] = lora.a.grad, lora.b.grad
    plain = lambda tensors: {k: v.detach().float().contiguous() for k, v in tensors.items()}
    save_file(plain(adapter), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(dict(
        peft_type="LORA", task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none",
        target_modules=[m.split(".")[1] for m in MODULES])) + "\n")
    save_file(plain(out), folder / "expected.safetensors")
    print(name, "loss", loss.item())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or CASES:
        make(name, *CASES[name])
