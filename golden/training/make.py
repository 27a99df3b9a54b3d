"""Golden gradients of a whole training step, made by autograd through transformers' Llama in f64.

Writes `cases.json` (one training step for every objective and knob, adapters of several ranks, dropout by the mask that the engine draws, prompts
that responses share), `gradients.safetensors` (dA and dB of each of these steps, in PEFT's layout), `curves.json` (100 optimizer steps) and
`adapters/` (the adapters they start from). The base is the checkpoint of `golden/objective`, and so are the formulas of the loss; of the Rust code
it knows the dropout mask, a hash of (seed, layer, module, row, column), and which rows responses share.

    python golden/objective/make.py && python golden/training/make.py            # with the packages of golden/requirements.txt
"""

import importlib.util
import json
import math
import pathlib

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).parent
spec = importlib.util.spec_from_file_location("objective", HERE.parent / "objective" / "make.py")
objective = importlib.util.module_from_spec(spec)
spec.loader.exec_module(objective)
MODULES, DEFAULT = objective.MODULES, objective.DEFAULT
PAGE = 16
VOCAB = 64
WORD = (1 << 64) - 1
# rank: alpha
ADAPTERS = {"rank1": (1, 2.0), "rank4": (4, 8.0), "rank16": (16, 32.0), "rank20": (20, 10.0), "parent": (4, 6.0)}
CALLS, STEPS = 10, 10


def mix(value):
    """SplitMix64 (Steele et al. 2014)."""
    z = (value + 0x9E3779B97F4A7C15) & WORD
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def keep(p, seed, step, layer, module, rows, width):
    """Dropout's mask of a module's input, [rows, width]; the first micro-batch is the only one."""
    seed = mix(mix(seed ^ mix(step)) ^ 0)
    key = mix(seed ^ mix(layer * 7 + module + 1))
    threshold = int(p * 2**32)
    return torch.tensor([[mix(key ^ (row * width + column)) >> 32 >= threshold for column in range(width)] for row in rows])


class LoRA(torch.nn.Module):
    """y = W x + (alpha / rank) B A dropout(x); the bare base where the world is bare."""

    def __init__(self, base, layer, module, world):
        super().__init__()
        self.base, self.place, self.world = base, (layer, module), world
        self.a = self.b = None

    def forward(self, x):
        y = self.base(x)
        if self.world.bare:
            return y
        dropout = self.world.dropout
        if dropout:
            p, seed, step = dropout
            x = x * keep(p, seed, step, *self.place, self.world.rows, x.shape[-1]) / (1 - p)
        return y + self.world.scale * (x @ self.a.T) @ self.b.T


class World:
    """The tiny Llama with an adapter that can be exchanged."""

    def __init__(self):
        # Not `from_pretrained`: it would load the adapter that lies beside the checkpoint too.
        tiny = HERE.parent / "objective" / "tiny"
        config = LlamaConfig.from_pretrained(tiny)
        self.model = LlamaForCausalLM._from_config(config, attn_implementation="eager").double().eval()
        self.model.load_state_dict(load_file(tiny / "model.safetensors"))
        self.model.requires_grad_(False)
        self.bare, self.dropout, self.rows, self.pairs = True, None, None, {}
        for index, layer in enumerate(self.model.model.layers):
            for number, path in enumerate(MODULES):
                parent, name = layer.get_submodule(path.rsplit(".", 1)[0]), path.rsplit(".", 1)[1]
                lora = LoRA(getattr(parent, name), index, number, self)
                setattr(parent, name, lora)
                self.pairs[f"base_model.model.model.layers.{index}.{path}"] = lora

    def put(self, adapter):
        self.bare = adapter is None
        if adapter is None:
            return
        rank, alpha = ADAPTERS[adapter["name"]]
        self.scale = alpha / rank
        for key, lora in self.pairs.items():
            lora.a, lora.b = (torch.nn.Parameter(adapter["tensors"][f"{key}.lora_{w}.weight"].double()) for w in "AB")

    def parameters(self):
        return {f"{key}.lora_{w}.weight": getattr(lora, w.lower()) for key, lora in self.pairs.items() for w in "AB"}

    def logits(self, prompts, groups, dropout=None):
        """Per response the rows that predict its tokens. Each has its own rows in the batch, but for the whole pages of a prompt shared by several."""
        out, first = [], 0
        for prompt, group in zip(prompts, groups):
            shared = (len(prompt) - 1) // PAGE * PAGE if len(group) > 1 else 0
            head = None
            for r in group:
                tokens = prompt + r["tokens"][:-1]
                begin = shared if head is not None else 0
                own = list(range(first, first + len(tokens) - begin))
                first += len(own)
                head = own[:shared] if head is None else head
                self.rows, self.dropout = head[:begin] + own, dropout
                out.append(self.model(torch.tensor(tokens)[None]).logits[0][len(prompt) - 1:])
        self.dropout = None
        return out


