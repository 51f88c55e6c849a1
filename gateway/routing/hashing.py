"""Hashes that choose: the same key finds the same place, and few keys move when places change."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

_SPAN = float(2**64)


def point(*parts: str) -> float:
    """A number in (0, 1) that depends on the parts only, the same in every process."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") + 0.5) / _SPAN


def ranked(key: str, places: Sequence[tuple[str, float]]) -> list[int]:
    """Positions of ``places`` (name, weight), the key's own place first.

    Highest random weight, or rendezvous, hashing: Thaler and Ravishankar, IEEE/ACM Transactions
    on Networking 6(1), 1998; with weights by ``-weight / ln(point)``. When a place goes, only its
    own keys move, and they spread over all others.
    """
    scores = [-weight / math.log(point(key, name)) for name, weight in places]
    return sorted(range(len(places)), key=lambda position: -scores[position])


def share_at(where: float, weights: Sequence[float]) -> int:
    """The position whose share of the line from 0 to 1 holds ``where``."""
    left = where * sum(weights)
    last = 0
    for position, weight in enumerate(weights):
        if weight <= 0:
            continue
        last = position
        left -= weight
        if left < 0:
            return position
    return last
