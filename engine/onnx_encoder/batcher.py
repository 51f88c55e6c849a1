"""The encoder engine's one thread: gathers prompts of like length and runs them together.

Prompts wait in buckets by length. The one whose turn it is decides the next batch, which is
filled from its own bucket and the next shorter one. Turns follow start-time fair queueing
(Goyal et al., 1996) over tokens, so that a request of thousands of prompts does not hold up
one of a single prompt that came later.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from engine.base import EngineDead, EngineOverloaded

if TYPE_CHECKING:
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

MAX_ROWS = 256
# Upper ends; a batch wastes a third on padding at worst, and much less in general.
EDGES = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192)

Run = Callable[[Sequence["NDArray[np.int32]"], ort.RunOptions], "NDArray[np.float32]"]
Done = Callable[["Job", Exception | None], None]


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way.

    Attributes:
        done: called once on the engine's thread, unless the job is aborted.
        rows: pooled vectors by prompt, as they come.
        unfinished: prompts without a row.
        queue_s: seconds until the first of its prompts ran, or None before.
    """

    prompts: list[NDArray[np.int32]]
    priority: int
    done: Done
    submitted: float = field(default_factory=time.perf_counter)
    rows: list[NDArray[np.float32] | None] = field(default_factory=list)
    unfinished: int = 0
    queue_s: float | None = None
    aborted: bool = False

    @property
    def tokens(self) -> int:
        """Of all prompts together."""
        return sum(len(prompt) for prompt in self.prompts)


@dataclass(slots=True, order=True)
class _Turn:
    """A prompt in the queue; sorts by when it runs."""

    priority: int
    start: float
    arrival: int
    job: Job = field(compare=False)
    index: int = field(compare=False)


