"""Golden numbers of the training objective, made by autograd.

Writes `explicit.json` (f64: losses and gradients at explicit random logits for every objective and knob) and `curves.json` (f32: ten optimizer
steps of a tiny random Llama with LoRA on all seven linear maps; its checkpoint and adapter are in `tiny/`).
Written from the formulas of the objective, not from the Rust code, which it does not know.

    python golden/objective/make.py            # with the packages of golden/requirements.txt
"""

import json
import math
import pathlib

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
DEFAULT = dict(objective="tapered", baseline="group_mean", advantage_scale="cap", length_norm="token", clip_high=2.0, negative_floor=0.1,
               kl_coefficient=0.05)
CONSTANT_TOKENS = 256
FULL_STEP_RESPONSES = 8
MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


def advantages(rewards, baseline, scale):
    r = torch.tensor(rewards, dtype=torch.float64)
    if baseline == "group_mean":
        if len(r) > 1 and r.max() == r.min():
            return torch.zeros_like(r)
        d = r - r.mean() if len(r) > 1 else r
    else:
        d = r - (0.0 if baseline == "none" else baseline)
    if scale == "none":
        return d
    std = r.std(unbiased=False)
    if scale == "group" and len(r) > 1 and r.max() != r.min():
        return d / std.clamp(min=1e-6)
    return d / max(1.0, d.abs().max().item())


def exp(u):
    return torch.where(u > 20, math.exp(20) * (1 + u - 20), u.clamp(max=20).exp())


def psi(knobs, a, l, q, recorded):
    """Potential of each token of one response; q is the start of the call for a text."""
    kind = knobs["objective"]
    if kind == "sft":
        return l if a > 0 else 0 * l
    if kind == "importance_sampling":
        return exp(l - q)
    if kind == "ppo":
        rho = exp(l - q)
        return torch.minimum(rho * a, rho.clamp(0.8, 1.2) * a) / a
    if a > 0 and not recorded:
        return l
    if a > 0:
        u, c = l - q, knobs["clip_high"]
        return torch.where(u <= math.log(c), exp(u.clamp(max=math.log(c))), c * (1 + u - math.log(c)))
    u = l - q if recorded else l - math.log(knobs["negative_floor"])
    return torch.where(u >= 0, 1 + u, exp(u.clamp(max=0)))


def loss_of(knobs, groups, rows, reference_rows):
    """rows: per response [tokens, V] logits that predict its tokens. Returns the parts of the loss and the numbers beside it."""
    flat = [(a, r) for g in groups for a, r in zip(advantages([r["reward"] for r in g], knobs["baseline"], knobs["advantage_scale"]).tolist(), g)]
    total = sum(len(r["tokens"]) for _, r in flat)
    policy, kl_loss, kl_sum, entropy, k3, recorded_tokens, full, kept = 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0.0
    logprobs = []
    for (a, r), z, z_ref in zip(flat, rows, reference_rows):
        n = len(r["tokens"])
        w = {"token": 1 / total, "sequence": 1 / (len(flat) * n), "constant": 1 / (len(flat) * CONSTANT_TOKENS)}[knobs["length_norm"]]
        assert z.shape == z_ref.shape and len(z) == n
        logp, logq = z.log_softmax(-1), z_ref.log_softmax(-1)
        l = logp.gather(1, torch.tensor(r["tokens"])[:, None])[:, 0]
        logprobs.append(l)
        recorded = r["recorded"] is not None
        q = torch.tensor(r["recorded"] if recorded else r["start"], dtype=z.dtype)
        if a != 0 and not (knobs["objective"] == "sft" and a < 0):
            value = psi(knobs, a, l, q, recorded)
            policy = policy - w * a * value.sum()
            if l.requires_grad:
                (slope,) = torch.autograd.grad(value.sum(), l, retain_graph=True)
                size = w * abs(a) * (1 - l.detach().exp())
                full += size.sum().item()
                kept += (size * (slope.clamp(max=1) if a < 0 else 1)).sum().item()
        kl = (logp.exp() * (logp - logq)).sum(-1)
        kl_loss = kl_loss + knobs["kl_coefficient"] * w * kl.sum()
        kl_sum += kl.sum().item()
        entropy += -(logp.exp() * logp).sum().item()
        if recorded:
            x = l.detach() - q
            k3 += (x.expm1() - x).sum().item()
            recorded_tokens += n
    number = lambda x: x.item() if torch.is_tensor(x) else x
    return policy, kl_loss, logprobs, dict(
        advantages=[a for a, _ in flat], policy_loss=number(policy), kl_loss=number(kl_loss), loss=number(policy + kl_loss), kl_parent=kl_sum / total,
        entropy=entropy / total, kl_sampler=k3 / max(recorded_tokens, 1), step_scale=min(1.0, kept / full) if full > 0 else 1.0)


