"""A replica, event by event: continuous batching, chunked prefill, KV room, first come first
served, as vLLM's scheduler and the ONNX engine's do it.

A step gives every decoding sequence a token and spends the rest of its token budget on the
prompts that are next in line. A prompt is admitted when a seat and blocks for it are free. When
blocks run out the sequence that came last gives way and is computed again later. Steps in
which nothing changes are taken together: their time grows linearly with the context.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from engine.capacity.kv import KvLayout
from engine.capacity.queueing import pairs
from engine.capacity.roofline import StepTime, Work
from engine.capacity.traffic import Traffic

_TOGETHER = 64  # steps taken at once at most


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way. Times in seconds.

    Attributes:
        known: tokens that prefill has to compute: the prompt, and after a preemption the
            output so far.
        computed: how many of them are done.
        produced: output tokens before the step ``joined``, from which on it decodes.
        finish: the step after which it is done.
        held: KV blocks.
        first, stopped: when its first token came, and when it was preempted.
    """

    arrival: float
    prompt: int
    output: int
    known: int = field(init=False)
    computed: int = 0
    produced: int = 0
    joined: int = 0
    finish: int = 0
    held: int = 0
    first: float = math.nan
    stopped: float = math.nan

    def __post_init__(self) -> None:
        self.known = self.prompt


@dataclass(frozen=True, slots=True)
class Replica:
    """What is simulated.

    Attributes:
        seats: MAX_NUM_SEQS.
        blocks: KV blocks in all.
        budget: tokens of one step.
    """

    step: StepTime
    layout: KvLayout
    seats: int
    blocks: int
    budget: int


@dataclass(slots=True)
class Outcome:
    """What happened, the first ``warmup`` requests left out.

    Attributes:
        ttft: seconds from arrival to first token, per request.
        gaps: (seconds, how many) between a sequence's tokens.
        seconds: that were measured, from the first measured arrival to the last.
        running: time average of decoding sequences in them.
        busy: share of them in which something ran.
        peak_blocks: most blocks held at once.
    """

    ttft: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    gaps: list[tuple[float, int]] = field(default_factory=list)
    seconds: float = 0.0
    running: float = 0.0
    busy: float = 0.0
    preemptions: int = 0
    peak_blocks: int = 0

    def ttft_at(self, share: float) -> float:
        return percentile(self.ttft, share)

    def itl_at(self, share: float) -> float:
        """The gap that ``share`` of all gaps do not exceed."""
        wanted = share * sum(count for _, count in self.gaps)
        seen = 0
        for seconds, count in sorted(self.gaps):
            seen += count
            if seen >= wanted:
                return seconds
        return 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that ``share`` of ``values`` do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def arrivals(traffic: Traffic, count: int, seed: int) -> Iterator[Request]:
    """``count`` requests of a Poisson process."""
    source = random.Random(seed)  # noqa: S311 - a simulation
    now = 0.0
    for _ in range(count):
        now += source.expovariate(traffic.rate)
        yield Request(now, traffic.prompt.draw(source), max(1, traffic.output.draw(source)))


def simulate(replica: Replica, requests: Sequence[Request], warmup: float = 0.1) -> Outcome:
    """Serve ``requests``, which are ordered by arrival, to their end.

    A request that can never fit has to be kept out by the caller.
    """
    return _Run(replica, requests, int(len(requests) * warmup)).serve()


