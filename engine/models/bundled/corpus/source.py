"""Randomness, templates and surface noise shared by all skill generators."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.models.evaluate import Check

T = TypeVar("T")
Bank = Mapping[str, Sequence[str]]

_SLOT = re.compile(r"\{(\w+)\}")
_PREFIXES = ("Please ", "please ", "Hey, ", "OK, ", "Now ", "So, ", "Hi, ", "And ", "Quick one: ",
             "Next: ", "Then ", "Also, ", "Well, ", "Can you help me? ", "One more: ",
             "Question: ", "Hello, ", "Alright, ")  # fmt: skip
_SUFFIXES = (" Thanks!", " please", ", please.", " Thank you.", " :)", " thx", " Please.", " now")


@dataclass(frozen=True)
class Segment:
    """Messages of one exchange. The last one is the assistant's right answer, which `checks`
    accept; `think` is a short reasoning that leads to it, and `after_thinking` what is left to
    say then (the same answer where it is empty)."""

    skill: str
    messages: list[dict[str, Any]]
    checks: tuple[Check, ...]
    think: str
    after_thinking: str = ""


@dataclass
class Source:
    """Draws templates and values for one split.

    `bank` maps template keys to phrasings; `heldout` selects the values kept out of training
    and switches the surface noise off.
    """

    rng: random.Random
    bank: Bank
    heldout: bool = False

    def pick(self, values: Sequence[T]) -> T:
        """One value, uniformly."""
        return values[int(self.rng.random() * len(values))]

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.rng.random() < probability

    def split(self, train: Sequence[T], heldout: Sequence[T]) -> T:
        """One value from this split's own list."""
        return self.pick(heldout if self.heldout else train)

    def phrase(self, key: str, **slots: object) -> str:
        """A template of this split with its slots filled, without noise."""
        return fill(self.pick(self.bank[key]), slots)

    def ask(self, key: str, **slots: object) -> str:
        """A user prompt: a filled template, in training often with casual spelling."""
        template = self.pick(self.bank[key])
        return fill(template if self.heldout else self._roughen(template), slots)

    def _roughen(self, template: str) -> str:
        if self.chance(0.45):
            return template
        if self.chance(0.35) and template[-1] in ".?!":
            template = template[:-1] + self.pick(("", "", "?", ".", "!", " ?", "??"))
        if self.chance(0.3):
            # Only the template is lowered: a slot holds what the answer must copy.
            template = template.lower()
        if self.chance(0.25):
            template = self.pick(_PREFIXES) + template[0].lower() + template[1:]
        elif self.chance(0.1) and template[-1:] != "}":
            template = template + self.pick(_SUFFIXES)
        return template


def fill(template: str, slots: Mapping[str, object]) -> str:
    """Replaces {slot} marks; other braces stay, so that templates may show JSON."""
    return _SLOT.sub(lambda match: str(slots[match.group(1)]), template)


def turn(skill: str, user: str, answer: str, checks: Sequence[Check], think: str = "") -> Segment:
    """A question and its answer."""
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return Segment(skill, messages, tuple(checks), think)


def lines(text: str) -> tuple[str, ...]:
    """One template a line, without the indentation of the source."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def terms(text: str) -> tuple[str, ...]:
    """The words of a text that white space separates."""
    return tuple(text.split())
