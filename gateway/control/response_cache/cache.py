"""Answers by what was asked, bounded in number, bytes and age."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from gateway.control.response_cache.wish import Policy
from gateway.settings_ledger import LedgerSettings

# One answer may take this share of all the memory.
LARGEST_SHARE = 8
# What an entry needs beside its answer.
OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Stored:
    """A complete answer as it was sent.

    Attributes:
        body: JSON, or all events of a stream.
        made: ``time.monotonic()``.
    """

    body: bytes
    model: str
    made: float

    @property
    def age_s(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self.made


class AnswerCache:
    """The least recently used answer goes first. Owned by the event loop.

    Attributes:
        policy: for whom it is.
    """

    def __init__(
        self, policy: Policy, most_bytes: int, most_entries: int, max_age_s: float
    ) -> None:
        self.policy = policy
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._max_age_s = max_age_s
        self._entries: OrderedDict[bytes, Stored] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def bound(self, policy: Policy, most_bytes: int, most_entries: int, max_age_s: float) -> None:
        """Go by other bounds; what no longer fits is dropped, the least recently used first."""
        self.policy = policy
        self._most_bytes = most_bytes
        self._most_entries = most_entries
        self._max_age_s = max_age_s
        self._shrink()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def largest(self) -> int:
        """Most bytes of one answer."""
        return self._most_bytes // LARGEST_SHARE

    def get(self, key: bytes, max_age_s: float) -> Stored | None:
        """The answer, if there is one that is young enough."""
        found = self._entries.get(key)
        if found is not None and found.age_s > self._max_age_s:
            self._drop(key)
            found = None
        if found is None or found.age_s > max_age_s:
            self.misses += 1
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return found

    def put(self, key: bytes, stored: Stored) -> None:
        """Keep an answer, unless it is too large."""
        if len(stored.body) > self.largest:
            return
        if key in self._entries:
            self._drop(key)
        self._entries[key] = stored
        self.bytes += weight(stored)
        self._shrink()

    def _shrink(self) -> None:
        while self.bytes > self._most_bytes or len(self._entries) > self._most_entries:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        self.bytes -= weight(self._entries.pop(key))


def new_cache(settings: LedgerSettings) -> AnswerCache:
    """The empty cache that the settings ask for."""
    return AnswerCache(
        Policy.parse(settings.response_cache),
        settings.response_cache_max_bytes,
        settings.response_cache_max_entries,
        settings.response_cache_max_age_s,
    )


def weight(stored: Stored) -> int:
    """Memory that an entry is counted as, in bytes."""
    return len(stored.body) + OVERHEAD_BYTES
