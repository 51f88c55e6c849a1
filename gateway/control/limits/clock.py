"""The time that windows go by."""

from __future__ import annotations

import time
from collections.abc import Callable

# Replies of the shared store that differ by less come late, those that differ by more come
# from a clock that was set back.
JITTER_MS = 1000


class Clock:
    """Milliseconds since 1970: this process's own, or the shared store's once it was heard.

    Sliding windows go by a clock that is never set; calendar windows by the wall clock.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset_ms = int((wall() - monotonic()) * 1000)
        self._follows = False

    def now_ms(self) -> int:
        """For windows that slide."""
        return int(self._monotonic() * 1000) + self._offset_ms

    def calendar_ms(self) -> int:
        """For days and months."""
        return self.now_ms() if self._follows else int(self._wall() * 1000)

    def follow(self, server_ms: int) -> None:
        """Go by the clock of the shared store, which has just been this."""
        offset = server_ms - int(self._monotonic() * 1000)
        if not self._follows or not 0 <= self._offset_ms - offset <= JITTER_MS:
            self._offset_ms = offset
        self._follows = True
