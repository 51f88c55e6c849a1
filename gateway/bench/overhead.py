"""What the generator adds to the times it measures, by a server whose times are known.

A process of its own answers load of the same shape and remembers when it read each request and
handed each event to the kernel. Both processes read one clock, so the moment of arrival less the
moment of sending is what kernel, event loop and parsing add to a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import numpy as np

from gateway.bench.errors import BenchError
from gateway.bench.files import Line
from gateway.bench.load import Counts, Load, StageRun, Stopper
from gateway.bench.options import Server
from gateway.bench.outcome import Outcome
from gateway.bench.plan import Stage, Wish, arrivals
from gateway.bench.target import Target
from gateway.bench.watch import GeneratorWatch

SECONDS = 4.0
MOST_REQUESTS = 2000
START_S = 30.0
STOP_S = 5.0


async def measure_overhead(runs: Sequence[StageRun], stopper: Stopper) -> dict[str, Any]:
    """Milliseconds that this generator adds under a load like the heaviest of ``runs``, as median
    and 99th percentile. Raises BenchError when the server cannot be started."""
    run = max(runs, key=_tokens_per_second)
    good = [outcome for outcome in run.outcomes if outcome.good] or run.outcomes
    ttft = min(1.0, statistics.median(outcome.ttft for outcome in good))
    itl = statistics.median(outcome.tpot for outcome in good)
    tokens = max(2, round(statistics.median(outcome.output_tokens for outcome in good)))
    tokens = min(tokens, max(2, int((SECONDS - ttft) / itl))) if itl > 0 else tokens
    async with _timed_server(ttft, itl) as url:
        target = Target(
            Server("timed", url, model="timed"),
            "chat",
            {},
            ignore_eos=False,
            timeout_s=SECONDS * 10,
        )
        try:
            async with GeneratorWatch() as watch:
                measured = await Load(target, _stage(run, tokens), 0, stopper, Counts())()
            _, document = await target.models()
        finally:
            target.close()
    report = watch.report(sum(outcome.output_tokens for outcome in measured.outcomes), [])
    return {
        "requests": len(measured.outcomes),
        "tokens_per_request": tokens,
        "ttft_of_server_ms": ttft * 1000,
        "itl_of_server_ms": itl * 1000,
        "cpu_us_per_output_token": report["cpu_us_per_output_token"],
        **_added(measured, document["moments"]),
    }


def _tokens_per_second(run: StageRun) -> float:
    return sum(outcome.output_tokens for outcome in run.outcomes) / run.seconds


def _stage(run: StageRun, tokens: int) -> Stage:
    """Load of the same shape for a few seconds; the length of a prompt numbers its request."""
    wishes = (
        Wish(Line(str(number), None, None), number, tokens, None, "")
        for number in itertools.count()
    )
    if not run.open_loop:
        callers = run.concurrency or 1
        count = min(MOST_REQUESTS, callers * 3)
        return Stage(
            "overhead", False, None, callers, SECONDS, count, itertools.islice(wishes, count)
        )
    rate = run.rate or len(run.outcomes) / run.seconds
    count = min(MOST_REQUESTS, max(10, int(rate * SECONDS)))
    times = arrivals(rate, 1.0, Random(0))  # noqa: S311 - a load, no secret
    timed = [
        Wish(wish.line, wish.input_len, tokens, due, "")
        for wish, due in zip(wishes, itertools.islice(times, count), strict=False)
    ]
    return Stage("overhead", True, rate, run.concurrency, None, count, iter(timed))


def _added(run: StageRun, moments: dict[str, list[float]]) -> dict[str, Any]:
    ttft: list[float] = []
    event: list[float] = []
    itl: list[float] = []
    for number, outcome in zip(run.wished, run.outcomes, strict=True):
        if outcome.good:
            read, *sent = moments[str(number)]
            late = _lateness(outcome, sent)
            ttft.append(read - outcome.start + late[0])
            event += late
            itl += [abs(b - a) for a, b in itertools.pairwise(late)]
    return {
        **_spread("to_ttft", ttft),
        **_spread("to_each_event", event),
        **_spread("to_itl", itl),
    }


def _lateness(outcome: Outcome, sent: list[float]) -> list[float]:
    arrived = [arrival.at for arrival in outcome.arrivals]
    return [at - when for at, when in zip(arrived, sent, strict=True)]


def _spread(name: str, seconds: list[float]) -> dict[str, float | None]:
    if not seconds:
        return {f"median_{name}_ms": None, f"p99_{name}_ms": None}
    median, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {f"median_{name}_ms": float(median), f"p99_{name}_ms": float(p99)}


@contextlib.asynccontextmanager
async def _timed_server(ttft_s: float, itl_s: float) -> AsyncIterator[str]:
    """Its URL; it ends on leaving."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.bench.timed_server", str(ttft_s), str(itl_s)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C at the terminal is for the generator, which then ends this.
        start_new_session=True,
    )
    if process.stdin is None or process.stdout is None:
        raise BenchError("the server that measures the overhead has no pipes")
    try:
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_S)
        except TimeoutError:
            line = b""
        if not line.strip().isdigit():
            raise BenchError("the server that measures the overhead did not start")
        yield f"http://127.0.0.1:{int(line)}/v1"
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
