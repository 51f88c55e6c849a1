"""One attempt to have another server answer: its bytes go to the client as they come."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing

from gateway.chat.caller import Caller
from gateway.control.gate import Work
from gateway.control.pool import Pool, RemoteRoute
from gateway.errors import SERVICE, UpstreamUnavailable, answer
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.sse_stream import SseStream
from gateway.protocol.response_events import error_event
from gateway.relay.answer import ask as ask_server
from gateway.relay.answer import check_type, read_json
from gateway.relay.carry_on import CarryOn, carried
from gateway.relay.connection import Connection
from gateway.relay.errors import Broken, NotUnderstood, UpstreamFault
from gateway.relay.events import EventSplitter, EventTooLong
from gateway.relay.outgoing import Incoming, Outgoing, outgoing
from gateway.relay.stream import StreamReader
from gateway.relay.tokens import TokenRecorder, can_be_carried
from gateway.relay.usage import Usage
from gateway.routing.ask import Ask, expected_tokens
from gateway.routing.marks import tell
from gateway.routing.policies import load_of
from gateway.routing.upstream import Upstream
from gateway.state import GatewayState
from gateway.telemetry.model_metrics import ModelMetrics
from gateway.telemetry.tracing import tell_server

# How long a server may take to end a response whose last event has come.
END_S = 1.0


class Relay:
    """One request on its way through servers of a model.

    Args:
        sse: where a stream is written to; None for an answer in one piece.
    """

    def __init__(
        self,
        state: GatewayState,
        exchange: Exchange,
        pool: Pool,
        incoming: Incoming,
        ask: Ask,
        sse: SseStream | None,
    ) -> None:
        self._state = state
        self._exchange = exchange
        self._pool = pool
        self._incoming = incoming
        self._ask = ask
        self._sse = sse
        self._metrics: ModelMetrics = state.lifecycle.metrics.models[pool.names[0]]
        self._sent = False
        self._held: list[bytes] = []
        self._ttft_s: float | None = None

    async def attempt(self, upstream: Upstream) -> None:
        """Have this server answer.

        Raises UpstreamFault while the client has got nothing of an answer, so that another can
        be asked; UpstreamUnavailable when an answer breaks off; what the gate raises.
        """
        work = self._work()
        self._state.admission.refuse_early(work.route, work.priority)
        usage = Usage()
        reader = StreamReader(self._incoming.api, drops_usage=False)
        try:
            async with self._state.gate.enter(work):
                upstream = await self._with_room(upstream)
                tell_server(upstream)
                recorder = self._recorder(upstream)
                name = self._pool.names[0]
                request = outgoing(self._incoming, upstream, name, adds_ids=bool(recorder))
                reader = StreamReader(self._incoming.api, drops_usage=request.adds_usage)
                usage = reader.usage
                try:
                    with upstream.attempt(self._ask.tokens):
                        if self._sse is None:
                            await self._whole(upstream, request, usage)
                        else:
                            await self._stream(upstream, request, reader, recorder, self._sse)
                except UpstreamFault:
                    if not await self._carried_on(upstream, recorder, usage):
                        raise
                finally:
                    self._settle(work, usage, reader.outputs)
                    if reader.finish is not None:
                        work.used.finish_reasons = (reader.finish,)
        except UpstreamFault:
            if not self._sent:
                raise
            await self._break_off()
        finally:
            self._exchange.details["admission_ms"] = round(work.used.admission_s * 1000, 2)

    async def _with_room(self, upstream: Upstream) -> Upstream:
        """The server, or after a wait whichever has room."""
        found = upstream
        while (found := self._pool.roomier(found, self._incoming.api)).full:
            await found.wait_for_room()
        if found is not upstream:
            exchange = self._exchange
            steps = [*self._ask.steps, "full"]
            tell(exchange.marks, exchange.details, self._pool.names[0], found.name, steps)
        return found

    def _work(self) -> Work:
        exchange, incoming = self._exchange, self._incoming
        prompt, most, capped, choices = expected_tokens(len(incoming.body), incoming.document)
        is_vectors = incoming.api == "embeddings"
        return Caller.of(exchange).work(
            f"relay-{os.urandom(12).hex()}",
            RemoteRoute(self._ask.asked, self._ask.degraded, self._pool),
            prompt_tokens=prompt,
            max_tokens=0 if is_vectors else most,
            is_capped=is_vectors or capped,
            choices=0 if is_vectors else choices,
        )

    async def _whole(self, upstream: Upstream, request: Outgoing, usage: Usage) -> None:
        async with ask_server(upstream, request.data) as connection:
            body, document = await read_json(connection, upstream)
            usage.read(document.get("usage"))
            self._note_first()
            self._metrics.end_to_end.observe(time.perf_counter() - self._exchange.started)
            self._metrics.finished["stop"] += 1
        self._sent = True
        await self._exchange.respond(200, body, [JSON_TYPE])

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

    async def _carried_on(
        self, upstream: Upstream, recorder: TokenRecorder | None, usage: Usage
    ) -> bool:
        """Have another server finish a stream that has begun; whether one has."""
        sse = self._sse
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
                        await sse.write(event)
            except UpstreamFault:
                continue
            self._exchange.details["carried_on"] = successor.name
            self._state.lifecycle.metrics.note_carry_on(self._ask.asked)
        usage.prompt, usage.completion = len(recorder.prompt_ids), len(recorder.output_ids)
        await sse.end(carry.ending())
        return True

    async def _stream(
        self,
        upstream: Upstream,
        request: Outgoing,
        reader: StreamReader,
        recorder: TokenRecorder | None,
        sse: SseStream,
    ) -> None:
        async with ask_server(upstream, request.data) as connection:
            check_type(connection, b"text/event-stream")
            splitter = EventSplitter()
            idle_s = upstream.spec.timeouts.idle
            while not reader.complete:
                data = await connection.read(idle_s)
                if not data:
                    break
                await self._pass_on(splitter, reader, recorder, data, sse)
            if not reader.ended_well:
                raise Broken("the stream ended before the answer did")
            await drain(connection)
        metrics = self._metrics
        metrics.end_to_end.observe(time.perf_counter() - self._exchange.started)
        metrics.finished["length" if reader.finish == "length" else "stop"] += 1
        await sse.end(b"")

    async def _pass_on(
        self,
        splitter: EventSplitter,
        reader: StreamReader,
        recorder: TokenRecorder | None,
        data: bytes,
        sse: SseStream,
    ) -> None:
        """Write the whole events of ``data``; what is no event goes no further.

        Events that only announce an answer wait for its first output: until then another server
        can be asked without the client having heard of this one.
        """
        try:
            events = splitter.feed(data)
        except EventTooLong as error:
            raise NotUnderstood(str(error)) from None
        passed = self._held
        fault: UpstreamFault | None = None
        for event in events:
            try:
                if not reader.see(event):
                    continue
                if recorder is not None and reader.document is not None:
                    event = recorder.take(event, reader.document)
                passed.append(event)
            except UpstreamFault as found:
                fault = found
                break
        if passed and reader.has_output:
            self._held = []
            self._note_first()
            self._sent = True
            data = passed[0] if len(passed) == 1 else b"".join(passed)
            if not sse.push(data):
                await sse.write(data)
        if fault is not None:
            raise fault

    def _note_first(self) -> None:
        if self._ttft_s is None:
            self._ttft_s = time.perf_counter() - self._exchange.started
            self._metrics.first_token.observe(self._ttft_s)

    def _settle(self, work: Work, usage: Usage, outputs: int) -> None:
        """What was used, by the server's own count or else by what passed."""
        details = self._exchange.details
        used = work.used
        if self._ttft_s is not None:
            usage.settle(used, prompt=work.prompt_tokens, completion=outputs)
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

    async def _break_off(self) -> None:
        """End an answer that its server did not end, with an error event at once."""
        error = UpstreamUnavailable(
            "The server that was answering broke off; the answer is not complete."
        )
        if self._incoming.api != "responses" or self._sse is None:
            raise error from None
        exchange = self._exchange
        told = answer(error, exchange.request_id)
        exchange.outcome = "failed"
        exchange.error_code = told.code
        event = error_event(error.message, SERVICE, None, told.code)
        await self._sse.end(event)


async def drain(connection: Connection) -> None:
    """Read what follows the last event, so that the connection can be used again."""
    try:
        async with asyncio.timeout(END_S):
            while await connection.read(END_S):
                pass
    except (TimeoutError, UpstreamFault):
        return  # the answer is complete; the connection is closed
