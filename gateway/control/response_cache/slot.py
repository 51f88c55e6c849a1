"""The place of one request in the cache of answers.

An answer belongs to the tenant, the endpoint, everything in the request that could change it, and
to the model with its fingerprint, so that another version of the model never answers with it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from gateway.chat.adapters import adapter_of
from gateway.chat.completion_turn import CompletionTurn
from gateway.chat.turn import ChatTurn, fingerprint
from gateway.control.fleet import Fleet
from gateway.control.response_cache.cache import AnswerCache, Stored
from gateway.control.response_cache.wish import HEADER, Wish
from gateway.control.rights import Principal
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.protocol.chat_request import ChatRequest
from gateway.protocol.completion_request import CompletionRequest
from gateway.protocol.json_body import PARSE_INLINE_BYTES
from gateway.protocol.sse import SSE_HEADERS

# The answer is the same whatever these say. The model goes by its own name and fingerprint.
NOT_PART = ("model", "user", "metadata", "store", "safety_identifier")

Write = Callable[[bytes], Awaitable[None]]
AnyTurn = ChatTurn | CompletionTurn
CachedRequest = ChatRequest | CompletionRequest


class Slot:
    """Finds the answer to a request, or keeps it once it is complete.

    Args:
        base: digest of everything but the model.
    """

    def __init__(self, cache: AnswerCache, base: bytes, wish: Wish) -> None:
        self._cache = cache
        self._base = base
        self._wish = wish
        self._parts: list[bytes] = []
        self._bytes = 0

    def find(self, model: str, made_by: str) -> Stored | None:
        """The answer that this model has given, if it will do; ``made_by`` changes with
        whatever may change its answers."""
        if not self._wish.reads:
            return None
        return self._cache.get(self._key(model, made_by), self._wish.max_age_s)

    def keep(self, turn: AnyTurn, body: bytes) -> None:
        """Keep what has been answered, if it is complete and by the model that was asked."""
        if turn.finished and not turn.degraded:
            self.keep_as(turn.model, turn.fingerprint, body)

    def keep_as(self, model: str, made_by: str, body: bytes) -> None:
        """Keep a complete answer of this model."""
        key = self._key(model, made_by)
        self._cache.put(key, Stored(body, model, time.monotonic()))

    def recording(self, write: Write) -> Write:
        """``write``, and remember what was written."""

        def remember(data: bytes) -> Awaitable[None]:
            self.remember(data)
            return write(data)

        return remember

    def keep_stream(self, turn: AnyTurn, end: bytes) -> None:
        """Keep what ``recording`` has seen, with the last events."""
        self.remember(end)
        if (whole := self.remembered) is not None:
            self.keep(turn, whole)

    @property
    def remembered(self) -> bytes | None:
        """Everything that was remembered; None where it was too much to keep."""
        return b"".join(self._parts) if self._bytes <= self._cache.largest else None

    def remember(self, data: bytes) -> None:
        """Note a part of a stream as it is sent."""
        self._bytes += len(data)
        if self._bytes <= self._cache.largest:
            self._parts.append(data)
        else:
            self._parts.clear()

    def _key(self, model: str, made_by: str) -> bytes:
        return digest(self._base, model.encode(), made_by.encode())


async def answer_from_cache(
    cache: AnswerCache,
    wish: Wish,
    fleet: Fleet,
    exchange: Exchange,
    request: CachedRequest,
    body: bytes,
) -> Slot | None:
    """Answer the request if that can be done; the exchange is complete then. Otherwise where its
    answer is to be kept, or None when it is not to be. Raises what routing raises."""
    principal = exchange.principal
    route = fleet.route(request.model, principal, ask=exchange.ask)
    info = route.info
    covered = cache.policy.covers((route.asked, info.id, *info.aliases), principal.id)
    if adapter_of(route, request.model) is not None:
        return None  # its name is not part of the key
    if route.degraded or not (wish.asked or (covered and is_repeatable(request.fields))):
        return None
    slot = Slot(cache, await base_of(principal, exchange.path, body), wish)
    found = slot.find(info.id, fingerprint(info))
    if found is not None:
        await replay(exchange, found, stream=request.stream)
        return None
    note_miss(exchange)
    return slot


def note_miss(exchange: Exchange) -> None:
    """Tell the caller that the cache was asked; once, however many targets are tried."""
    if (HEADER, b"miss") not in exchange.marks:
        exchange.marks.append((HEADER, b"miss"))


def is_repeatable(fields: Mapping[str, Any]) -> bool:
    """Whether the model would give the same answer again."""
    greedy = fields.get("temperature") == 0 or fields.get("top_k") == 1
    return greedy or fields.get("seed") is not None


async def base_of(principal: Principal, endpoint: str, body: bytes) -> bytes:
    """Digest of a request's JSON, for one tenant and without the model."""
    tenant = principal.tenant
    parts = (tenant.organisation, tenant.project, principal.cache_salt, endpoint)

    def compute() -> bytes:
        document = orjson.loads(body)
        for name in NOT_PART:
            document.pop(name, None)
        canonical = orjson.dumps(document, option=orjson.OPT_SORT_KEYS)
        return digest(*(part.encode() for part in parts), canonical)

    return compute() if len(body) <= PARSE_INLINE_BYTES else await asyncio.to_thread(compute)


def digest(*parts: bytes) -> bytes:
    """SHA-256 of parts that cannot run into each other."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.digest()


async def replay(exchange: Exchange, stored: Stored, *, stream: bool) -> None:
    """Send a stored answer as it was sent before, with its own id and time."""
    exchange.marks.append((b"x-gateway-model", stored.model.encode()))
    exchange.marks.append((HEADER, b"hit"))
    exchange.marks.append((b"age", b"%d" % stored.age_s))
    exchange.details.update(model=stored.model, stream=stream, cache_hit=True)
    if stream:
        if not exchange.status:  # a target that was tried before may have begun with a ping
            await exchange.start(200, SSE_HEADERS)
        await exchange.end(stored.body)
    else:
        await exchange.respond(200, stored.body, [JSON_TYPE])
