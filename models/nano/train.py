"""Training of Tiger-Nano on the CPU.

Job: pack conversations into rows of one fixed shape, train a small Llama on the
answers, and write the loss curve and the bf16 checkpoint.
Does not know: what the conversations are about, or how answers are judged.
"""

import csv
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from corpus import training_conversation
from tokenization import BOS, END, PAD, encode

ROPE_THETA = 10000.0
ROW, LONG_ROW = 256, 1024  # the only two lengths, so that shapes never vary


def llama_config(vocab: int, hidden: int, layers: int, ffn: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, rms_norm_eps=1e-5,
        rope_theta=ROPE_THETA, tie_word_embeddings=True, attention_bias=False, mlp_bias=False,
        bos_token_id=BOS, eos_token_id=END, pad_token_id=PAD)


class Packer:
    """Fills rows with whole conversations; each one sees only itself."""

    def __init__(self, tok, rng, rows: int):
        self.tok, self.rng, self.rows = tok, rng, rows
        self.long = []  # conversations waiting for a batch of long rows

    def fill(self, length, rows, source):
        packed = [[] for _ in range(rows)]
        room = [length] * rows
        misses = 0
        while misses < 12:  # by then the rows are almost full
            item = source()
            if item is None:
                break
            n = len(item[0])
            fits = [r for r in range(rows) if room[r] >= n]
            if not fits:
                misses += 1
                continue
            r = max(fits, key=lambda i: room[i])
            packed[r].append(item)
            room[r] -= n
        return self.tensors(packed, length)

    @staticmethod
    def tensors(packed, length):
        rows = len(packed)
        ids = torch.full((rows, length), PAD)
        learn = torch.zeros((rows, length), dtype=torch.bool)
        doc = torch.arange(length).repeat(rows, 1) + 1000  # padding: every place its own document
        pos = torch.zeros((rows, length), dtype=torch.long)
        for r, items in enumerate(packed):
            at = 0
            for d, (x, m) in enumerate(items):
                n = len(x)
                ids[r, at:at + n] = torch.tensor(x)
                learn[r, at:at + n] = torch.tensor(m, dtype=torch.bool)
                doc[r, at:at + n] = d
                pos[r, at:at + n] = torch.arange(n)
                at += n
        return ids, learn, doc, pos

    def draw(self):
        while True:
            item = encode(self.tok, self.rng, training_conversation(self.rng))
            if len(item[0]) <= ROW:
                return item
            if len(item[0]) <= LONG_ROW:
                self.long.append(item)

    def batch(self):
        rows = max(1, self.rows * ROW // LONG_ROW)
        if sum(len(x) for x, _ in self.long) > 1.05 * rows * LONG_ROW:
            return self.fill(LONG_ROW, rows, lambda: self.long.pop() if self.long else None)
        return self.fill(ROW, self.rows, self.draw)


def answer_loss(model, batch):
    """Sum of the losses of the answer tokens, and how many there are."""
    ids, learn, doc, pos = batch
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = (causal & (doc[:, :, None] == doc[:, None, :]))[:, None]
    hidden = model.model(input_ids=ids, attention_mask=allowed, position_ids=pos, use_cache=False).last_hidden_state
    targets = learn[:, 1:]
    # Only answer places go through the output matrix; that saves a third of the time.
    logits = model.lm_head(hidden[:, :-1][targets])
    return F.cross_entropy(logits, ids[:, 1:][targets], reduction="sum"), int(targets.sum())


@torch.no_grad()
def probe_loss(model, average, probe):
    """Loss of the averaged weights on fresh conversations."""
    mine = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.load_state_dict(average, strict=False)
    sums = [answer_loss(model, b) for b in probe]
    model.load_state_dict(mine, strict=False)
    return sum(s.item() for s, _ in sums) / sum(n for _, n in sums)


def save_model(config, weights, folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    copy = LlamaForCausalLM(config)
    # Not strict: the output matrix is the embedding and has no weights of its own.
    copy.load_state_dict(weights, strict=False)
    copy.to(torch.bfloat16).save_pretrained(folder)
    # Readers of the older layout look for rope_theta at the top.
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rope_theta": ROPE_THETA}, indent=2) + "\n")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "generation_config.json").write_text(json.dumps({
        "bos_token_id": BOS, "do_sample": True, "eos_token_id": [END], "pad_token_id": PAD,
        "temperature": 1.0, "top_p": 1.0}, indent=2) + "\n")