class _Run:
    """One simulation under way."""

    def __init__(self, replica: Replica, requests: Sequence[Request], warmup: int) -> None:
        self._replica = replica
        self._coming = deque(requests)
        self._from = requests[warmup].arrival if requests else 0.0
        self._until = requests[-1].arrival if requests else 0.0
        self._now = 0.0
        self._tick = 0  # decoding steps so far
        self._waiting: deque[Request] = deque()
        self._prefilling: list[Request] = []  # in order of arrival, as is the next
        self._decoding: list[Request] = []
        self._free = replica.blocks
        self._outcome = Outcome()

    def serve(self) -> Outcome:
        """Run to the end."""
        while self._coming or self._waiting or self._prefilling or self._decoding:
            while self._coming and self._coming[0].arrival <= self._now:
                self._waiting.append(self._coming.popleft())
            self._admit()
            if self._decoding or self._prefilling:
                self._step()
            else:
                self._now = max(self._now, self._coming[0].arrival)
        result = self._outcome
        result.seconds = max(self._until - self._from, 1e-9)
        result.running /= result.seconds
        result.busy /= result.seconds
        return result

    def _admit(self) -> None:
        seats = self._replica.seats - len(self._prefilling) - len(self._decoding)
        while self._waiting and seats > 0:
            request = self._waiting[0]
            needed = self._replica.layout.blocks(request.known + 1)
            if needed > self._free:
                return
            self._waiting.popleft()
            self._prefilling.append(request)
            self._hold(request, needed)
            seats -= 1

    def _step(self) -> None:
        self._make_room()
        room = self._replica.budget - len(self._decoding)
        chunks: list[tuple[Request, int]] = []
        looked_back = 0.0
        for request in self._prefilling:
            part = min(room, request.known - request.computed)
            if part <= 0:
                break
            chunks.append((request, part))
            looked_back += pairs(request.computed, part)
            room -= part
        together = 1 if chunks else self._steps_together()
        prefill = sum(part for _, part in chunks)
        seconds = self._seconds(together, prefill, looked_back)
        for request in self._decoding:
            self._hold(request, self._blocks(request, together))
        self._account(seconds, together)
        self._now += seconds
        self._tick += together
        self._finish()
        for request, part in chunks:
            request.computed += part
            if request.computed == request.known:
                self._first_token(request)

    def _seconds(self, together: int, prefill: int, looked_back: float) -> float:
        middle = (together - 1) / 2
        window = self._replica.layout.window
        lengths = [self._length(request) + middle for request in self._decoding]
        context = sum(lengths)
        visible = context if window is None else sum(min(x, window) for x in lengths)
        work = Work(len(lengths), context, visible, prefill, looked_back)
        return together * self._replica.step(work)

    def _steps_together(self) -> int:
        """Decoding steps before anything else can happen."""
        together = min(_TOGETHER, min(r.finish for r in self._decoding) - self._tick)
        if together > 1 and self._coming:
            one = self._seconds(1, 0, 0.0)
            gap = self._coming[0].arrival - self._now
            together = min(together, math.ceil(gap / one) if one else together)
        layout = self._replica.layout
        groups = layout.full_groups + layout.window_groups
        with_room = self._free // max(1, len(self._decoding) * groups) * layout.block_size
        return max(1, min(together, with_room))

    def _make_room(self) -> None:
        """Let those that came last give way until every sequence has room for its next token."""
        while sum(self._blocks(r, 1) - r.held for r in self._decoding) > self._free:
            last = max((*self._decoding, *self._prefilling), key=lambda r: r.arrival)
            if last in self._decoding:
                self._decoding.remove(last)
                last.produced += self._tick - last.joined
                last.known, last.stopped = last.prompt + last.produced, self._now
            else:
                self._prefilling.remove(last)
            last.computed = 0
            self._hold(last, 0)
            self._waiting.appendleft(last)
            self._outcome.preemptions += 1

    def _length(self, request: Request) -> int:
        return request.known + 1 + self._tick - request.joined

    def _blocks(self, request: Request, steps: int) -> int:
        return max(request.held, self._replica.layout.blocks(self._length(request) + steps - 1))

    def _hold(self, request: Request, blocks: int) -> None:
        self._free -= blocks - request.held
        request.held = blocks

    def _finish(self) -> None:
        if all(r.finish > self._tick for r in self._decoding):
            return
        for request in [r for r in self._decoding if r.finish <= self._tick]:
            self._decoding.remove(request)
            self._leave(request)

    def _first_token(self, request: Request) -> None:
        self._prefilling.remove(request)
        if request.produced:
            self._outcome.gaps.append((self._now - request.stopped, 1))
        else:
            request.first = self._now
        request.produced += 1
        if request.produced >= request.output:
            self._leave(request)
            return
        request.joined = self._tick
        request.finish = self._tick + request.output - request.produced
        self._decoding.append(request)

    def _leave(self, request: Request) -> None:
        self._hold(request, 0)
        if request.arrival >= self._from:
            self._outcome.ttft.append(request.first - request.arrival)
            self._outcome.e2e.append(self._now - request.arrival)

    def _account(self, seconds: float, together: int) -> None:
        result, count = self._outcome, len(self._decoding)
        result.peak_blocks = max(result.peak_blocks, self._replica.blocks - self._free)
        if self._now < self._from:
            return
        if count:
            result.gaps.append((seconds / together, count * together))
        if self._now < self._until:
            result.running += count * seconds
            result.busy += seconds
