"""One attempt to have another server answer: its bytes go to the client as they come."""

from __future__ import annotations

import os
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from gateway.chat.caller import Caller
from gateway.control.gate import Work
from gateway.control.pool import Pool, RemoteRoute
from gateway.errors import HookFailed
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.sse_stream import SseStream
from gateway.relay.answer import text_of
from gateway.relay.attempt import Attempt
from gateway.relay.break_off import break_off, broke_off
from gateway.relay.carry_on import CarryOn, carried
from gateway.relay.errors import UpstreamFault
from gateway.relay.hedge import first_of
from gateway.relay.outgoing import Incoming, outgoing
from gateway.relay.tokens import TokenRecorder, can_be_carried
from gateway.routing.ask import Ask, expected_tokens
from gateway.routing.faults import nobody
from gateway.routing.hedging import Hedging
from gateway.routing.marks import tell
from gateway.routing.policies import load_of
from gateway.routing.upstream import Upstream
from gateway.state import GatewayState
from gateway.telemetry.model_metrics import ModelMetrics
from gateway.telemetry.tracing import tell_server

if TYPE_CHECKING:
    from gateway.relay.hooked.stream import HookedBytes
    from gateway.routing.cached import RelayedSlot


class Relay:
    """One request on its way through servers of a model.

    Args:
        sse: where a stream is written to; None for an answer in one piece.
        slot: where a complete answer is kept for the next one who asks the same.
        shown: what hooks make of the answer; None where none wants it.
    """

    def __init__(
        self,
        state: GatewayState,
        exchange: Exchange,
        pool: Pool,
        incoming: Incoming,
        ask: Ask,
        sse: SseStream | None,
        slot: RelayedSlot | None = None,
        shown: HookedBytes | None = None,
    ) -> None:
        self._slot = slot
        self._shown = shown
        self._state = state
        self._exchange = exchange
        self._pool = pool
        self._incoming = incoming
        self._ask = ask
        self._sse = sse
        self._route = RemoteRoute(ask.asked, ask.degraded, pool)
        self._metrics: ModelMetrics = state.lifecycle.metrics.models[pool.names[0]]
        self._sent = False
        self._ttft_s: float | None = None

    async def attempt(self, upstream: Upstream | None) -> None:
        """Have this server answer; None: the one that is chosen once any is there.

        Raises UpstreamFault while the client has got nothing of an answer, so that another can
        be asked; UpstreamUnavailable when an answer breaks off; what the gate raises.
        """
        work = self._work()
        self._state.admission.refuse_early(work.route, work.priority)
        try:
            async with self._state.gate.enter(work):
                upstream = await self._with_room(upstream)
                attempt = self._new_attempt(upstream)
                try:
                    attempt = await self._begun(attempt)
                    async with attempt:
                        await self._pass_on(attempt)
                except UpstreamFault:
                    if not await self._carried_on(attempt):
                        raise
                finally:
                    self._settle(work, attempt)
        except UpstreamFault:
            if not self._sent:
                raise
            await break_off(broke_off(), self._exchange, self._incoming.api, self._sse)
        except HookFailed as error:
            await break_off(error, self._exchange, self._incoming.api, self._sse)
        finally:
            self._exchange.details["admission_ms"] = round(work.used.admission_s * 1000, 2)

    async def _with_room(self, upstream: Upstream | None) -> Upstream:
        """The server, or after a wait whichever has room."""
        upstream = found = upstream or self._arrived()
        while (found := self._pool.roomier(found, self._incoming.api)).full:
            await found.wait_for_room()
        if found is not upstream:
            self._tell(found, "full")
        return found

    def _arrived(self) -> Upstream:
        """A server, now that the model has some again."""
        api = self._incoming.api
        found = self._pool.choose(api, self._ask, ())
        if found is None or not isinstance(found[0], Upstream):
            raise nobody(self._pool, api)
        self._tell(found[0], found[1])
        return found[0]

    def _tell(self, upstream: Upstream, why: str) -> None:
        """Say that this server answers in place of the one that was chosen."""
        exchange = self._exchange
        steps = [*self._ask.steps, why]
        tell(exchange.marks, exchange.details, self._pool.names[0], upstream.name, steps)

    def _work(self) -> Work:
        exchange, incoming = self._exchange, self._incoming
        prompt, most, capped, choices = expected_tokens(len(incoming.body), incoming.document)
        is_vectors = incoming.api == "embeddings"
        return Caller.of(exchange).work(
            f"relay-{os.urandom(12).hex()}",
            self._route,
            prompt_tokens=prompt,
            max_tokens=0 if is_vectors else most,
            is_capped=is_vectors or capped,
            choices=0 if is_vectors else choices,
        )

    def _new_attempt(self, upstream: Upstream) -> Attempt:
        tell_server(upstream)
        recorder = self._recorder(upstream)
        name = self._pool.names[0]
        request = outgoing(self._incoming, upstream, name, adds_ids=bool(recorder))
        return Attempt(upstream, self._incoming, request, self._ask.tokens, recorder)

    async def _begun(self, attempt: Attempt) -> Attempt:
        """The attempt, or the one at another server that has begun before it."""
        hedging = self._pool.hedging
        if hedging is None:
            await attempt.begin()
            return attempt
        return await self._first_of(attempt, hedging)

    async def _first_of(self, attempt: Attempt, hedging: Hedging) -> Attempt:
        details, outcomes, pool = self._exchange.details, hedging.outcomes, self._pool

        def another() -> Attempt | None:
            others = pool.servers(self._incoming.api, (attempt.upstream.name,))
            waiting = self._state.admission.waiting(self._route)
            other = hedging.choose([] if waiting else others)
            if other is None:
                return None
            details["hedged"] = other.name
            return self._new_attempt(other)

        outcome = "failed"
        try:
            won = await first_of(attempt, hedging.rules.after_s, another)
            outcome = "lost" if won is attempt else "won"
        finally:
            if "hedged" in details:
                outcomes[outcome] += 1
        if "hedged" in details:
            tell_server(won.upstream)
        if won is not attempt:
            self._tell(won.upstream, "hedge")
        return won

    def _recorder(self, upstream: Upstream) -> TokenRecorder | None:
        """What another server would go on from, where there is one that could."""
        incoming = self._incoming
        fits = incoming.api in ("chat", "completions") and can_be_carried(incoming.document)
        if self._sse is None or not fits or not upstream.spec.carry_on:
            return None
        return TokenRecorder() if self._others_of(upstream, {upstream.name}) else None

    def _others_of(self, upstream: Upstream, tried: set[str]) -> list[Upstream]:
        return [
            other
            for other in self._pool.servers("completions")
            if other.spec is upstream.spec and other.name not in tried
        ]

    async def _carried_on(self, attempt: Attempt) -> bool:
        """Have another server finish a stream that has begun; whether one has."""
        sse, upstream, recorder = self._sse, attempt.upstream, attempt.recorder
        if recorder is None or sse is None or not self._sent or not recorder.usable:
            return False
        tried = {upstream.name}
        carry = CarryOn(self._incoming, upstream.spec.model or self._pool.names[0], recorder)
        while not recorder.finished:
            others = self._others_of(upstream, tried)
            if not others:
                return False
            successor = min(others, key=load_of)
            tried.add(successor.name)
            try:
                async with aclosing(carried(carry, successor, self._ask.tokens)) as events:
                    async for event in events:
                        await sse.write(self._seen(event))
            except UpstreamFault:
                continue
            self._exchange.details["carried_on"] = successor.name
            self._state.lifecycle.metrics.note_carry_on(self._ask.asked)
        usage = attempt.reader.usage
        usage.prompt, usage.completion = len(recorder.prompt_ids), len(recorder.output_ids)
        await sse.end(self._seen(carry.ending()))
        return True

    def _seen(self, events: bytes) -> bytes:
        """What hooks make of events."""
        return events if self._shown is None else self._shown.events(events)

    async def _pass_on(self, attempt: Attempt) -> None:
        self._note_first()
        if self._sse is None:
            body = attempt.take()
            if self._shown is not None:
                body = await self._shown.whole(body)
            self._note_end("stop")
            self._sent = True
            if self._slot is not None:
                self._slot.keep(body)
            await self._exchange.respond(200, body, [JSON_TYPE])
            return
        await self._pass_on_events(attempt, self._sse)
        self._note_end("length" if attempt.reader.finish == "length" else "stop")
        if self._slot is not None:
            self._slot.keep()
        await self._sse.end(b"" if self._shown is None else self._shown.rest())

    async def _pass_on_events(self, attempt: Attempt, sse: SseStream) -> None:
        self._sent = True
        more = True
        while more:
            data = attempt.take()
            if self._shown is not None:
                data = self._shown.events(data)
            if self._slot is not None:
                self._slot.remember(data)
            if data and not sse.push(data):
                await sse.write(data)
            more = await attempt.more()
        await attempt.finish()

    def _note_first(self) -> None:
        if self._ttft_s is None:
            self._ttft_s = time.perf_counter() - self._exchange.started
            self._metrics.first_token.observe(self._ttft_s)

    def _note_end(self, reason: str) -> None:
        self._metrics.end_to_end.observe(time.perf_counter() - self._exchange.started)
        self._metrics.finished[reason] += 1

    def _settle(self, work: Work, attempt: Attempt) -> None:
        """What was used, by the server's own count or else by what passed."""
        details, reader = self._exchange.details, attempt.reader
        used, usage = work.used, reader.usage
        if self._ttft_s is not None:
            usage.settle(used, prompt=work.prompt_tokens, completion=reader.outputs)
            metrics = self._metrics
            metrics.prompt_tokens += used.prompt_tokens
            metrics.cached_tokens += used.cached_tokens
            metrics.generation_tokens += used.completion_tokens
        ttft_ms = None if self._ttft_s is None else round(self._ttft_s * 1000, 2)
        details.update(
            prompt_tokens=used.prompt_tokens,
            cached_tokens=used.cached_tokens,
            completion_tokens=used.completion_tokens,
            reasoning_tokens=usage.reasoning,
            ttft_ms=ttft_ms,
        )
        if reader.model not in (None, attempt.upstream.spec.model or self._pool.names[0]):
            details["upstream_model"] = text_of(reader.model)
        if reader.finish is not None:
            used.finish_reasons = (reader.finish,)
        if self._shown is not None and self._ttft_s is not None:
            self._shown.close(self._pool.names[0], used.prompt_tokens, used.completion_tokens)
