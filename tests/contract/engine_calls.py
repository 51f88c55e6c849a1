"""Small helpers to ask an engine and to look at what came."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.base import Delta, Engine, GenerateRequest, SamplingParams, TokenLogprob

_numbers = itertools.count()


def prompt(length: int = 24, salt: int = 0) -> list[int]:
    """Token ids that every engine of the suite knows; different for every ``salt``."""
    return [(7 * i + 31 * salt + 5 * salt * i) % 200 + 20 for i in range(length)]


def request(prompt_ids: Sequence[int] | None = None, **options: Any) -> GenerateRequest:
    """A request; ``options`` are fields of GenerateRequest and of SamplingParams."""
    own = {
        name: options.pop(name)
        for name in ("cache_salt", "priority", "lora", "images", "resume")
        if name in options
    }
    options.setdefault("max_tokens", 24)
    options.setdefault("temperature", 0.0)
    options.setdefault("ignore_eos", True)
    ids = prompt() if prompt_ids is None else prompt_ids
    return GenerateRequest(f"request-{next(_numbers)}", ids, SamplingParams(**options), **own)


@dataclass
class Answer:
    """Everything one choice yielded."""

    deltas: list[Delta] = field(default_factory=list)

    @property
    def token_ids(self) -> list[int]:
        return [token for delta in self.deltas for token in delta.token_ids]

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [entry for delta in self.deltas for entry in delta.logprobs or ()]

    @property
    def last(self) -> Delta:
        return self.deltas[-1]


async def ask_all(engine: Engine, asked: GenerateRequest) -> list[Answer]:
    """The answers of all choices, checked for order and completeness."""
    answers = [Answer() for _ in range(asked.sampling.n)]
    async for delta in engine.generate(asked):
        answer = answers[delta.index]
        assert not answer.deltas or answer.last.finish_reason is None
        answer.deltas.append(delta)
    assert all(answer.last.finish_reason is not None for answer in answers)
    return answers


async def ask(engine: Engine, prompt_ids: Sequence[int] | None = None, **options: Any) -> Answer:
    """The answer of a request with one choice."""
    return (await ask_all(engine, request(prompt_ids, **options)))[0]


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for ``condition``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.002)


def is_idle(engine: Engine) -> bool:
    load = engine.load()
    return (load.waiting, load.running, load.kv_used) == (0, 0, 0)
