"""Fill-in-the-middle: a prompt of prefix and suffix in the tokens a model was trained with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Format:
    """Special tokens around the parts; ``suffix_first`` swaps prefix and suffix."""

    prefix: str
    suffix: str
    middle: str
    suffix_first: bool = False


# From the models' own cards and tokenizers.
FORMATS = (
    Format("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen2.5-Coder, CodeGemma
    Format("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder, Granite Code
    Format(
        "<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"
    ),
    Format("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),  # Code Llama
    Format("[PREFIX]", "[SUFFIX]", "", suffix_first=True),  # Codestral
)


class Infill:
    """Builds such prompts for one tokenizer. ``possible`` says whether it has the tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._format = next((f for f in FORMATS if has_tokens(tokenizer, f)), None)
        self._id_of = tokenizer.token_to_id

    @property
    def possible(self) -> bool:
        """Whether the model knows fill-in-the-middle."""
        return self._format is not None

    def build(self, prefix: list[int], suffix: list[int]) -> list[int]:
        """Prompt ids after which the model writes what belongs between the two."""
        form = self._format
        if form is None:
            raise ValueError("this tokenizer has no fill-in-the-middle tokens")
        before = [self._id(form.prefix), *prefix]
        after = [self._id(form.suffix), *suffix]
        parts = [*after, *before] if form.suffix_first else [*before, *after]
        return [*parts, self._id(form.middle)] if form.middle else parts

    def _id(self, token: str) -> int:
        found: int | None = self._id_of(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return found


def has_tokens(tokenizer: Tokenizer, form: Format) -> bool:
    """Whether every token of the format exists."""
    names = [name for name in (form.prefix, form.suffix, form.middle) if name]
    return all(tokenizer.token_to_id(name) is not None for name in names)
