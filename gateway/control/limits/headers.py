"""What a limited caller has left, as response headers.

Spelled as in OpenAI's guide to rate limits and in Anthropic's list of response headers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from gateway.control.limits.book import Book, Costs, Now
from gateway.control.limits.counter import Counter
from gateway.control.limits.refusal import duration

Headers = list[tuple[bytes, bytes]]

PREFIXES = (b"x-ratelimit-", b"anthropic-ratelimit-")


def tell_limits(book: Book, costs: Costs, marks: Headers, *, anthropic: bool) -> None:
    """Put the tightest window of requests and of tokens into ``marks``, in place of what an
    earlier attempt has put there."""
    if marks:
        marks[:] = [mark for mark in marks if not mark[0].startswith(PREFIXES)]
    moments = book.now()
    for unit in ("requests", "tokens"):
        counters = [counter for counter, _ in costs if counter.window.unit == unit]
        if counters:
            state = tightest(book, counters, moments)
            marks.extend(of_anthropic(book, state) if anthropic else of_openai(state))


class State(NamedTuple):
    """A limit, what remains of it, and how long until the whole of it is there again."""

    counter: Counter
    remaining: int
    reset_ms: int


def tightest(book: Book, counters: list[Counter], moments: Now) -> State:
    """The one with the least left; of equal ones, the one that takes longest to be whole."""
    left = [book.remaining(counter, moments) for counter in counters]
    least = min(left)
    states = [
        State(counter, least, book.reset_ms(counter, moments))
        for counter, remaining in zip(counters, left, strict=True)
        if remaining == least
    ]
    return max(states, key=lambda state: state.reset_ms) if len(states) > 1 else states[0]


def of_openai(state: State) -> Headers:
    """Limit, what remains of it, and the time until all of it is there again."""
    unit = state.counter.window.unit.encode()
    return [
        (b"x-ratelimit-limit-" + unit, b"%d" % state.counter.limit),
        (b"x-ratelimit-remaining-" + unit, b"%d" % state.remaining),
        (b"x-ratelimit-reset-" + unit, duration(state.reset_ms).encode()),
    ]


def of_anthropic(book: Book, state: State) -> Headers:
    """The same; the reset is a moment in RFC 3339."""
    prefix = b"anthropic-ratelimit-" + state.counter.window.unit.encode()
    now_ms = book.clock.calendar_ms()
    # Rounded up: it is to be true.
    seconds = -(-(now_ms + state.reset_ms) // 1000)
    reset = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        (prefix + b"-limit", b"%d" % state.counter.limit),
        (prefix + b"-remaining", b"%d" % state.remaining),
        (prefix + b"-reset", reset.encode()),
    ]