class Batcher:
    """Owns the queue and the thread.

    Args:
        run: turns prompts into rows; raises when told to terminate.
        max_batch_tokens: tokens of one batch, padding included; a longer prompt runs alone.
        max_waiting: requests that may wait; more are refused.
        max_waiting_tokens: tokens that may wait, likewise.
        on_death: called on the thread when an unexpected exception ends it.
    """

    def __init__(
        self,
        run: Run,
        *,
        max_batch_tokens: int,
        max_waiting: int,
        max_waiting_tokens: int,
        on_death: Callable[[], None],
    ) -> None:
        self._run_batch = run
        self._max_batch_tokens = max_batch_tokens
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self._on_death = on_death
        self._changed = threading.Condition()
        self._buckets: list[list[_Turn]] = [[] for _ in range(len(EDGES) + 1)]
        self._arrivals = itertools.count()
        self._clock = 0.0  # the start of the turn served last
        self._jobs: set[Job] = set()
        self._waiting_tokens = 0
        self._batch: list[_Turn] = []
        self._options: ort.RunOptions | None = None
        self._draining = False
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="onnx-encoder", daemon=True)

    def counts(self) -> tuple[int, int]:
        """Requests of which nothing has run yet, and those that are being worked on."""
        with self._changed:
            running = sum(job.queue_s is not None for job in self._jobs)
            return len(self._jobs) - running, running

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a request; raises EngineOverloaded or, once it ends, EngineDead."""
        tokens = job.tokens
        with self._changed:
            if self._draining or self._ending:
                raise EngineDead("the engine is stopping and takes no new requests")
            waiting = sum(other.queue_s is None for other in self._jobs)
            # Whoever finds the engine idle does not wait.
            if self._jobs and waiting >= max(1, self._max_waiting):
                raise EngineOverloaded(f"{waiting} requests are waiting already")
            if self._jobs and self._waiting_tokens + tokens > self._max_waiting_tokens:
                raise EngineOverloaded(f"{self._waiting_tokens} tokens are waiting already")
            job.rows = [None] * len(job.prompts)
            job.unfinished = len(job.prompts)
            self._jobs.add(job)
            self._waiting_tokens += tokens
            start = self._clock
            for index, prompt in enumerate(job.prompts):
                turn = _Turn(job.priority, start, next(self._arrivals), job, index)
                heapq.heappush(self._buckets[bucket_of(len(prompt))], turn)
                start += len(prompt)
            self._changed.notify()

    def abort(self, job: Job) -> None:
        """Forget a request in whatever phase it is; from any thread, harmless when over."""
        with self._changed:
            if job not in self._jobs:
                return
            job.aborted = True
            in_batch = {turn.index for turn in self._batch if turn.job is job}
            self._waiting_tokens -= sum(
                len(job.prompts[index])
                for index, row in enumerate(job.rows)
                if row is None and index not in in_batch
            )
            self._jobs.discard(job)
            if self._options is not None and all(turn.job.aborted for turn in self._batch):
                self._options.terminate = True
            for bucket in self._buckets:
                if any(turn.job is job for turn in bucket):
                    bucket[:] = [turn for turn in bucket if turn.job is not job]
                    heapq.heapify(bucket)

    def drain(self) -> None:
        """Make the thread end once nothing is left to do."""
        with self._changed:
            self._draining = True
            self._changed.notify()

    def end(self) -> None:
        """Make the thread end now; what is left ends with EngineDead."""
        with self._changed:
            self._ending = True
            if self._options is not None:
                self._options.terminate = True
            self._changed.notify()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._work(batch)
        except BaseException:
            log.exception("the engine thread died")
            self._on_death()
            self._bury("the engine died while it worked on this request")
        else:
            self._bury("the engine was stopped while it worked on this request")

    def _next_batch(self) -> list[_Turn]:
        """Wait for work and take it; empty when the thread is to end."""
        with self._changed:
            while not any(self._buckets) and not (self._draining or self._ending):
                self._changed.wait()
            if self._ending or not any(self._buckets):
                return []
            batch = self._batch = self._take()
            now = time.perf_counter()
            for turn in batch:
                job = turn.job
                self._waiting_tokens -= len(job.prompts[turn.index])
                if job.queue_s is None:
                    job.queue_s = now - job.submitted
            self._options = ort.RunOptions()
            return batch

    def _take(self) -> list[_Turn]:
        at = min((i for i, b in enumerate(self._buckets) if b), key=lambda i: self._buckets[i][0])
        first = heapq.heappop(self._buckets[at])
        self._clock = first.start
        batch, longest = [first], _length(first)
        for bucket in self._buckets[at : at - 2 if at > 1 else None : -1]:
            while bucket and len(batch) < MAX_ROWS:
                width = max(longest, _length(bucket[0]))
                if width * (len(batch) + 1) > self._max_batch_tokens:
                    break
                batch.append(heapq.heappop(bucket))
                longest = width
        return batch

    def _work(self, batch: list[_Turn]) -> None:
        options = self._options
        assert options is not None
        try:
            rows = self._run_batch([turn.job.prompts[turn.index] for turn in batch], options)
        except Exception:
            with self._changed:
                self._batch, self._options = [], None
            if options.terminate:
                return  # nobody wants it any more
            raise
        finished = []
        with self._changed:
            self._batch, self._options = [], None
            for turn, row in zip(batch, rows, strict=True):
                job = turn.job
                job.rows[turn.index] = row
                job.unfinished -= 1
                if not job.unfinished and not job.aborted:
                    self._jobs.discard(job)
                    finished.append(job)
        for job in finished:
            job.done(job, None)

    def _bury(self, why: str) -> None:
        """End every request that is left with EngineDead."""
        with self._changed:
            self._ending = True
            left, self._jobs = list(self._jobs), set()
            self._buckets = [[] for _ in self._buckets]
            self._waiting_tokens = 0
        for job in left:
            job.done(job, EngineDead(why))


def bucket_of(length: int) -> int:
    """Index of the bucket for prompts of this many tokens."""
    return bisect.bisect_left(EDGES, length)


def _length(turn: _Turn) -> int:
    return len(turn.job.prompts[turn.index])
