"""Runs benchmarks inside the test process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from gateway.bench.load import Counts
from gateway.bench.options import BenchOptions, Server
from gateway.bench.outcome import Arrival, Outcome
from gateway.bench.session import run_bench

# Of the real server that the tests share.
KEY = "sk-a-key-for-the-bench"
TTFT_S = 0.04
ITL_S = 0.01


@dataclass
class Silent:
    """A display that only remembers what was said."""

    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.asynccontextmanager
    async def following(self, counts: Counts) -> AsyncIterator[None]:
        yield


def measured(url: str, *, key: str | None = None, model: str | None = None, **options: Any) -> Any:
    """The document of a run against one server."""
    server = Server("A", url, key, model)
    result = run_bench(BenchOptions(servers=(server,), **options), Silent())
    assert not result.interrupted
    return result.documents[0]


def outcome(*times: float, tokens: int | None = None, start: float = 0.0, **more: Any) -> Outcome:
    """A request whose events of four characters came at ``times``."""
    arrivals = [Arrival(at, 4) for at in times]
    count = len(times) if tokens is None else tokens
    return Outcome(start, start, 1, count, True, arrivals, times[-1] if times else start, **more)
