"""One server's answer to a request: up to its first output, and piece by piece from there."""

from __future__ import annotations

import asyncio
from types import TracebackType

from gateway.relay.answer import ask as ask_server
from gateway.relay.answer import check_type, read_json
from gateway.relay.connection import Connection
from gateway.relay.errors import Broken, NotUnderstood, UpstreamFault
from gateway.relay.events import EventSplitter, EventTooLong
from gateway.relay.outgoing import Incoming, Outgoing
from gateway.relay.stream import StreamReader, model_of
from gateway.relay.tokens import TokenRecorder
from gateway.routing.upstream import Upstream

# How long a server may take to end a response whose last event has come.
END_S = 1.0


class Attempt:
    """Begin it, enter it, and take what has come until there is no more.

    Nothing of it reaches the client before it is entered, so several may be begun and one kept.

    Args:
        tokens: estimated tokens of prompt and output, for comparing loads.
        recorder: takes the token ids out of events, where the stream is to be carried on.

    Attributes:
        reader: what is known of the answer; without a stream, its usage only.
    """

    def __init__(
        self,
        upstream: Upstream,
        incoming: Incoming,
        request: Outgoing,
        tokens: int,
        recorder: TokenRecorder | None,
    ) -> None:
        self.upstream = upstream
        self.recorder = recorder
        self.reader = StreamReader(incoming.api, drops_usage=request.adds_usage)
        self._streams = incoming.stream
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self._fault: UpstreamFault | None = None
        self._counted = upstream.attempt(tokens)
        self._asking = ask_server(upstream, request.data)
        self._holds = False

    async def begin(self) -> None:
        """Ask, and return once the answer has begun: with its first output, or whole.

        Events that only announce an answer are no output. Raises UpstreamFault.
        """
        self._counted.__enter__()
        try:
            self._connection = await self._asking.__aenter__()
        except BaseException as error:
            self._counted.__exit__(type(error), error, error.__traceback__)
            raise
        self._holds = True
        try:
            await self._wait_for_output()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _wait_for_output(self) -> None:
        if self._streams:
            check_type(self._connection, b"text/event-stream")
            while not self.reader.has_output and await self.more():
                pass
            if not self.reader.has_output:
                raise self._fault or Broken("the stream ended before the answer did")
        else:
            body, document = await read_json(self._connection, self.upstream)
            self.reader.usage.read(document.get("usage"))
            self.reader.model = model_of(document)
            self._held.append(body)

    async def __aenter__(self) -> Attempt:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._holds:
            self._holds = False
            await self._asking.__aexit__(kind, error, trace)
            self._counted.__exit__(kind, error, trace)

    async def drop(self) -> None:
        """End what has begun and is not wanted; the server is told by its connection."""
        unwanted = asyncio.CancelledError()
        await self.__aexit__(type(unwanted), unwanted, None)

    def take(self) -> bytes:
        """What has come and was not taken yet: whole events, or the answer in one piece."""
        held, self._held = self._held, []
        return held[0] if len(held) == 1 else b"".join(held)

    async def more(self) -> bool:
        """Wait for more of a stream; False when no more comes."""
        if self.reader.complete or self._fault is not None:
            return False
        data = await self._connection.read(self.upstream.spec.timeouts.idle)
        if data:
            self._read(data)
        return bool(data)

    def _read(self, data: bytes) -> None:
        """Hold the whole events of ``data``; what is no event goes no further."""
        reader, recorder = self.reader, self.recorder
        try:
            for event in self._splitter.feed(data):
                if not reader.see(event):
                    continue
                if recorder is not None and reader.document is not None:
                    self._held.append(recorder.take(event, reader.document))
                else:
                    self._held.append(event)
        except EventTooLong as error:
            self._fault = NotUnderstood(str(error))
        except UpstreamFault as fault:
            self._fault = fault

    async def finish(self) -> None:
        """After the last piece of a stream. Raises UpstreamFault where the answer is not whole."""
        if self._fault is not None:
            raise self._fault
        if not self.reader.ended_well:
            raise Broken("the stream ended before the answer did")
        await _drain(self._connection)


async def _drain(connection: Connection) -> None:
    """Read what follows the last event, so that the connection can be used again."""
    if connection.ended:
        return
    try:
        async with asyncio.timeout(END_S):
            while await connection.read(END_S):
                pass
    except (TimeoutError, UpstreamFault):
        return  # the answer is complete; the connection is closed
