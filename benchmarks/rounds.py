"""The interleaved rounds: every engine takes the same measure in turn."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bandwidth import BandwidthProbe
from benchmarks.environments import say
from benchmarks.machine import OtherWork, load_average
from benchmarks.pool import Worker, WorkerError

ASK_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of the table."""

    key: str
    title: str
    op: str
    prompt_len: int
    streams: int = 1
    tokens: int = 0

    def command(self, seed: int, tokens: int | None = None) -> dict[str, Any]:
        """The command that a worker gets."""
        return {
            "op": self.op,
            "seed": seed,
            "prompt_len": self.prompt_len,
            "streams": self.streams,
            "tokens": self.tokens if tokens is None else tokens,
        }

    def expected(self) -> int:
        """Tokens a measurement must at least have seen to count."""
        return self.prompt_len if self.op == "prefill" else self.streams * self.tokens


def measures(tokens: int) -> list[Measure]:
    """The columns, with ``tokens`` decoded per stream."""
    columns = [Measure("prefill", "prefill 512", "prefill", 512)]
    for streams in (1, 4, 8, 16):
        title = "1 stream" if streams == 1 else f"{streams} streams"
        columns.append(Measure(f"decode{streams}", title, "decode", 64, streams, tokens))
    return columns


@dataclass(slots=True)
class Results:
    """Rates in tokens per second: engine key → measure key → one value per round."""

    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    infos: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    bandwidth: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    elsewhere: list[float] = field(default_factory=list)


def rate(worker: Worker, measure: Measure, seed: int) -> float:
    """One measurement, refused unless the tokens are all there."""
    sample = worker.ask(measure.command(seed), ASK_TIMEOUT_S)
    tokens, expected = int(sample["tokens"]), measure.expected()
    # An asynchronous engine's window may end a few tokens of one step late or early.
    slack = measure.streams if measure.op == "decode" else 0
    if not expected - slack <= tokens <= expected + slack:
        raise WorkerError(f"{worker.name}: {tokens} tokens in {measure.key}, {expected} expected")
    return tokens / float(sample["seconds"])


def run_rounds(
    workers: dict[str, Worker], columns: list[Measure], rounds: int, threads: int
) -> Results:
    """Warm up, then measure ``rounds`` times, each round starting with another engine."""
    results = Results(infos={key: worker.info for key, worker in workers.items()})
    alive = dict(workers)
    probe = BandwidthProbe(threads)
    other = OtherWork()

    def attempt(key: str, column: Measure, seed: int, warm: bool) -> None:
        try:
            if warm:
                alive[key].ask(column.command(seed, 4), ASK_TIMEOUT_S)
                return
            other.start()
            value = rate(alive[key], column, seed)
            other.stop()
            results.rates.setdefault(key, {}).setdefault(column.key, []).append(value)
        except WorkerError as error:
            say(f"  {error}")
            results.errors[key] = str(error).splitlines()[0]
            alive.pop(key).close()

    for column in columns:
        for key in list(alive):
            attempt(key, column, 1, warm=True)
    for number in range(rounds):
        begin = time.monotonic()
        results.bandwidth.append(probe.measure())
        for column in columns:
            order = list(alive)
            turn = number % len(order) if order else 0
            for key in order[turn:] + order[:turn]:
                attempt(key, column, 1000 * (number + 1) + column.streams, warm=False)
        results.load.append(load_average())
        say(f"  round {number + 1} of {rounds}: {time.monotonic() - begin:.0f} s")
    results.elsewhere = other.shares
    return results