class Muon:
    """Momentum whose update is orthogonalised, for the matrices inside the layers.

    On this corpus it needs far fewer tokens than AdamW alone: rare facts get
    updates as large as frequent phrases do. Matrices of one shape go together.
    """

    def __init__(self, matrices, momentum=0.95, decay=0.05):
        self.momentum, self.decay, self.lr = momentum, decay, 0.0
        groups = {}
        for p in matrices:
            groups.setdefault(tuple(sorted(p.shape)), []).append(p)
        self.groups = [(shape, ps, torch.zeros(len(ps), *shape)) for shape, ps in groups.items()]

    @torch.no_grad()
    def step(self):
        for (low, high), ps, buffer in self.groups:
            wide = [p.shape[0] <= p.shape[1] for p in ps]  # all are handled as low x high
            g = torch.stack([p.grad if w else p.grad.T for p, w in zip(ps, wide)])
            buffer.lerp_(g, 1 - self.momentum)
            x = g.lerp(buffer, self.momentum)
            x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-9)
            for _ in range(5):  # Newton-Schulz: brings every singular value near 1
                a = x @ x.mT
                x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
            # This factor gives the update the size of a usual AdamW update.
            scale = self.lr * 0.2 * high ** 0.5
            for p, w, u in zip(ps, wide, x):
                p.mul_(1 - self.lr * self.decay).add_(u if w else u.T, alpha=-scale)


def train(tok, args, folder: Path, curve: Path):
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed + 1)
    packer = Packer(tok, rng, args.rows)
    model = LlamaForCausalLM(llama_config(tok.get_vocab_size(), args.hidden, args.layers, args.ffn))
    if args.begin_from:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(args.begin_from, dtype=torch.float32).state_dict())
    model.train()
    print(f"parameters {sum(p.numel() for p in model.parameters())}", flush=True)
    probe_rng = random.Random(args.seed + 2)
    # Same generator, other draws: the curve's second line shows that nothing is overfitted.
    probe_packer = Packer(tok, probe_rng, args.rows)
    probe = [probe_packer.batch() for _ in range(4)]
    # The loss is divided by one constant, the usual number of answer tokens in a
    # batch. Dividing by each batch's own count would make a token of a long
    # answer weigh less than a token of a short one, and long styles would starve.
    counted = [int(packer.batch()[1].sum()) for _ in range(20)]
    constant = sum(counted) / len(counted)

    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "layers" in n]
    others = [p for n, p in model.named_parameters() if not (p.dim() == 2 and "layers" in n)]
    muon = Muon(matrices)
    adam = torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.97), eps=1e-9, weight_decay=0.0)
    average = {n: p.detach().clone() for n, p in model.named_parameters()}
    rows, begin, state = [], 0, folder.parent / "state.pt"
    if args.resume:
        old = torch.load(state, weights_only=False)
        model.load_state_dict(old["model"])
        adam.load_state_dict(old["adam"])
        for group, buffer in zip(muon.groups, old["muon"]):
            group[2].copy_(buffer)
        rng.setstate(old["rng"])
        packer.long, average, rows, begin = old["long"], old["average"], old["rows"], old["step"]
    start, seen, total, count = time.time(), begin * args.rows * ROW, 0.0, 0
    for step in range(begin, args.steps):
        # Warm up, stay, and fall to zero over the last part.
        rate = args.rate * min(1, (step + 1) / 60, (args.steps - step) / (args.steps * args.fall))
        muon.lr = adam.param_groups[0]["lr"] = rate
        batch = packer.batch()
        loss, n = answer_loss(model, batch)
        model.zero_grad(set_to_none=True)
        (loss / constant).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        with torch.no_grad():
            # A running average of the weights: better than the last weights at any moment.
            for name, p in model.named_parameters():
                average[name].lerp_(p, 0.02)
        seen += batch[0].numel()
        total, count = total + loss.item(), count + n
        last = step + 1 == args.steps
        if (step + 1) % 50 == 0 or last:
            value = ""
            if (step + 1) % 200 == 0 or last:
                value = probe_loss(model, average, probe)
            rows.append((step + 1, seen, total / count, value))
            print(f"step {step + 1} tokens {seen} loss {total / count:.4f} probe {value} rate {rate:.5f} "
                  f"seconds {time.time() - start:.0f}", flush=True)
            total, count = 0.0, 0
            with open(curve, "w", newline="") as f:
                w = csv.writer(f, lineterminator="\n")
                w.writerow(["step", "tokens", "train_loss", "probe_loss"])
                w.writerows((s, k, f"{a:.4f}", f"{b:.4f}" if b != "" else "") for s, k, a, b in rows)
        if args.save_every and (step + 1) % args.save_every == 0 and not last:
            save_model(model.config, average, folder)
            torch.save({"model": model.state_dict(), "adam": adam.state_dict(), "rng": rng.getstate(),
                        "muon": [g[2] for g in muon.groups], "long": packer.long, "average": average,
                        "rows": rows, "step": step + 1}, state)
    save_model(model.config, average, folder)
    state.unlink(missing_ok=True)
