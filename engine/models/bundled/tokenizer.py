"""Byte-level BPE for the bundled model: digits stand alone, any text round-trips."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from engine.models.bundled.template import CHAT_TEMPLATE

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
# Control tokens are dropped from decoded text; the marks below must survive it, because the
# server's tool and reasoning parsers read them.
SPECIAL = (END_OF_TEXT, IM_START, IM_END)
MARKS = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)
VOCABULARY = 1024
# Words that glue a sentence together keep the space before them, which saves a fifth of the
# tokens. All other words stand apart from it: "Rome" in `Rome?`, ` Rome` and `"Rome"` is the same
# tokens, so the model can copy it from a question into JSON, and learns its spelling once.
GLUE = """a about again all am an and answer are as at be by called can capital comes do does end
every for from give has have help how i in is it know letters list many me model my name not of on
only or please so tell than that the there these this to up user was what which who will with word
words you your""".split()  # noqa: SIM905 - a list of a hundred strings reads worse
SPLIT = (
    rf" (?:{'|'.join(GLUE)})(?!\p{{L}})"  # glue words with their space
    r"|\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"
)
MAX_LENGTH = 2048


def train(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """A tokenizer of exactly `vocabulary` entries; ids 0-2 are SPECIAL, 3-8 are MARKS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    added += [AddedToken(text, special=False, normalized=False) for text in MARKS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=added,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer marks all of them as special; adding the marks again takes that back.
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKS])
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(f"{tokenizer.get_vocab_size()} tokens instead of {vocabulary}")
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must exist."""
    found: int | None = tokenizer.token_to_id(token)
    if found is None:
        raise KeyError(token)
    return found


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and the chat template."""
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    # Written by hand: transformers 5 would name a class that older readers do not have.
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_LENGTH,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    text = json.dumps(config, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
