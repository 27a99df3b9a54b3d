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
}


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


def tokenizer_for(name):
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **SPECIAL[name])
    tokenizer.chat_template = (HERE / f"{name}.jinja").read_text()
    return tokenizer


def render(tokenizer, messages, ending):
    return tokenizer.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=ending == "generation_prompt",
        continue_final_message=ending == "continue_final",
    )


def main():
    cases = []
    for name in SPECIAL:
        tokenizer = tokenizer_for(name)
        for title, messages in CONVERSATIONS.items():
            endings = ["closed", "generation_prompt"]
            if messages[-1]["role"] == "assistant":
                endings.append("continue_final")
            for ending in endings:
                case = {"template": name, "conversation": title, "ending": ending}
                try:
                    case["text"] = render(tokenizer, messages, ending)
                except Exception as e:  # the template's refusal, by its message
                    case["error"] = str(e)
                cases.append(case)
    golden = {
        "transformers": transformers.__version__,
        "now_unix_s": NOW_UNIX_S,
        "special_tokens": SPECIAL,
        "conversations": CONVERSATIONS,
        "cases": cases,
    }
    (HERE / "renders.json").write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    print(len(cases), "renders,", sum("error" in c for c in cases), "refusals")


if __name__ == "__main__":
    main()