def explicit():
    torch.manual_seed(7)
    v = 6
    cases = {"default": {}, "no_kl": dict(kl_coefficient=0.0), "heavy_kl": dict(kl_coefficient=1.5), "cap_close": dict(clip_high=1.05),
             "cap_far": dict(clip_high=30.0), "floor_low": dict(negative_floor=0.01), "floor_one": dict(negative_floor=1.0)}
    for objective in ["importance_sampling", "ppo", "sft"]:
        cases[objective] = dict(objective=objective)
        cases[objective + "_no_kl"] = dict(objective=objective, kl_coefficient=0.0)
    for baseline in ["none", 0.25, -3.0]:
        cases[f"baseline_{baseline}"] = dict(baseline=baseline)
    for scale in ["none", "group"]:
        cases[f"scale_{scale}"] = dict(advantage_scale=scale)
        cases[f"scale_{scale}_no_baseline"] = dict(advantage_scale=scale, baseline="none")
    for norm in ["sequence", "constant"]:
        cases[f"norm_{norm}"] = dict(length_norm=norm)
        cases[f"norm_{norm}_ppo"] = dict(length_norm=norm, objective="ppo")
    out = []
    for name, changes in cases.items():
        knobs = DEFAULT | changes
        groups, logits, references = [], [], []
        for rewards in [[3.0, -0.5, 1.0, 1.0], [0.2, 0.7], [-1.0], [0.4, 0.4]]:
            group = []
            for i, reward in enumerate(rewards):
                n = int(torch.randint(1, 4, ()))
                tokens = torch.randint(0, v, (n,)).tolist()
                z = 2 * torch.randn(n, v, dtype=torch.float64)
                near = z.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])[:, 0] + 0.8 * torch.randn(n, dtype=torch.float64)
                # As the sampler would have written them: f32, below 0.
                near = near.clamp(max=-0.001).float().double().tolist()
                group.append(dict(reward=reward, tokens=tokens, recorded=near if i % 2 == 0 else None, start=near))
                logits.append(z.requires_grad_())
                references.append(2 * torch.randn(n, v, dtype=torch.float64))
            groups.append(group)
        policy, kl_loss, _, numbers = loss_of(knobs, groups, logits, references)
        (policy + kl_loss).backward()
        out.append(dict(name=name, knobs=knobs, groups=groups, logits=[z.tolist() for z in logits], reference=[z.tolist() for z in references],
                        expected=numbers | dict(dlogits=[z.grad.tolist() for z in logits])))
    (HERE / "explicit.json").write_text(json.dumps(out) + "\n")
    print("explicit", len(out), "cases")


