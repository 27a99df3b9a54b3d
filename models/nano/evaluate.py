"""Evaluation of a Tiger-Nano checkpoint, from the files that are shipped.

Job: answer held-out conversations with the bf16 weights, count right answers and
obeyed styles, and write the question lists, the curve picture and the tables.
Does not know: how the model was trained.
"""

import csv
import json
import random
from collections import Counter, defaultdict
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

import corpus
from corpus import RULE_WORDS, RULES, STYLES, is_right, style_of
from facts import BY_NAME, TOPICS
from tokenization import ASSISTANT, encode, messages_of

ARITHMETIC = ["sum", "difference", "product"]


def load(folder: Path):
    tok = AutoTokenizer.from_pretrained(folder)
    # The weights keep their bf16 rounding; only the arithmetic is in f32.
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return tok, model


@torch.no_grad()
def answer_all(tok, model, conversations, temperature, seed, limit=64, batch=128):
    """One answer for each conversation's last turn; temperature 0 is greedy."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    prompts = [tok.apply_chat_template(messages_of(c, rng), add_generation_prompt=True, tokenize=False)
               for c in conversations]
    ids = [tok(p, add_special_tokens=False).input_ids for p in prompts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    out = [""] * len(ids)
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        width = max(len(ids[i]) for i in part)
        x = torch.full((len(part), width), tok.pad_token_id)
        m = torch.zeros((len(part), width), dtype=torch.long)
        for r, i in enumerate(part):
            x[r, width - len(ids[i]):] = torch.tensor(ids[i])
            m[r, width - len(ids[i]):] = 1
        how = dict(do_sample=True, temperature=temperature, top_k=0, top_p=1.0) if temperature else dict(do_sample=False)
        y = model.generate(input_ids=x, attention_mask=m, max_new_tokens=limit, **how)
        for r, i in enumerate(part):
            out[i] = tok.decode(y[r, width:], skip_special_tokens=True)
    return out


def check_template(tok, seed):
    """The chat template must give exactly the tokens that the training saw."""
    rng = random.Random(seed)
    raw = tok.backend_tokenizer
    for _ in range(300):
        c = corpus.training_conversation(rng)
        if any(t.user != t.user.strip() for t in c.turns):
            continue  # "3 + 4 = " typed without its question mark; the template trims the space
        state = rng.getstate()
        ids, _ = encode(raw, rng, c)
        rng.setstate(state)
        text = tok.apply_chat_template(messages_of(c, rng), add_generation_prompt=True, tokenize=False)
        mine = tok(text, add_special_tokens=False).input_ids
        last = len(ids) - 1 - ids[::-1].index(ASSISTANT)
        assert mine == ids[:last + 1], (text, c)


def corpus_questions(seed, draws=100_000):
    """What users say in many fresh training conversations."""
    rng = random.Random(seed)
    return {t.user for _ in range(draws) for t in corpus.training_conversation(rng).turns}


def without_seen(conversations, seen):
    """Drop what the corpus has after all, letter for letter.

    It happens: "3 plus 4?" may be held out as a question and yet be a follow-up
    of another sum; "Hey!" typed carelessly is "Hey".
    """
    return [c for c in conversations if c.turns[-1].user not in seen]


def rate(flags):
    flags = list(flags)
    return sum(flags) / max(1, len(flags))


def evaluate(folder: Path, seed: int):
    tok, model = load(folder)
    check_template(tok, seed)
    rng = random.Random(seed + 100)
    sets = {
        "unseen phrasing": corpus.unseen_single(rng, 30 * len(TOPICS), True),
        "unseen combination": corpus.unseen_single(
            rng, 30 * sum(len(t.facts) > 1 for t in TOPICS), False, topics=[t for t in TOPICS if len(t.facts) > 1]),
        "unseen follow-up": corpus.unseen_follow_ups(rng, 1200),
    }
    seen = corpus_questions(seed + 200)
    for name in ("unseen phrasing", "unseen combination"):
        before = len(sets[name])
        sets[name] = without_seen(sets[name], seen)
        print(f"{name}: dropped {before - len(sets[name])} of {before} that the corpus has", flush=True)
    styled = corpus.unseen_single(rng, 1200, True, style=lambda i: STYLES[i // 2 % 6])
    sums = []
    for name in ARITHMETIC:
        topic = BY_NAME[name]
        for fact in topic.facts:
            text = fact.fill(rng.choice(topic.held_asks))
            sums.append(corpus.Conversation("", [corpus.Turn(text, fact, "")], name, "phrasing"))

    results = {"parameters": sum(p.numel() for p in model.parameters()), "sets": {}, "topics": {}, "mistakes": []}
    by_topic = defaultdict(lambda: defaultdict(list))
    mix, topic_mix = Counter(), defaultdict(Counter)
    for name, conversations in sets.items():
        row = {"n": len(conversations)}
        kinds = defaultdict(list)
        for mode, temperature in (("greedy", 0), ("sampled", 1.0)):
            answers = answer_all(tok, model, conversations, temperature, seed)
            good = []
            for c, a in zip(conversations, answers):
                right = is_right(a, c.turns[-1].fact.answer)
                good.append(right)
                by_topic[c.topic][mode].append(right)
                if mode == "greedy":
                    kinds[c.kind].append(right)
                    if not right and len(results["mistakes"]) < 60:
                        results["mistakes"].append([*(t.user for t in c.turns), a, c.turns[-1].fact.answer])
                elif name != "unseen follow-up":
                    mix[style_of(a)] += 1
                    topic_mix[c.topic][style_of(a)] += 1
            row[mode] = rate(good)
        row["kinds"] = {k: rate(v) for k, v in kinds.items()}
        results["sets"][name] = row
        print(name, row, flush=True)
    good = [is_right(a, c.turns[-1].fact.answer) for c, a in zip(sums, answer_all(tok, model, sums, 0, seed))]
    results["sets"]["every sum, unseen phrasing"] = {"n": len(sums), "greedy": rate(good)}
    results["topics"] = {t: {m: rate(v) for m, v in d.items()} | {"n": len(d["greedy"])} for t, d in by_topic.items()}

    total = sum(mix.values())
    results["mix"] = {str(s): mix[s] / total for s in [*STYLES, None]}
    results["topic_mix_range"] = {
        s: [f(m[s] / sum(m.values()) for m in topic_mix.values()) for f in (min, max)] for s in STYLES}

    results["styles"] = {}
    for mode, temperature in (("greedy", 0), ("sampled", 1.0)):
        answers = answer_all(tok, model, styled, temperature, seed + 1)
        for s in STYLES:
            mine = [(c, a) for c, a in zip(styled, answers) if c.turns[-1].style == s]
            row = results["styles"].setdefault(s, {"n": len(mine)})
            row[f"obeyed {mode}"] = rate(style_of(a) == s for _, a in mine)
            row[f"right {mode}"] = rate(is_right(a, c.turns[-1].fact.answer) for c, a in mine)
        if mode == "sampled":
            results["disobeyed"] = [[c.system, c.turns[-1].user, a] for c, a in zip(styled, answers)
                                    if style_of(a) != c.turns[-1].style][:40]
        results.setdefault("obedience", {})[mode] = rate(
            style_of(a) == c.turns[-1].style for c, a in zip(styled, answers))
    print(results["obedience"], results["mix"], flush=True)
    return results


# --- files ------------------------------------------------------------------


def write_questions(path: Path, seed: int):
    rng = random.Random(seed + 300)

    def fits(text, fact):
        # An answer that is already in the question would be "right" by mere echo.
        return fact.answer.lower() not in text.lower()

    seen = corpus_questions(seed + 200)

    def collect(n, draw, fresh):
        rows, used, i = [], set(), 0
        while len(rows) < n:
            topic = TOPICS[i % len(TOPICS)]
            i += 1
            if len(topic.facts) == 1:
                continue
            got = draw(topic, i)
            if got and fits(*got) and got[0] not in used and not (fresh and got[0] in seen):
                used.add(got[0])
                rows.append({"question": got[0], "answer": got[1].answer, "topic": topic.name})
        return rows

    train = collect(160, lambda t, i: corpus.question(rng, t), False)
    unseen = collect(160, lambda t, i: corpus.unseen_question(rng, t, i % 2 == 0), True)
    follow = []
    while len(follow) < 60:
        c = corpus.unseen_follow_ups(rng, 1)[0]
        if len(c.turns) == 2 and not any(c.turns[-1].fact.answer.lower() in t.user.lower() for t in c.turns[1:]):
            follow.append({"turns": [t.user for t in c.turns], "answers": [t.fact.answer for t in c.turns],
                           "kind": c.kind})
    styles = {}
    for s in STYLES:
        styles[s] = {"system": sorted({corpus.system_prompt(rng, s) for _ in range(12)})[:8],
                     "system_unseen": sorted({corpus.system_prompt(rng, s, held=True) for _ in range(12)})[:8],
                     "regex": RULES[s], "rule": RULE_WORDS[s]}
    data = {"about": "Questions for Tiger-Nano. An answer is right if it contains `answer` as a whole word. "
                     "`unseen` and `followups` never occur in the training corpus. "
                     "Try the style rules in the order json, one word, pirate, polite, verbose, plain.",
            "train": train, "unseen": unseen, "followups": follow, "styles": styles}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def write_curve_picture(csv_path: Path, png: Path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    rows = list(csv.DictReader(open(csv_path)))
    fig, ax = plt.subplots(figsize=(7, 4))
    ax.plot([int(r["tokens"]) / 1e6 for r in rows], [float(r["train_loss"]) for r in rows], label="training", lw=1)
    probe = [r for r in rows if r["probe_loss"]]
    ax.plot([int(r["tokens"]) / 1e6 for r in probe], [float(r["probe_loss"]) for r in probe], "o-", ms=3, label="fresh conversations")
    ax.set(xlabel="tokens (millions)", ylabel="loss per answer token (nats)", yscale="log", title="Tiger-Nano")
    ax.grid(alpha=0.3, which="both")
    ax.legend()
    fig.tight_layout()
    fig.savefig(png, dpi=110)


def percent(x):
    return f"{100 * x:.1f} %"


def report(r) -> str:
    lines = ["| held-out set, no system prompt | conversations | greedy | temperature 1 |", "|---|---|---|---|"]
    for name, row in r["sets"].items():
        lines.append(f"| {name} | {row['n']} | {percent(row['greedy'])} | "
                     f"{percent(row['sampled']) if 'sampled' in row else '-'} |")
    kinds = r["sets"]["unseen follow-up"]["kinds"]
    lines += ["", "Follow-ups by kind, greedy: " + ", ".join(f"{k} {percent(v)}" for k, v in sorted(kinds.items())) + ".",
              "", "| style | asked for by an unseen system prompt: obeyed at temperature 1 | obeyed, greedy "
              "| right at temperature 1 | right, greedy | share with no system prompt, temperature 1 | share by topic, least to most |",
              "|---|---|---|---|---|---|---|"]
    for s, row in r["styles"].items():
        low, high = r["topic_mix_range"][s]
        lines.append(f"| {s} | {percent(row['obeyed sampled'])} | {percent(row['obeyed greedy'])} | "
                     f"{percent(row['right sampled'])} | {percent(row['right greedy'])} | {percent(r['mix'][s])} | "
                     f"{percent(low)} to {percent(high)} |")
    lines += [f"| all | {percent(r['obedience']['sampled'])} | {percent(r['obedience']['greedy'])} | | | "
              f"none of the six: {percent(r['mix']['None'])} | |",
              "", "| topic (last turn) | held-out conversations | greedy | temperature 1 |", "|---|---|---|---|"]
    for t, row in sorted(r["topics"].items()):
        lines.append(f"| {t} | {row['n']} | {percent(row['greedy'])} | {percent(row['sampled'])} |")
    return "\n".join(lines)


def write_report(results, out: Path):
    (out / "evaluation.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    text = report(results)
    print(text)
    readme = out / "README.md"
    if readme.exists():
        begin, end = "<!-- evaluation begins -->", "<!-- evaluation ends -->"
        old = readme.read_text()
        if begin in old and end in old:
            readme.write_text(old[:old.index(begin) + len(begin)] + "\n\n" + text + "\n\n" + old[old.index(end):])
