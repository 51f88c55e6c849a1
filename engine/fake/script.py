"""What the fake engine is told to do, and the tokens that follow from it."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from engine.base import GenerateRequest, TokenLogprob
from engine.fake.tokenizer import BYTES, EOS_ID

_WORDS = (
    "amber birch cloud delta ember frost grove harbour island jasper kettle lantern meadow "
    "north olive pebble quartz river stone timber umber valley willow yarrow zephyr"
)


@dataclass(frozen=True, slots=True)
class FakeScript:
    """The keys of ``EngineConfig.options``.

    Attributes:
        text: every answer, then end of sequence; None takes seeded words without an end.
        output_tokens: end of sequence after this many tokens; None: not by itself.
        seed: makes words and jitter repeatable.
        start_s: how long a start takes, with progress.
        start_error: message with which a start fails.
        queue_s, ttft_s, itl_s: seconds in the queue, to the first token, between tokens.
        jitter: share of each delay by which it varies, in [0, 1].
        die_after_tokens: the engine dies once it has made this many tokens in all.
        hang: phase that never ends.
        overloaded: refuse every request.
    """

    text: str | None = None
    output_tokens: int | None = None
    seed: int = 0
    start_s: float = 0.0
    start_error: str | None = None
    queue_s: float = 0.0
    ttft_s: float = 0.0
    itl_s: float = 0.0
    jitter: float = 0.0
    die_after_tokens: int | None = None
    hang: Literal["start", "queue", "prefill", "decode"] | None = None
    overloaded: bool = False

    def __post_init__(self) -> None:
        for name in ("start_s", "queue_s", "ttft_s", "itl_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if not 0 <= self.jitter <= 1:
            raise ValueError("jitter must be in [0, 1]")
        if self.text == "":
            raise ValueError("text must not be empty")


def tokens(
    script: FakeScript, request: GenerateRequest, index: int, stop_ids: frozenset[int]
) -> Iterator[int]:
    """The endless tokens of one choice; the same for an equal script, prompt and seed."""
    sampling = request.sampling
    allowed = sampling.allowed_token_ids
    for position, token in enumerate(_scripted(script, request, index)):
        if allowed is not None:
            token = allowed[token % len(allowed)]
        if token in stop_ids and position < sampling.min_tokens:
            token = next(other for other in range(BYTES) if other not in stop_ids)
        yield token


def logprob(token: int, alternatives: int) -> TokenLogprob:
    """A made-up log-probability: the chosen token is the likeliest."""
    top = tuple(((token + k) % BYTES if k else token, -0.5 - k) for k in range(alternatives))
    return TokenLogprob(token, -0.5, top)


def _scripted(script: FakeScript, request: GenerateRequest, index: int) -> Iterator[int]:
    text = _words(script, request, index) if script.text is None else _repeated(script.text)
    if script.output_tokens is not None:
        text = itertools.chain(itertools.islice(text, script.output_tokens), [EOS_ID])
        return itertools.chain(text, itertools.repeat(EOS_ID))
    return text


def _repeated(text: str) -> Iterator[int]:
    return itertools.cycle([*text.encode(), EOS_ID])


def _words(script: FakeScript, request: GenerateRequest, index: int) -> Iterator[int]:
    sampling = request.sampling
    if sampling.temperature == 0:
        variant = "greedy"
    elif sampling.seed is not None:
        variant = f"{sampling.seed}/{index}"
    else:
        variant = f"{random.random()}/{index}"  # noqa: S311 - a script, not a secret
    prompt = zlib.crc32(repr(list(request.prompt_ids)).encode())
    choice = random.Random(f"{script.seed}/{prompt}/{variant}").choice  # noqa: S311
    words = _WORDS.split()
    while True:
        yield from choice(words).encode()
        yield 0x20
