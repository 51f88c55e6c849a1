"""The requests of a run: what each asks for, and when it is due."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from gateway.bench.errors import BenchError
from gateway.bench.files import Line, read_prompts, read_trace
from gateway.bench.options import BenchOptions

DEFAULT_REQUESTS = 100
DEFAULT_CONCURRENCY = 8
DEFAULT_INPUT = 128
DEFAULT_OUTPUT = 128


@dataclass(frozen=True, slots=True)
class Wish:
    """One request before it is put into a server's words.

    Attributes:
        line: what a file says of it; None for a synthetic prompt of ``input_len`` tokens.
        output_len: most tokens of the answer; None leaves it to the server.
        due_s: seconds after the beginning of its stage; None: when a caller is free.
    """

    line: Line | None
    input_len: int
    output_len: int | None
    due_s: float | None
    seed: str


@dataclass(frozen=True, slots=True)
class Stage:
    """A load that stays the same for a while.

    Attributes:
        rate: requests per second, None for traces and closed loops.
        concurrency: callers of a closed loop; the bound of an open one, None for none.
        wishes: what to send; endless when only time ends the stage.
    """

    name: str
    open_loop: bool
    rate: float | None
    concurrency: int | None
    duration_s: float | None
    count: int | None
    wishes: Iterator[Wish]


class Plan:
    """Makes the stages of a run. Equal options and rounds give equal ones.

    Raises BenchError when a file of the options cannot be read, or does not fit the endpoint.
    """

    def __init__(self, options: BenchOptions) -> None:
        self._options = options
        self._lines: list[Line] | None = None
        if options.trace is not None:
            self._lines = read_trace(options.trace, options.trace_unit_s)
        elif options.prompts is not None:
            self._lines = read_prompts(options.prompts)
        chats = (n for n, line in enumerate(self._lines or [], 1) if isinstance(line.content, list))
        if options.endpoint == "completions" and (number := next(chats, None)) is not None:
            raise BenchError(
                f"request {number} of the file has 'messages', which need --endpoint chat;"
                " completions take a 'prompt'"
            )

    def warm_up(self, words_of: str) -> Stage:
        """A few requests like those to come, which are not measured."""
        stage = self.stages(-1, words_of)[0]
        count = self._options.warmups
        wishes = itertools.islice((at(wish, None) for wish in stage.wishes), count)
        callers = min(count, stage.concurrency or DEFAULT_CONCURRENCY)
        return Stage("warm-up", False, None, callers, None, count, wishes)

    @property
    def synthetic(self) -> bool:
        """Whether any prompt has to be made."""
        return self._lines is None or any(line.content is None for line in self._lines)

    def stages(self, round_: int, words_of: str) -> list[Stage]:
        """All stages, in order.

        Args:
            round_: another round has other arrivals and lengths.
            words_of: another server gets other words, so that no cache which both share helps
                the second of them.
        """
        options = self._options
        if options.trace is not None:
            return [self._trace_stage(round_, words_of)]
        if options.rates:
            bound = options.concurrencies[0] if options.concurrencies else None
            return [self._rate_stage(rate, bound, round_, words_of) for rate in options.rates]
        callers = options.concurrencies or (DEFAULT_CONCURRENCY,)
        return [self._closed_stage(number, round_, words_of) for number in callers]

    @property
    def count(self) -> int | None:
        """Requests per stage; None when only time ends it."""
        options = self._options
        if options.requests is not None or options.duration_s is not None:
            return options.requests
        return len(self._lines) if self._lines is not None else DEFAULT_REQUESTS

    def _rate_stage(self, rate: float, bound: int | None, round_: int, words_of: str) -> Stage:
        name = f"{rate:g} requests/s"
        count = self.count
        times = arrivals(rate, self._options.burstiness, self._seed(name, round_))
        if self._options.duration_s is not None:
            times = itertools.takewhile(self._options.duration_s.__gt__, times)
        due = list(itertools.islice(times, count))
        wishes = zip(self._wishes(name, round_, words_of), due, strict=False)
        return Stage(
            name, True, rate, bound, None, len(due), iter([at(wish, when) for wish, when in wishes])
        )

    def _closed_stage(self, callers: int, round_: int, words_of: str) -> Stage:
        name = f"{callers} at once"
        count = self.count
        wishes = itertools.islice(self._wishes(name, round_, words_of), count)
        return Stage(name, False, None, callers, self._options.duration_s, count, wishes)

    def _trace_stage(self, round_: int, words_of: str) -> Stage:
        options = self._options
        lines = self._lines or []
        count = min(options.requests or len(lines), len(lines))
        wishes = [
            at(wish, line.at_s / options.trace_speed)
            for wish, line in zip(
                self._wishes("trace", round_, words_of), lines[:count], strict=False
            )
        ]
        if options.duration_s is not None:
            wishes = [wish for wish in wishes if (wish.due_s or 0.0) < options.duration_s]
        bound = options.concurrencies[0] if options.concurrencies else None
        return Stage("trace", True, None, bound, None, len(wishes), iter(wishes))

    def _wishes(self, stage: str, round_: int, words_of: str) -> Iterator[Wish]:
        """Endless; lines of a file come again and again."""
        options = self._options
        rng = self._seed(f"{stage} lengths", round_)
        lines: Iterator[Line | None] = itertools.repeat(None)
        if self._lines is not None:
            first = 0 if options.trace is not None else max(round_, 0) * (self.count or 0)
            lines = itertools.islice(itertools.cycle(self._lines), first % len(self._lines), None)
        for number, line in enumerate(lines):
            input_len = options.input_len.sample(rng) if options.input_len else DEFAULT_INPUT
            output_len = options.output_len.sample(rng) if options.output_len else None
            if line is not None:
                input_len = line.input_len or input_len
                output_len = line.output_len or output_len
            if output_len is None and (line is None or line.content is None):
                output_len = DEFAULT_OUTPUT
            seed = f"{options.seed}/{stage}/{round_}/{words_of}/{number}"
            yield Wish(line, input_len, output_len, None, seed)

    def _seed(self, purpose: str, round_: int) -> Random:
        return Random(f"{self._options.seed}/{purpose}/{round_}")  # noqa: S311 - a load, no secret


def at(wish: Wish, due_s: float | None) -> Wish:
    """The same request at a time."""
    return Wish(wish.line, wish.input_len, wish.output_len, due_s, wish.seed)


def arrivals(rate: float, burstiness: float, rng: Random) -> Iterator[float]:
    """Seconds at which requests arrive, the first at 0: pauses are gamma distributed with mean
    1/rate, as in ``vllm bench serve``; a burstiness of 1 makes them exponential."""
    now = 0.0
    while True:
        yield now
        if math.isinf(burstiness):
            now += 1 / rate
        else:
            now += rng.gammavariate(burstiness, 1 / (rate * burstiness))
