"""Random output under a grammar: what a model with no sense at all would write."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import engine
from engine.base import StructuredOutput
from engine.structured import Constraint, GrammarCompiler, Limits
from engine.structured.constraint import allowed_ids

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
BUNDLED = Path(engine.__file__).parent / "models" / "bundled" / "tiny-chat" / "tokenizer.json"

_TEXTS = (
    '{"name": "Ada", "age": 36, "tags": ["red", "green"], "ok": true, "none": null}',
    "The weather in Oslo is 12.5 degrees, über naïve café, Привет мир, 你好世界, 😀🚀",
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>',
    "positive negative neutral 2024-01-31 0123456789 true false null",
)
# Pieces that end things: without them a random walk would not come to an end.
_CLOSERS = ('"', "}", "]", ",", ":", '"}', '"]', '",', "}}", "0", "1", "]}", ")", "'", " ", "/")


def make_tokenizer(marks: Iterable[str] = MARKS) -> Tokenizer:
    """A small byte-level BPE tokenizer; ids 0 to 2 are ``SPECIAL``, 2 ends an output."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(text, special=True, normalized=False) for text in SPECIAL]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=added,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS * 4, trainer)
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in marks])
    return tokenizer


class Walker:
    """Compiles constraints for one tokenizer and writes random output under them."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits | None = None) -> None:
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size() + 24  # models pad their logits
        self.eos = tokenizer.token_to_id("<|im_end|>")
        self.compiler = GrammarCompiler(
            tokenizer, self.vocab_size, [self.eos], limits=limits or Limits()
        )
        ids = (tokenizer.token_to_id(piece) for piece in _CLOSERS)
        self._closers = frozenset(token for token in ids if token is not None)

    def start(self, structured: StructuredOutput) -> Constraint:
        return self.compiler.compile(structured).constraint()

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def accepts(self, structured: StructuredOutput, text: str) -> bool:
        """Whether ``text``, tokenised as usual, is a complete output."""
        constraint = self.start(structured)
        return constraint.accept_all(self.ids(text)) and constraint.accepting

    def write(self, structured: StructuredOutput, seed: int, most: int = 400) -> str:
        """Random output, which must come to an end within ``2 * most`` tokens."""
        constraint = self.start(structured)
        rng = random.Random(seed)
        ids: list[int] = []
        while not constraint.ended:
            allowed = allowed_ids(constraint.allowed_mask()).tolist()
            assert constraint.fault is None
            assert allowed
            assert max(allowed) < self.tokenizer.get_vocab_size()
            late = len(ids) >= most
            if allowed == [self.eos] or (self.eos in allowed and (late or rng.random() < 0.5)):
                constraint.accept(self.eos)
                break
            allowed = [token for token in allowed if token != self.eos]
            closers = [token for token in allowed if token in self._closers]
            token = rng.choice(closers if closers and (late or rng.random() < 0.4) else allowed)
            constraint.accept(token)
            assert constraint.fault is None
            ids.append(token)
            assert len(ids) < 2 * most, f"no end: {self.text(ids)[:400]!r}"
        assert constraint.ended
        assert allowed_ids(constraint.allowed_mask()).tolist() == [self.eos]
        return self.text(ids)