def make_adapters(world):
    out = {}
    for name, (rank, alpha) in ADAPTERS.items():
        tensors = {}
        for key, lora in world.pairs.items():
            n, k = lora.base.weight.shape
            tensors[f"{key}.lora_A.weight"] = ((2 * torch.rand(rank, k) - 1) / k**0.5).float().contiguous()
            tensors[f"{key}.lora_B.weight"] = (0.05 * torch.randn(n, rank)).float().contiguous()
        folder = HERE / "adapters" / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(dict(
            peft_type="LORA", task_type="CAUSAL_LM", r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none",
            target_modules=[m.split(".")[1] for m in MODULES])) + "\n")
        out[name] = dict(name=name, tensors=tensors)
    return out


def ask(world, adapter, shape, recorded):
    """Prompts and responses. `shape`: (prompt length, [(response length, reward)]); `recorded`: "mixed", "all" or "none"."""
    world.put(adapter)
    prompts = [torch.randint(0, VOCAB, (n,)).tolist() for n, _ in shape]
    groups = [[dict(tokens=torch.randint(0, VOCAB, (n,)).tolist(), reward=reward) for n, reward in row] for _, row in shape]
    with torch.no_grad():
        rows = world.logits(prompts, groups)
    for i, (r, z) in enumerate(zip((r for g in groups for r in g), rows)):
        l = z.log_softmax(-1).gather(1, torch.tensor(r["tokens"])[:, None])[:, 0]
        # As the sampler would have written them: f32, below 0. Far enough from now that caps and tapers act on some tokens.
        noisy = (l + 0.5 * torch.randn_like(l)).clamp(max=-0.001).float().double().tolist()
        known = dict(mixed=i % 3 != 1, all=True, none=False)[recorded]
        r |= dict(recorded=noisy if known else None, start=l.tolist())
    return prompts, groups


def pushes(knobs, a):
    return a > 0 if knobs["objective"] == "sft" else a != 0


def step_scale(knobs, groups, numbers):
    """Fade × share of groups with something to learn × what so few responses allow."""
    advantages, live, pushing, i = numbers["advantages"], 0, 0, 0
    for group in groups:
        count = sum(pushes(knobs, a) for a in advantages[i:i + len(group)])
        live, pushing, i = live + (count > 0), pushing + count, i + len(group)
    return numbers["step_scale"] * live / len(groups) * min(1.0, math.sqrt(pushing / objective.FULL_STEP_RESPONSES))


def gradient(world, knobs, call, reference_rows, dropout):
    """Loss and gradient of one step; the gradients are left in the parameters."""
    prompts, groups = call
    for p in world.parameters().values():
        p.grad = None
    policy, kl_loss, _, numbers = objective.loss_of(knobs, groups, world.logits(prompts, groups, dropout), reference_rows)
    (policy + kl_loss).backward()
    norm = sum(p.grad.square().sum() for p in world.parameters().values()).sqrt().item()
    return numbers | dict(grad_norm=norm, step_scale=step_scale(knobs, groups, numbers))


def parent_rows(world, parent, call):
    world.put(parent)
    with torch.no_grad():
        return world.logits(*call)


SHAPE = [(6, [(5, 1.0), (9, 0.0), (1, -1.0), (6, 0.25)]), (11, [(4, 0.5), (7, 2.5)]), (3, [(3, 0.4), (2, 0.4)])]
SHARING = [(40, [(9, 1.0), (1, 0.0), (20, -0.5), (4, 0.4)]), (16, [(3, 0.2), (5, 0.9)]), (33, [(7, 0.1), (12, 0.8)])]
SINGLES = [(5, [(6, -1.0)]), (9, [(4, 0.8)])]


def case_list():
    cases = {}
    for name in ["tapered", "importance_sampling", "ppo", "sft"]:
        cases[name] = dict(knobs=dict(objective=name))
        cases[name + "_no_kl"] = dict(knobs=dict(objective=name, kl_coefficient=0.0))
    for baseline in ["none", 0.25]:
        cases[f"baseline_{baseline}"] = dict(knobs=dict(baseline=baseline))
    for scale in ["none", "group"]:
        cases[f"scale_{scale}"] = dict(knobs=dict(advantage_scale=scale))
    for norm in ["sequence", "constant"]:
        cases[f"norm_{norm}"] = dict(knobs=dict(length_norm=norm))
    cases |= {
        "cap_close": dict(knobs=dict(clip_high=1.05)),
        "cap_far": dict(knobs=dict(clip_high=30.0)),
        "floor_low": dict(knobs=dict(negative_floor=0.01), recorded="none"),
        "floor_one": dict(knobs=dict(negative_floor=1.0), recorded="none"),
        "heavy_kl": dict(knobs=dict(kl_coefficient=1.5)),
        "clipped_gradient": dict(max_grad_norm=0.05),
        "all_recorded": dict(recorded="all"),
        "texts": dict(recorded="none"),
        "texts_ppo": dict(knobs=dict(objective="ppo"), recorded="none"),
        "parent_adapter": dict(parent="parent"),
        "singles": dict(shape=SINGLES, recorded="all"),
        "shared_prompts": dict(shape=SHARING),
        "shared_prompts_no_kl": dict(shape=SHARING, knobs=dict(kl_coefficient=0.0, length_norm="sequence")),
        "rank_1": dict(adapter="rank1"),
        "rank_16": dict(adapter="rank16"),
        "rank_20": dict(adapter="rank20"),
        "rank_20_ppo_no_kl": dict(adapter="rank20", knobs=dict(objective="ppo", kl_coefficient=0.0)),
        "dropout": dict(dropout=0.1, seed=5),
        "dropout_half": dict(dropout=0.5, seed=6),
        "dropout_ppo_no_kl": dict(dropout=0.25, seed=7, knobs=dict(objective="ppo", kl_coefficient=0.0)),
        "dropout_shared_prompts": dict(dropout=0.25, seed=8, shape=SHARING, adapter="rank1"),
    }
    return cases