class LoRA(torch.nn.Module):
    """y = W x + (alpha / rank) B A x, in PEFT's layout: A [R, K], B [N, R]."""

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        self.a = torch.nn.Parameter((2 * torch.rand(rank, base.in_features) - 1) / base.in_features**0.5)
        self.b = torch.nn.Parameter(0.05 * torch.randn(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.a.T) @ self.b.T


def tiny_model():
    torch.manual_seed(11)
    config = LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=64,
                         max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM._from_config(config, attn_implementation="eager")
    for key, parameter in model.named_parameters():
        with torch.no_grad():
            # transformers' 0.02 makes logits too flat to tell a fault from noise.
            parameter.add_(0.1 * torch.randn_like(parameter)) if "norm" in key else parameter.mul_(6.0)
        parameter.requires_grad_(False)
    model.float().eval()
    model.save_pretrained(HERE / "tiny")
    (HERE / "tiny" / "generation_config.json").unlink(missing_ok=True)
    return model


def put_lora(model, rank, alpha):
    pairs = {}
    for index, layer in enumerate(model.model.layers):
        for path in MODULES:
            parent, name = layer.get_submodule(path.rsplit(".", 1)[0]), path.rsplit(".", 1)[1]
            lora = LoRA(getattr(parent, name), rank, alpha)
            setattr(parent, name, lora)
            pairs[f"base_model.model.model.layers.{index}.{path}"] = lora
    tensors = {f"{key}.lora_{which}.weight": getattr(lora, which.lower()).detach().contiguous() for key, lora in pairs.items() for which in "AB"}
    save_file(tensors, HERE / "tiny" / "adapter_model.safetensors")
    (HERE / "tiny" / "adapter_config.json").write_text(json.dumps(dict(
        peft_type="LORA", task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none",
        target_modules=[m.split(".")[1] for m in MODULES])) + "\n")
    return pairs


def rows_of(model, prompts, groups):
    rows = []
    for prompt, group in zip(prompts, groups):
        for r in group:
            z = model(torch.tensor(prompt + r["tokens"][:-1])[None]).logits[0]
            rows.append(z[len(prompt) - 1:])
    return rows


def curve(name, model, pairs, start, reference_rows, prompts, groups, options):
    knobs = DEFAULT | options["knobs"]
    parameters = [p for lora in pairs.values() for p in (lora.a, lora.b)]
    with torch.no_grad():
        for p, value in zip(parameters, start):
            p.copy_(value)
    optimizer = torch.optim.AdamW(parameters, lr=options["learning_rate"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    steps = []
    for step in range(10):
        policy, kl_loss, logprobs, numbers = loss_of(knobs, groups, rows_of(model, prompts, groups), reference_rows)
        optimizer.zero_grad()
        (policy + kl_loss).backward()
        norm = sum(p.grad.double().square().sum() for p in parameters).sqrt().item()
        for p in parameters:
            p.grad.mul_(min(1.0, options["max_grad_norm"] / norm))
        pushing = sum(a > 0 if knobs["objective"] == "sft" else a != 0 for a in numbers["advantages"])
        numbers["step_scale"] *= min(1.0, math.sqrt(pushing / FULL_STEP_RESPONSES))
        optimizer.param_groups[0]["lr"] = options["learning_rate"] * numbers["step_scale"]
        if step == 0:
            first = [l.sum().item() for l in logprobs]
        optimizer.step()
        steps.append(numbers | dict(grad_norm=norm))
    with torch.no_grad():
        last = [l.sum().item() for l in loss_of(knobs, groups, rows_of(model, prompts, groups), reference_rows)[2]]
    print(name, "loss", [round(s["loss"], 4) for s in steps], "scale", [round(s["step_scale"], 3) for s in steps], "norm", [round(s["grad_norm"], 3) for s in steps])
    return dict(name=name, knobs=knobs, prompts=prompts, groups=groups, **{k: options[k] for k in ("learning_rate", "max_grad_norm")},
                steps=steps, logprob_before=first, logprob_after=last)


def curves():
    model = tiny_model()
    sizes = [[5, 9, 1, 6], [4, 7]]
    prompts = [torch.randint(0, 64, (n,)).tolist() for n in (6, 11)]
    groups = [[dict(tokens=torch.randint(0, 64, (n,)).tolist()) for n in row] for row in sizes]
    rewards = [[1.0, 0.0, -1.0, 0.25], [0.5, 2.5]]
    with torch.no_grad():
        reference_rows = rows_of(model, prompts, groups)
    pairs = put_lora(model, rank=5, alpha=10.0)
    start = [p.detach().clone() for lora in pairs.values() for p in (lora.a, lora.b)]
    with torch.no_grad():
        rows = rows_of(model, prompts, groups)
    flat = [(r, reward) for group, row in zip(groups, rewards) for r, reward in zip(group, row)]
    for i, ((r, reward), z) in enumerate(zip(flat, rows)):
        l = z.log_softmax(-1).gather(1, torch.tensor(r["tokens"])[:, None])[:, 0]
        noisy = (l + 0.3 * torch.randn_like(l)).clamp(max=-0.001).tolist()
        r |= dict(reward=reward, recorded=noisy if i % 3 != 1 else None, start=l.tolist())
    greedy = [dict(tokens=[int(model(torch.tensor(prompts[0])[None]).logits[0, -1].argmax())], reward=-1.0)]
    z = rows_of(model, prompts[:1], [greedy])[0]
    greedy[0]["recorded"] = greedy[0]["start"] = z.log_softmax(-1).gather(1, torch.tensor(greedy[0]["tokens"])[:, None])[:, 0].tolist()
    runs = {
        "tapered": (prompts, groups, dict(knobs={}, learning_rate=2e-3, max_grad_norm=1.0)),
        "clipped_gradient": (prompts, groups, dict(knobs=dict(kl_coefficient=0.5), learning_rate=2e-3, max_grad_norm=0.1)),
        "ppo_sequence": (prompts, groups, dict(knobs=dict(objective="ppo", length_norm="sequence", kl_coefficient=0.0), learning_rate=2e-3, max_grad_norm=1.0)),
        "repeated_punishment": (prompts[:1], [greedy], dict(knobs={}, learning_rate=1e-2, max_grad_norm=1.0)),
    }
    out = []
    for name, (p, g, options) in runs.items():
        # The greedy response is one token after the first prompt: the parent's first row of that prompt.
        parents = reference_rows if g is groups else [reference_rows[0][:1]]
        out.append(curve(name, model, pairs, start, parents, p, g, options))
    (HERE / "curves.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    explicit()
    curves()
