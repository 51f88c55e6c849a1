"""Prompts of a wanted length in the server's own tokens, made of words in random order.

Nothing is known of the tokenizer but what the server says: its ``/tokenize`` where it has one,
else the prompt tokens that it counts for two probes. Each word is counted behind a blank, where
tokenizers of today start a new token, so that the counts of words add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

# Short everyday words: one token each in the large vocabularies.
_WORDS = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work number night "
    "point home water room mother area money story fact month lot right study book eye job word "
    "business issue side kind head house service friend father power hour game line end member law "
    "car city name team minute idea body back parent face others level office door health person "
    "art war history party result change morning reason research girl guy moment air teacher"
)
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """How many tokens words take.

    Attributes:
        frame: tokens around the text: chat template, begin of sequence.
        costs: tokens of each word of WORDS, or what they cost on average.
        exact: each word was counted by the server.
    """

    frame: float
    costs: tuple[float, ...]
    exact: bool

    @classmethod
    def counted(cls, frame: int, costs: list[int]) -> Vocabulary:
        """From the count of every word."""
        return cls(frame, tuple(float(max(1, cost)) for cost in costs), exact=True)

    @classmethod
    def fitted(cls, probes: list[tuple[int, int]]) -> Vocabulary:
        """From two pairs of (words, prompt tokens): a line through both."""
        (few, tokens_few), (many, tokens_many) = probes
        cost = max(0.1, (tokens_many - tokens_few) / (many - few))
        return cls(max(0.0, tokens_few - cost * few), (cost,) * len(WORDS), exact=False)

    def prompt(self, tokens: int, rng: Random) -> str:
        """Words that make a request of ``tokens`` prompt tokens, its frame included, as nearly as
        whole words allow; at least one word."""
        budget = tokens - self.frame
        chosen: list[str] = []
        cheapest = min(self.costs)
        while budget >= cheapest / 2 or not chosen:
            index = int(rng.random() * len(WORDS))
            if self.costs[index] > budget:
                index = self._fitting(budget, rng)
            chosen.append(WORDS[index])
            budget -= self.costs[index]
        return " " + " ".join(chosen)

    def _fitting(self, budget: float, rng: Random) -> int:
        """A word that takes what is left as exactly as possible."""
        best = min(abs(cost - budget) for cost in self.costs)
        return rng.choice([i for i, cost in enumerate(self.costs) if abs(cost - budget) == best])


def probe_text(count: int, seed: int) -> str:
    """``count`` random words."""
    rng = Random(seed)  # noqa: S311 - words, not secrets
    return " " + " ".join(rng.choices(WORDS, k=count))
