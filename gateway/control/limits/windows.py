"""Windows over which use is added up: sliding seconds and minutes, UTC days and months.

Time is cut into slots and use is added up per slot. With a window of K slots, the use of the
newest K + 1 slots may not exceed the limit. Any stretch of time as long as the window touches at
most K + 1 slots, so no such stretch ever sees more than the limit: unlike a fixed window (twice
the limit around its boundary) and a token bucket (twice the limit after a pause). The price is
that use counts for up to one slot longer than the window, 1/60 of a minute, 1/20 of a second.
This is the "sliding window counter" of the literature with the oldest slot counted in full
instead of in part, and with more slots to make that cheap.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from gateway.control.rights import Limits

Unit = Literal["requests", "tokens", "concurrent", "usd"]

DAY_MS = 86_400_000
# Widths that stand for something else than milliseconds.
MONTH = 0
HELD = -1
# Money is counted in billionths of a dollar: a single token costs less than a millionth.
NANO = 1_000_000_000
FOREVER_MS = 1 << 62


@dataclass(frozen=True, slots=True)
class Window:
    """One kind of limit.

    Attributes:
        field: its name in ``Limits``.
        unit: what is counted.
        label: how messages call it.
        width_ms: of a slot; MONTH for calendar months, HELD for what is given back at the end.
        span: how many of the newest slots count.
        is_calendar: it begins anew with each day or month of the UTC calendar.
    """

    field: str
    unit: Unit
    label: str
    width_ms: int
    span: int
    is_calendar: bool = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_calendar", self.width_ms in (DAY_MS, MONTH))

    def slot(self, now_ms: int) -> int:
        """The slot of a moment, in milliseconds since 1970."""
        if self.width_ms > 0:
            return now_ms // self.width_ms
        return month_of(now_ms // DAY_MS) if self.width_ms == MONTH else 0

    def end_ms(self, slot: int) -> int:
        """The first moment at which what was used in this slot does not count any more."""
        if self.width_ms > 0:
            return (slot + self.span) * self.width_ms
        return month_start_ms(slot + 1) if self.width_ms == MONTH else FOREVER_MS


def sliding(name: str, unit: Unit, label: str, window_ms: int, slots: int) -> Window:
    """A window that slides, in ``slots`` slots."""
    return Window(name, unit, label, window_ms // slots, slots + 1)


WINDOWS = {
    window.field: window
    for window in (
        sliding("requests_per_second", "requests", "requests per second", 1000, 20),
        sliding("requests_per_minute", "requests", "requests per min (RPM)", 60_000, 60),
        Window("requests_per_day", "requests", "requests per day (RPD)", DAY_MS, 1),
        sliding("tokens_per_second", "tokens", "tokens per second", 1000, 20),
        sliding("tokens_per_minute", "tokens", "tokens per min (TPM)", 60_000, 60),
        Window("tokens_per_day", "tokens", "tokens per day (TPD)", DAY_MS, 1),
        Window("concurrent_requests", "concurrent", "concurrent requests", HELD, 1),
        Window("usd_per_day", "usd", "US dollars per day", DAY_MS, 1),
        Window("usd_per_month", "usd", "US dollars per month", MONTH, 1),
    )
}


@lru_cache(maxsize=4096)
def set_windows(limits: Limits) -> tuple[tuple[Window, int], ...]:
    """The windows that ``limits`` sets, each with its limit; money in billionths of a dollar."""
    found = []
    for one in fields(limits):
        value = getattr(limits, one.name)
        if value is not None:
            window = WINDOWS[one.name]
            found.append((window, round(value * NANO) if window.unit == "usd" else int(value)))
    return tuple(found)


@lru_cache(maxsize=8)
def month_of(day: int) -> int:
    """The month, as ``year * 12 + month - 1``, of a day counted from 1970-01-01."""
    date = datetime.fromtimestamp(day * 86_400, UTC)
    return date.year * 12 + date.month - 1


@lru_cache(maxsize=8)
def month_start_ms(month: int) -> int:
    """The first moment of a month, in milliseconds since 1970."""
    year, position = divmod(month, 12)
    return int(datetime(year, position + 1, 1, tzinfo=UTC).timestamp()) * 1000
