"""Renders conversations with transformers' own apply_chat_template and writes what the Rust renderer must equal.

Reads *.jinja beside this file (written for this repository in the styles of published models), writes renders.json.
Run: python make.py   (versions pinned in ../requirements.txt; no network)
"""

import datetime
import json
import pathlib

import tokenizers
import transformers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
NOW_UNIX_S = 1_753_869_600  # 2025-07-30 10:00:00 UTC


class FrozenDatetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW_UNIX_S, datetime.timezone.utc).replace(tzinfo=None)


chat_template_utils.datetime = FrozenDatetime

SPECIAL = {
    "llama3": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "chatml": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "reasoner": {"bos_token": "<|begin|>", "eos_token": "<|end|>"},
    "mistral": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "probe": {"bos_token": "<s>", "eos_token": "</s>"},
    "thinker": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    "dated": {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
    "brackets": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
}
# Templates that show tools, each with the conversations of CALLS too.
WITH_TOOLS = ["thinker", "dated", "brackets"]
TOOLS = [
    {"type": "function", "function": {
        "name": "weather", "description": "Weather of a place <now>, é",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer", "default": 1}}, "required": ["place"]}}},
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}},
]


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


CONVERSATIONS = {
    "one": chat(("user", "Hello")),
    "system": chat(("system", "Be brief."), ("user", "What is 2+2?")),
    "history": chat(("user", "Hi"), ("assistant", "Hello!"), ("user", "How are you?")),
    "system_history": chat(
        ("system", "  You are a cat.\n"), ("user", "Speak"), ("assistant", " Meow. "), ("user", "More, please?")
    ),
    "finished": chat(("user", "Name a colour"), ("assistant", "Blue")),
    "thinking": chat(
        ("user", "Think"), ("assistant", "<think>\nhm, 1 < 2 && 3 > 2\n</think>\n\nDone."), ("user", "Again")
    ),
    "thinking_last": chat(("user", "Think"), ("assistant", "<think>\nhm\n</think>\n\nDone.")),
    "unicode": chat(("user", "naïve 日本語 🐅 \u2028 'quotes' \"double\" <b>&amp;</b>"), ("assistant", "señor\t\\n")),
    "spaces": chat(("user", "  lead and trail \n\n"), ("assistant", "\n\n x \n"), ("user", "\ttab\t")),
    "jinja_like": chat(("user", "{{ bos_token }} {% if x %} {# no #}"), ("assistant", "{% endif %}")),
    "empty": chat(("user", ""), ("assistant", ""), ("user", "z")),
    "control": chat(("user", "a\x00b\x1fc\x7f \x85d"), ("assistant", "e\r\nf")),
    "long": chat(*[(("user", "assistant")[i % 2], f"turn {i} " + "word " * 50) for i in range(9)]),
    "wrong_role": chat(("user", "x"), ("tool", "y")),
    "wrong_order": chat(("user", "x"), ("user", "y")),
    "assistant_first": chat(("assistant", "I begin"), ("user", "y")),
}


def call(id, name, arguments):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*all, content=""):
    return {"role": "assistant", "content": content, "tool_calls": list(all)}


def result(id, content):
    return {"role": "tool", "content": content, "tool_call_id": id}


PARIS = call("aaaaaaaa1", "weather", {"place": "Paris “été”", "days": 2})
CALLS = {
    "asked": chat(("system", "Be brief."), ("user", "Weather?")),
    "called": chat(("user", "Weather in Paris?")) + [calls(PARIS)],
    "answered": chat(("user", "Weather in Paris?")) + [calls(PARIS), result("aaaaaaaa1", '{"sky": "blue"}')],
    "told": chat(("user", "Weather in Paris?")) + [calls(PARIS), result("aaaaaaaa1", "blue")] + chat(("assistant", "Blue."), ("user", "And Rome?")),
    "twice": chat(("user", "Both?")) + [calls(PARIS, call("aaaaaaaa2", "now", {}), content="I look."), result("aaaaaaaa1", "blue"), result("aaaaaaaa2", "12:00")],
    "thought": chat(("user", "Think")) + [calls(PARIS, content="<think>\nwhere?\n</think>\n\nParis."), result("aaaaaaaa1", "blue")],
    "short_id": chat(("user", "x")) + [calls(call("1", "now", {}))],
}


def tokenizer_for(name):
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **SPECIAL[name])
    tokenizer.chat_template = (HERE / f"{name}.jinja").read_text()
    return tokenizer


def render(tokenizer, messages, ending, tools):
    return tokenizer.apply_chat_template(
        messages,
        tools=tools,
        tokenize=False,
        add_generation_prompt=ending == "generation_prompt",
        continue_final_message=ending == "continue_final",
    )


def rendered(name, title, messages, tools=None):
    tokenizer = tokenizer_for(name)
    endings = ["closed", "generation_prompt"]
    if messages[-1]["role"] == "assistant" and "tool_calls" not in messages[-1]:
        endings.append("continue_final")
    for ending in endings:
        case = {"template": name, "conversation": title, "ending": ending} | ({"tools": True} if tools else {})
        try:
            case["text"] = render(tokenizer, messages, ending, tools)
        except Exception as e:  # the template's refusal, by its message
            case["error"] = str(e)
        yield case


def main():
    cases = [case for name in SPECIAL for title, messages in CONVERSATIONS.items() for case in rendered(name, title, messages)]
    for name in WITH_TOOLS:
        for title, messages in CALLS.items():
            cases += [*rendered(name, title, messages), *rendered(name, title, messages, TOOLS)]
    golden = {
        "transformers": transformers.__version__,
        "now_unix_s": NOW_UNIX_S,
        "special_tokens": SPECIAL,
        "conversations": CONVERSATIONS | CALLS,
        "tools": TOOLS,
        "cases": cases,
    }
    (HERE / "renders.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "renders,", sum("error" in c for c in cases), "refusals")


if __name__ == "__main__":
    main()
