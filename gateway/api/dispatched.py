"""What handlers share whose requests may be answered here or by another server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

from gateway.chat.caller import Caller
from gateway.control.admission.tiers import take_tier
from gateway.control.fleet import Fleet
from gateway.control.response_cache.slot import CachedRequest, Slot, answer_from_cache
from gateway.control.response_cache.wish import read_wish
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.watch import ClientWatch
from gateway.protocol.json_body import parsed
from gateway.routing.config import Api
from gateway.routing.dispatch import dispatch
from gateway.state import GatewayState

RequestT = TypeVar("RequestT", bound=CachedRequest)


class DispatchedHandler(ABC):
    """Read the body, watch the client, and have a target answer.

    Attributes:
        api: what it is called in ``gateway.yaml``.
    """

    api: ClassVar[Api]

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        settings = self._state.settings_of(exchange)
        with self._state.lifecycle.admit() as fleet:
            body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
            async with ClientWatch(exchange) as watch:
                answering = dispatch(
                    self._state, exchange, watch, fleet, self.api, body, self._local
                )
                del body  # so that nobody but who needs it keeps it
                await answering

    @abstractmethod
    async def _local(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, body: bytes
    ) -> None:
        """Answer with an engine of this process."""


class CachingHandler(DispatchedHandler, Generic[RequestT]):
    """A handler whose answers may come from the cache of answers, and go into it."""

    async def _local(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, body: bytes
    ) -> None:
        strict = self._state.settings_of(exchange).strict_parameters
        request = await parsed(body, lambda document: self._read(document, strict=strict))
        take_tier(exchange, request.fields.get("service_tier"))
        slot = None
        cache = self._state.answers
        # Hooks see every request, so none is answered without them.
        if not self._state.hooks and (wish := read_wish(exchange.headers, cache.policy)):
            slot = await answer_from_cache(cache, wish, fleet, exchange, request, body)
            if exchange.complete:
                return
        del body
        if request.stream:
            await self._stream(exchange, watch, fleet, request, slot)
        else:
            answer = await self._whole(fleet, request, Caller.of(exchange), slot)
            await exchange.respond(200, answer, [JSON_TYPE])

    @abstractmethod
    def _read(self, document: dict[str, Any], *, strict: bool) -> RequestT:
        """The checked request. Raises InvalidRequest."""

    @abstractmethod
    async def _stream(
        self,
        exchange: Exchange,
        watch: ClientWatch,
        fleet: Fleet,
        request: RequestT,
        slot: Slot | None,
    ) -> None:
        """Send events as they come; kept in ``slot``. The first delta decides between an answer
        and an error, unless it is so late that the client needs a sign of life first."""

    @abstractmethod
    async def _whole(
        self, fleet: Fleet, request: RequestT, caller: Caller, slot: Slot | None
    ) -> bytes:
        """The answer in one piece, as JSON; kept in ``slot``."""
