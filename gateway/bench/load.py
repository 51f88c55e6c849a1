"""Puts one stage of load on one server, by the clock or by callers that wait for answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from gateway.bench.errors import BenchError
from gateway.bench.exchange import INTERRUPTED
from gateway.bench.outcome import Outcome
from gateway.bench.plan import Stage, Wish
from gateway.bench.target import Target

PREPARED = 1000


@dataclass(slots=True)
class Counts:
    """What a progress display shows while the load runs."""

    stage: str = ""
    server: str = ""
    total: int | None = None
    sent: int = 0
    done: int = 0
    failed: int = 0
    tokens: int = 0
    last: Outcome | None = None

    def begin(self, stage: str, server: str, total: int | None) -> None:
        """Another stage."""
        self.stage, self.server, self.total = stage, server, total
        self.sent = self.done = self.failed = self.tokens = 0
        self.last = None

    def note(self, outcome: Outcome) -> None:
        """A request has ended."""
        self.done += 1
        self.failed += not outcome.good
        self.tokens += outcome.output_tokens
        self.last = outcome


@dataclass(slots=True)
class StageRun:
    """A stage on a server. Times are seconds of ``time.perf_counter()``."""

    stage: str
    server: str
    open_loop: bool
    rate: float | None
    concurrency: int | None
    round: int
    began: float = 0.0
    ended: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    wished: list[int] = field(default_factory=list)
    """Prompt tokens aimed at, beside ``outcomes``."""
    lateness: list[float] = field(default_factory=list)
    """Of an open loop: seconds from when each request was due until it was its turn."""

    @property
    def seconds(self) -> float:
        """From the first request to the last answer."""
        return max(self.ended - self.began, 1e-9)


class Stopper:
    """Ends a run early: requests on their way are taken back and counted as interrupted."""

    def __init__(self) -> None:
        self.stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[Outcome]] = set()

    def stop(self) -> None:
        """Send nothing more, and take back what is on its way."""
        self.stopped.set()
        for task in self._tasks:
            task.cancel()

    async def ask(self, target: Target, data: bytes, due: float) -> Outcome:
        """Send a request that can be taken back."""
        task = asyncio.create_task(target.ask(data, due))
        self._tasks.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            now = time.perf_counter()  # it was taken back before it began
            return Outcome(due, now, end=now, kind=INTERRUPTED, message="the run was ended")
        finally:
            self._tasks.discard(task)

    async def pause(self, seconds: float) -> None:
        """Wait, unless the run ends before."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopped.wait(), seconds)


class Load:
    """One stage on one server, from its first request to its last answer."""

    def __init__(
        self, target: Target, stage: Stage, round_: int, stopper: Stopper, counts: Counts
    ) -> None:
        self._target = target
        self._stage = stage
        self._stopper = stopper
        self._counts = counts
        counts.begin(stage.name, target.server.name, stage.count)
        self.run = StageRun(
            stage.name, target.server.name, stage.open_loop, stage.rate, stage.concurrency, round_
        )
        self._requests = self._prepared()

    async def __call__(self) -> StageRun:
        """Do it. Raises BenchError when a prompt does not fit the endpoint."""
        run = self.run
        run.began = time.perf_counter()
        if self._stage.open_loop:
            await self._by_clock()
        else:
            await self._by_callers()
        run.ended = max((outcome.end for outcome in run.outcomes), default=time.perf_counter())
        return run

    def _prepared(self) -> Iterator[tuple[Wish, bytes]]:
        """Requests as bytes. All of an open loop are made beforehand, so that none is late for
        it; of a closed loop the first."""
        made = ((wish, self._bytes_of(wish)) for wish in self._stage.wishes)
        if self._stage.open_loop:
            return iter(list(made))
        return itertools.chain(list(itertools.islice(made, PREPARED)), made)

    def _bytes_of(self, wish: Wish) -> bytes:
        content = None if wish.line is None else wish.line.content
        if content is None:
            if self._target.vocabulary is None:
                raise BenchError("prompts cannot be made: the server's words were not counted")
            rng = Random(wish.seed)  # noqa: S311 - a load, no secret
            content = self._target.vocabulary.prompt(wish.input_len, rng)
        return self._target.request(content, wish.output_len)

    async def _by_clock(self) -> None:
        """An open loop: what is due is sent, whatever has become of the requests before."""
        bound = self._stage.concurrency
        seats = asyncio.Semaphore(bound) if bound else None
        tasks = []
        for wish, data in self._requests:
            due = self.run.began + (wish.due_s or 0.0)
            while (wait := due - time.perf_counter()) > 0 and not self._stopper.stopped.is_set():
                await self._stopper.pause(wait)
            if self._stopper.stopped.is_set():
                break
            tasks.append(asyncio.create_task(self._when_seated(seats, wish, data, due)))
            # The request goes out before the next one is looked at.
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)

    async def _when_seated(
        self, seats: asyncio.Semaphore | None, wish: Wish, data: bytes, due: float
    ) -> None:
        self.run.lateness.append(time.perf_counter() - due)
        async with seats or contextlib.nullcontext():
            if not self._stopper.stopped.is_set():
                await self._ask(wish, data, due)

    async def _by_callers(self) -> None:
        """A closed loop: every caller asks again when it has been answered."""
        callers = self._stage.concurrency or 1
        await asyncio.gather(*(self._caller() for _ in range(callers)))

    async def _caller(self) -> None:
        until = self.run.began + (self._stage.duration_s or float("inf"))
        while not self._stopper.stopped.is_set():
            now = time.perf_counter()
            if now >= until or (following := next(self._requests, None)) is None:
                return
            await self._ask(*following, now)

    async def _ask(self, wish: Wish, data: bytes, due: float) -> None:
        self._counts.sent += 1
        outcome = await self._stopper.ask(self._target, data, due)
        if not outcome.counted:
            outcome.input_tokens = wish.input_len
        self.run.outcomes.append(outcome)
        self.run.wished.append(wish.input_len)
        self._counts.note(outcome)
