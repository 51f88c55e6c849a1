"""One request as the ledger knows it."""

from __future__ import annotations

from typing import Literal, NamedTuple

# Over HTTP, as a line of a batch, or in the background of its own answer.
Source = Literal["http", "batch", "background"]


class Entry(NamedTuple):
    """A request that has ended. Holds no text of it: no prompt, answer, header or key.

    Attributes:
        id: unique over all gateways; a record is counted once however often it is written.
        at: Unix time of the end, in seconds.
        key_id: public id of the key.
        model: that answered, or "" when none was found. target: which of its servers.
        outcome: completed, cancelled, failed, rejected or shed.
        status: of the response, or None when none was begun.
        prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens: that an engine worked
            on, whatever the outcome. Cached ones are part of the prompt's, reasoning ones of
            the completion's.
        usd: what they cost, by prices of the day ``priced`` ("" for a model without a price).
        queue_ms: waited in the gateway; engine_queue_ms: in the engine; None for neither.
        ttft_ms: arrival to first token; total_ms: to the last byte.
        degraded: the model for which the fallback answered, or None.
        cache_hit: the answer came from the cache of answers.
    """

    id: str
    at: float
    source: Source
    key_id: str
    organisation: str
    project: str
    route: str
    model: str
    target: str
    outcome: str
    status: int | None
    error_code: str | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    usd: float
    priced: str
    queue_ms: float | None
    engine_queue_ms: float | None
    ttft_ms: float | None
    total_ms: float
    degraded: str | None
    stream: bool
    cache_hit: bool
    request_id: str


FIELDS = Entry._fields
