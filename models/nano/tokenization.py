"""The tokenizer of Tiger-Nano: a byte-level BPE trained on its own corpus.

Job: train the tokenizer, save it in the Hugging Face layout, and turn
conversations into token ids with a mask that marks what the model must learn.
Does not know: the model or the optimiser.
"""

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import MEMORY, renderings, training_conversation

SPECIAL = ["<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"]
BOS, END, SYSTEM, USER, ASSISTANT, PAD = range(6)
# The Llama 3 split: a word keeps the space before it, a number stands alone,
# so "7" is the same token in "7 plus 3", " 7" and "\"7\"".
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def train_tokenizer(rng, vocab: int, conversations: int = 30000) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tok.decoder = decoders.ByteLevel()

    def texts():
        for _ in range(conversations):
            c = training_conversation(rng)
            yield c.system
            for t in c.turns:
                yield t.user
                yield rng.choice(renderings(t.fact, t.style))
        for n in range(101):  # often enough that every number becomes one token
            yield " ".join([str(n)] * 300)
        for name in MEMORY["my name"][0]:
            yield " ".join([name] * 30)

    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(texts(), trainer)
    assert [tok.token_to_id(s) for s in SPECIAL] == list(range(6))
    for n in range(101):
        assert len(tok.encode(str(n)).ids) == 1, n
    return tok


def save_tokenizer(tok: Tokenizer, folder: Path, context: int):
    tok.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text())
    config = {
        "add_bos_token": False,  # the chat template writes it
        "bos_token": "<|bos|>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|end|>",
        "model_max_length": context,
        "pad_token": "<|pad|>",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tok: Tokenizer, rng, conversation):
    """(ids, mask): mask is 1 where the token is part of an answer or ends it."""
    ids, mask = [BOS], [0]

    def put(role, text, learn):
        body = tok.encode(text, add_special_tokens=False).ids
        ids.extend([role, *body, END])
        mask.extend([0] + [learn] * (len(body) + 1))

    if conversation.system:
        put(SYSTEM, conversation.system, 0)
    for t in conversation.turns:
        put(USER, t.user, 0)
        put(ASSISTANT, rng.choice(renderings(t.fact, t.style)), 1)
    return ids, mask


def messages_of(conversation, rng):
    """The same conversation as chat messages, without the last answer."""
    messages = []
    if conversation.system:
        messages.append({"role": "system", "content": conversation.system})
    for t in conversation.turns[:-1]:
        messages.append({"role": "user", "content": t.user})
        messages.append({"role": "assistant", "content": rng.choice(renderings(t.fact, t.style))})
    messages.append({"role": "user", "content": conversation.turns[-1].user})
    return messages
