"""How requests were answered, and which keys were refused: what an attack and a fault look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, Metric

# No key that counts, not allowed, too much.
REFUSED = frozenset({401, 403, 429})
# Keys may be made by the thousand; each that has been refused is a series or three.
MOST_KEYS = 1000
OTHER_KEYS = "other"


class Answers:
    """Counted on the event loop.

    Args:
        nobody: id of callers without a key that counts; their series exist from the start.
    """

    def __init__(self, nobody: str) -> None:
        self._statuses: Counter[int] = Counter()
        self._refused: Counter[tuple[str, int]] = Counter({(nobody, s): 0 for s in REFUSED})
        self._keys = {nobody}

    def note(self, key: str, status: int) -> None:
        """Count a request of this caller; status 0 when the client left before any answer."""
        self._statuses[status] += 1
        if status in REFUSED:
            if key not in self._keys and len(self._keys) >= MOST_KEYS:
                key = OTHER_KEYS
            else:
                self._keys.add(key)
            self._refused[key, status] += 1

    def collect(self) -> Iterator[Metric]:
        """Samples at this moment."""
        statuses = CounterMetricFamily(
            "gateway_http_responses",
            "Requests by the HTTP status of their answer.",
            labels=["status"],
        )
        for status, count in self._statuses.items():
            statuses.add_metric([str(status or "none")], count)
        yield statuses
        refused = CounterMetricFamily(
            "gateway_key_refusals",
            "Requests answered with 401, 403 or 429, by whose key they came with.",
            labels=["key", "status"],
        )
        for (key, status), count in self._refused.items():
            refused.add_metric([key, str(status)], count)
        yield refused
