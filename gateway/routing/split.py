"""Which share of a split model answers a request."""

from __future__ import annotations

import random
from collections.abc import Mapping

from gateway.routing.config import ModelSpec
from gateway.routing.hashing import point, share_at


def share_for(spec: ModelSpec, principal_id: str, headers: Mapping[bytes, bytes]) -> str:
    """The name of the model that answers.

    Sticky: the same key, or the same value of the header, finds the same share in every process,
    and a change of weights moves only what it must. Without the header it is drawn.
    """
    split = spec.split
    if split is None:
        return spec.name
    value = ""
    if split.sticky == "key":
        value = principal_id
    elif split.sticky.startswith("header:"):
        name = split.sticky.removeprefix("header:").encode()
        value = headers.get(name, b"").decode("latin-1")
    where = point(spec.name, value) if value else random.random()  # noqa: S311 - no secret
    position = share_at(where, [weight for _, weight in split.shares])
    return split.shares[position][0]
