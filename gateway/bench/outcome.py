"""What became of one request, and the times between its tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class Arrival:
    """An event of a stream that brought something.

    Attributes:
        at: seconds of ``time.perf_counter()``.
        weight: characters of text, which stand in for tokens where only their sum is known.
        tokens_so_far: output tokens up to here, where the server says so in every event.
        ends: it carries nothing but the reason for the end.
    """

    at: float
    weight: int
    tokens_so_far: int | None = None
    ends: bool = False


@dataclass(slots=True)
class Outcome:
    """One request. Times are seconds of ``time.perf_counter()`` or differences of them.

    Attributes:
        due: when it had to be sent; for closed loops when its caller was free.
        start: when it was sent; connecting counts towards the time to the first token.
        input_tokens, output_tokens: as the server counts them.
        counted: the server did count; otherwise output tokens are events and input tokens what
            was aimed at.
        kind: what went wrong, None if nothing did. message: the same in words.
    """

    due: float
    start: float
    input_tokens: int = 0
    output_tokens: int = 0
    counted: bool = False
    arrivals: list[Arrival] = field(default_factory=list)
    end: float = 0.0
    kind: str | None = None
    message: str = ""

    @property
    def good(self) -> bool:
        """Whether the whole answer came."""
        return self.kind is None

    @property
    def queue_s(self) -> float:
        """How late it was sent: lateness of the generator, or a wait for a free caller."""
        return max(0.0, self.start - self.due)

    @property
    def ttft(self) -> float:
        """Seconds to the first token; 0 if none came."""
        return self.arrivals[0].at - self.start if self.arrivals else 0.0

    @property
    def latency(self) -> float:
        """Seconds to the last token; to the failure if none came."""
        return (self.arrivals[-1].at if self.arrivals else self.end) - self.start

    @property
    def tpot(self) -> float:
        """Mean seconds per output token after the first; 0 for a single token."""
        more = self.output_tokens - 1
        return (self.latency - self.ttft) / more if more > 0 else 0.0

    def token_events(self) -> list[tuple[float, int]]:
        """(time, tokens that came then), the tokens adding up to ``output_tokens``."""
        events = self.arrivals
        total = self.output_tokens
        if not self.good or not self.counted:
            total = max(total, sum(not event.ends for event in events))
        if len(events) > 1 and events[-1].ends and total < len(events):
            events = events[:-1]
        return [
            (event.at, count) for event, count in zip(events, shares(events, total), strict=True)
        ]

    def itls(self) -> list[float]:
        """Seconds from token to token.

        A gap before an event of several tokens is divided among them, so that the values add up
        to the time from the first event to the last however the server packs its tokens. Tokens
        in the first event have no gap. Where each event holds one token, these are the gaps.
        """
        gaps: list[float] = []
        pending = 0.0
        for (before, _), (at, tokens) in pairwise(self.token_events()):
            pending += at - before
            if tokens:
                gaps.extend([pending / tokens] * tokens)
                pending = 0.0
        return gaps


def shares(events: list[Arrival], total: int) -> list[int]:
    """Tokens of each event: as the server says, else one each and the rest by length of text."""
    count = len(events)
    if count == total:
        return [1] * count
    if count == 0:
        return []
    so_far = [event.tokens_so_far for event in events]
    if so_far[-1] == total and all(tokens is not None for tokens in so_far):
        known = [tokens or 0 for tokens in so_far]
        if known[0] > 0 and all(a <= b for a, b in pairwise(known)):
            return [known[0], *(b - a for a, b in pairwise(known))]
    if total < count:  # one token over several events: the first of them is when it came
        return (
            [
                (k * total + count - 1) // count - ((k - 1) * total + count - 1) // count
                for k in range(1, count + 1)
            ]
            if total
            else [0] * count
        )
    weight = sum(event.weight for event in events) or 1
    result = []
    seen = given = 0
    for event in events:
        seen += event.weight
        upto = round((total - count) * seen / weight)
        result.append(1 + upto - given)
        given = upto
    result[-1] += total - sum(result)
    return result
