"""Takes a request to a target that can answer it, and to the next one when that cannot.

    await dispatch(state, exchange, watch, fleet, "chat", body, local)

``local`` answers in this process. The order: the model's share, its targets by its policy, further
ones within the retry budget, then its fallback models by class of error. Another target is asked
only while the client has got nothing of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from gateway.chat.caller import Caller
from gateway.control.admission.tiers import take_tier
from gateway.control.fleet import Fleet
from gateway.control.pool import Pool
from gateway.control.replica import Replica, Task
from gateway.errors import InvalidRequest, ServerOverloaded
from gateway.http.exchange import Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol import anthropic_events, sse
from gateway.protocol.json_body import parsed
from gateway.relay.body import with_fields
from gateway.relay.outgoing import Incoming, check_relayable
from gateway.relay.relay import Relay
from gateway.routing import shadow
from gateway.routing.ask import Ask, expected_tokens, session_of
from gateway.routing.cached import RelayedSlot, relayed_slot
from gateway.routing.config import Api
from gateway.routing.faults import class_of, elsewhere, nobody, told
from gateway.routing.marks import DEGRADED_MARK, header, tell
from gateway.routing.prefix_tokens import prefix_for
from gateway.routing.split import share_for
from gateway.routing.upstream import Upstream
from gateway.state import GatewayState

if TYPE_CHECKING:
    from gateway.hooks.run import Hooks
    from gateway.relay.hooked.request import HookedRequest

Local = Callable[[Exchange, ClientWatch, Fleet, bytes], Coroutine[Any, Any, None]]


def dispatch(
    state: GatewayState,
    exchange: Exchange,
    watch: ClientWatch,
    fleet: Fleet,
    api: Api,
    body: bytes,
    local: Local,
) -> Coroutine[Any, Any, None]:
    """Answer one request; await what is returned. Raises what the table of errors knows."""
    if not fleet.routed:
        return local(exchange, watch, fleet, body)
    return _dispatch(state, exchange, watch, fleet, api, body, local)


async def _dispatch(
    state: GatewayState,
    exchange: Exchange,
    watch: ClientWatch,
    fleet: Fleet,
    api: Api,
    body: bytes,
    local: Local,
) -> None:
    def read(document: dict[str, Any]) -> dict[str, Any]:
        return document

    document = await parsed(body, read)
    headers = exchange.headers
    incoming = Incoming(api, body, document, headers, exchange.request_id, exchange.deadline)
    take_tier(exchange, document.get("service_tier"))
    name = document.get("model")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest("Invalid 'model': expected a string.", param="model")
    task: Task = "embeddings" if api == "embeddings" else "generation"
    pool = fleet.find(name, exchange.principal, task)
    await Journey(state, exchange, watch, fleet, incoming, local).begin(pool)


class Journey:
    """One request, from the model that was asked for to whoever answers."""

    def __init__(
        self,
        state: GatewayState,
        exchange: Exchange,
        watch: ClientWatch,
        fleet: Fleet,
        incoming: Incoming,
        local: Local,
    ) -> None:
        self._state = state
        self._exchange = exchange
        self._watch = watch
        self._fleet = fleet
        self._incoming = incoming
        self._local = local
        self._sse: SseStream | None = None
        self._slot: RelayedSlot | None = None
        self._hooks = state.hooks
        self._hooked: HookedRequest | None = None

    async def begin(self, asked: Pool) -> None:
        """Try the model, then those that may stand in for it."""
        pool = self._share_of(asked)
        ask = self._ask(asked, pool)
        if pool.spec.policy == "prefix":
            ask.prefix = await prefix_for(pool, self._incoming)
        if pool is not asked:
            ask.steps.append(f"split:{pool.names[0]}")
        cache = self._state.answers
        # Hooks see every request, so none is answered without them.
        if self._hooks is None:
            self._slot = await relayed_slot(cache, self._exchange, self._incoming, asked, pool)
        if self._slot and await self._slot.answer(self._exchange, stream=self._incoming.stream):
            return None
        if (owner := shadow.due(asked, pool)) is not None:
            hooked = await self._seen_by(self._hooks) if self._hooks is not None else None
            shadow.copy(self._fleet, owner, hooked.incoming if hooked else self._incoming)
        rules = pool.spec if pool.spec.fallbacks else asked.spec
        waiting: list[str] | None = None
        reason = ""
        while True:
            try:
                return await self._serve(pool, ask)
            except Exception as fault:
                kind = class_of(fault)
                if kind is None or self._exchange.complete or self._began:
                    raise
                if waiting is None:
                    reason, waiting = kind, list(rules.fallback_names(kind))
                    ask.degraded = kind != "context_too_long"
                if not waiting:
                    raise
                pool = self._fleet.named(waiting.pop(0))
                self._slot = None  # nobody else's answer is kept as this model's
                ask.steps = [f"fallback:{reason}:{pool.names[0]}"]

    @property
    def _began(self) -> bool:
        """Whether the client has got more than signs of life."""
        return bool(self._exchange.status) and (self._sse is None or self._sse.wrote)

    async def _serve(self, pool: Pool, ask: Ask) -> None:
        """Have a target of the model answer; raises the last fault as clients are told it."""
        spec, budget = pool.spec, pool.budget
        budget.note_request()
        if pool.hedging is not None:
            pool.hedging.budget.note_request()
        before = list(ask.steps)
        tried: list[str] = []
        retries = 0
        fault: Exception | None = None
        while True:
            found = pool.choose(self._incoming.api, ask, tried) or self._later(pool, fault)
            if found is None:
                raise told(fault, pool) if fault is not None else nobody(pool, self._incoming.api)
            if fault is not None:
                retries += 1
                if retries > spec.retries.most or not budget.take():
                    raise told(fault, pool)
            target, why = found
            ask.steps = [*before, *([f"retry:{retries}"] if retries else []), why]
            try:
                return await self._ask_target(pool, target, ask)
            except Exception as error:
                if not elsewhere(error) or self._began:
                    raise told(error, pool) from error
                fault = error
            if target is None:
                tried.append(self._exchange.details.get("target", ""))
            else:
                tried += [target.name, *others_alike(pool, target, fault)]

    def _later(self, pool: Pool, fault: Exception | None) -> tuple[None, str] | None:
        """Have the request wait for a server of the model, where it may."""
        waits = fault is None and pool.absence.lasts and pool.speaks(self._incoming.api)
        return (None, "awaited") if waits else None

    async def _ask_target(self, pool: Pool, target: Replica | Upstream | None, ask: Ask) -> None:
        exchange, incoming = self._exchange, self._incoming
        exchange.details["attempts"] = exchange.details.get("attempts", 0) + 1
        if isinstance(target, Replica):
            ask.replica = target
            exchange.ask = ask
            changed = incoming.document.get("model") not in pool.names
            body = (
                with_fields(incoming.body, {"model": pool.names[0]}, incoming.document)
                if changed
                else incoming.body
            )
            return await self._local(exchange, self._watch, self._fleet, body)
        check_relayable(incoming)
        shown = None
        if self._hooks is not None and (hooked := await self._seen_by(self._hooks)) is not None:
            incoming, shown = hooked.incoming, hooked.answer()
        if target is None:
            exchange.details["model"] = pool.names[0]
        else:
            tell(exchange.marks, exchange.details, pool.names[0], target.name, ask.steps)
        exchange.details["stream"] = incoming.stream
        if ask.degraded:
            exchange.marks.append((DEGRADED_MARK, header(ask.asked)))
            exchange.details["degraded"] = ask.asked
            self._state.lifecycle.metrics.degraded[ask.asked] += 1
        if incoming.stream and self._sse is None:
            ping = anthropic_events.PING if incoming.api == "messages" else sse.PING
            ping_s = self._state.settings_of(exchange).sse_ping_s
            self._sse = SseStream(exchange, self._watch, ping_s, ping)
        relay = Relay(self._state, exchange, pool, incoming, ask, self._sse, self._slot, shown)
        await relay.attempt(target)

    async def _seen_by(self, hooks: Hooks) -> HookedRequest | None:
        """The request as hooks let it go to other servers, seen by them once; None for one that
        they do not see.

        Raises InvalidRequest or NotPermitted for a refusal, and HookFailed.
        """
        if self._incoming.api == "embeddings":
            return None
        if self._hooked is None:
            from gateway.relay.hooked.request import hooked_request

            self._hooked = await hooked_request(hooks, self._incoming, Caller.of(self._exchange))
        return self._hooked

    def _share_of(self, asked: Pool) -> Pool:
        if asked.spec.split is None:
            return asked
        exchange = self._exchange
        return self._fleet.named(share_for(asked.spec, exchange.principal.id, exchange.headers))

    def _ask(self, asked: Pool, pool: Pool) -> Ask:
        spec, incoming, exchange = pool.spec, self._incoming, self._exchange
        prompt, most, _, choices = expected_tokens(len(incoming.body), incoming.document)
        ask = Ask(incoming.api, asked.names[0], tokens=prompt + most * choices)
        if spec.policy == "session":
            ask.session = session_of(
                spec, exchange.headers, incoming.document, exchange.principal.id
            )
        return ask


def others_alike(pool: Pool, target: Replica | Upstream, fault: Exception) -> list[str]:
    """Targets that would fare no better: an attempt in this process has tried every replica, and
    all servers elsewhere wait in one line of the gateway's own."""
    if isinstance(target, Replica):
        return [replica.name for replica in pool.replicas]
    if isinstance(fault, ServerOverloaded):
        return [upstream.name for upstream in pool.upstreams]
    return []