def one_step(world, adapters):
    cases, gradients = [], {}
    for name, c in case_list().items():
        knobs, which, parent = DEFAULT | c.get("knobs", {}), c.get("adapter", "rank4"), c.get("parent")
        call = ask(world, adapters[which], c.get("shape", SHAPE), c.get("recorded", "mixed"))
        reference_rows = parent_rows(world, adapters.get(parent), call)
        world.put(adapters[which])
        dropout = (c["dropout"], c["seed"], 0) if "dropout" in c else None
        numbers = gradient(world, knobs, call, reference_rows, dropout)
        gradients |= {f"{name}/{key}": p.grad.float().contiguous() for key, p in world.parameters().items()}
        cases.append(dict(name=name, knobs=knobs, adapter=which, parent=parent, dropout=c.get("dropout", 0.0), seed=c.get("seed", 0),
                          max_grad_norm=c.get("max_grad_norm", 1e9), prompts=call[0], groups=call[1], expected=numbers))
        print(name, "loss", round(numbers["loss"], 4), "norm", round(numbers["grad_norm"], 4), "scale", round(numbers["step_scale"], 3))
    (HERE / "cases.json").write_text(json.dumps(cases) + "\n")
    save_file(gradients, HERE / "gradients.safetensors")


def curve(world, adapter, parent, call, options):
    """CALLS calls of STEPS steps: the log-probs of a text are known anew when each call begins; the optimizer goes on."""
    knobs, p, max_norm = DEFAULT | options["knobs"], options.get("dropout", 0.0), options["max_grad_norm"]
    reference_rows = parent_rows(world, parent, call)
    world.put(adapter)
    optimizer = torch.optim.AdamW(world.parameters().values(), lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    steps = []
    for number in range(CALLS):
        with torch.no_grad():
            rows = world.logits(*call)
        for r, z in zip((r for g in call[1] for r in g), rows):
            r["start"] = z.log_softmax(-1).gather(1, torch.tensor(r["tokens"])[:, None])[:, 0].tolist()
        for step in range(STEPS):
            numbers = gradient(world, knobs, call, reference_rows, (p, number, step) if p else None)
            for parameter in world.parameters().values():
                parameter.grad.mul_(min(1.0, max_norm / numbers["grad_norm"]))
            optimizer.param_groups[0]["lr"] = options["learning_rate"] * numbers["step_scale"]
            optimizer.step()
            steps.append({key: numbers[key] for key in ("loss", "policy_loss", "kl_loss", "entropy", "grad_norm", "step_scale")})
    return dict(knobs=knobs, dropout=p, max_grad_norm=max_norm, learning_rate=options["learning_rate"], calls=CALLS, steps_a_call=STEPS, steps=steps)


def curves(world, adapters):
    runs = {
        "tapered": dict(knobs={}, learning_rate=1e-3, max_grad_norm=1.0, adapter="rank16"),
        "ppo_clipped_gradient": dict(knobs=dict(objective="ppo", length_norm="sequence", kl_coefficient=0.0), learning_rate=1e-3, max_grad_norm=0.1,
                                     adapter="rank4"),
        "dropout_own_parent": dict(knobs=dict(kl_coefficient=0.3), learning_rate=1e-3, max_grad_norm=1.0, adapter="rank1", parent="parent", dropout=0.1),
    }
    out = []
    for name, options in runs.items():
        call = ask(world, adapters[options["adapter"]], SHAPE, "mixed")
        prompts, groups = call[0], [[dict(r) for r in g] for g in call[1]]
        result = curve(world, adapters[options["adapter"]], adapters.get(options.get("parent")), call, options)
        out.append(dict(name=name, adapter=options["adapter"], parent=options.get("parent"), prompts=prompts, groups=groups) | result)
        print(name, "loss", [round(s["loss"], 4) for s in result["steps"][::20] + result["steps"][-1:]])
    (HERE / "curves.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(23)
    world = World()
    adapters = make_adapters(world)
    one_step(world, adapters)
    curves(world, adapters)
