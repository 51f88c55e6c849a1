"""From EngineCore's messages to the consumers of requests, past most of vLLM's front end.

For every token vLLM's own path makes statistics, a detokenizer step, a ``CompletionOutput``, a
``RequestOutput`` and two wake-ups. Most messages hold nothing but token ids of requests that
want nothing but token ids; those are handed over here. Everything else goes vLLM's way: the
first output of a request, its last, whatever carries events, and requests with log-probabilities
or several choices. The order within a request is kept.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engine.vllm.metrics import Counters


class Inbox:
    """Outputs of one request that its consumer has not taken yet; on the event loop only.

    Stands in for vLLM's ``RequestOutputCollector``.

    Attributes:
        ended: nothing will come any more, so there is nothing to abort.
        begun: vLLM's own path has delivered the first output.
        behind: outputs that are still on vLLM's own path.
    """

    __slots__ = ("_error", "_items", "_loop", "_waiter", "begun", "behind", "ended")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._error: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self.ended = False
        self.begun = False
        self.behind = 0

    def give(self, token_ids: list[int]) -> None:
        """Add tokens that came alone."""
        self._items.append(token_ids)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def put(self, output: Any) -> None:
        """Add a ``RequestOutput``, or the exception that ends the request; called by vLLM."""
        if isinstance(output, Exception):
            self._error = output
            self.ended = True
        else:
            self._items.append(output)
            self.ended = self.ended or bool(output.finished)
            self.begun = True
            self.behind -= 1
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self) -> list[Any]:
        """Wait for something to come and take all of it: token ids and ``RequestOutput``s.

        Token ids that follow each other are joined. Raises the exception that ended the
        request once everything before it was taken.
        """
        while not self._items:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            await self._waiter
        taken, self._items = self._items, []
        return taken if len(taken) == 1 else joined(taken)


def joined(items: list[Any]) -> list[Any]:
    """The same outputs with neighbouring token ids in one list."""
    found: list[Any] = []
    for item in items:
        if found and type(item) is list and type(found[-1]) is list:
            found[-1] = found[-1] + item
        else:
            found.append(item)
    return found


class Intake:
    """Stands in for the queue between the task that reads vLLM's socket and the task that
    processes outputs.

    Args:
        queue: the queue it replaces; carries what goes vLLM's own way.
        counters: told the scheduler's statistics of the messages that do not.
    """

    def __init__(self, queue: asyncio.Queue[Any], counters: Counters) -> None:
        self._queue = queue
        self._counters = counters
        self._inboxes: dict[str, Inbox] = {}

    def register(self, internal_id: str, inbox: Inbox) -> None:
        """Hand the plain outputs of this request to ``inbox``."""
        if self._queue.empty():
            self._inboxes[internal_id] = inbox

    def forget(self, internal_id: str) -> None:
        """The request has ended, or nobody waits for it any more."""
        self._inboxes.pop(internal_id, None)

    def put_nowait(self, outputs: Any) -> None:
        """Take an ``EngineCoreOutputs``, or the exception that ends everything."""
        if isinstance(outputs, Exception):
            self._queue.put_nowait(outputs)
            return
        inboxes = self._inboxes
        others = []
        for output in outputs.outputs:
            inbox = inboxes.get(output.request_id)
            if inbox is None:
                others.append(output)
            elif (
                output.finish_reason is None
                and output.events is None
                and inbox.begun
                and inbox.behind <= 0
            ):
                inbox.give(output.new_token_ids)
            else:
                inbox.behind += 1
                others.append(output)
        if others:
            outputs.outputs = others
            self._queue.put_nowait(outputs)
        elif outputs.scheduler_stats is not None:
            self._counters.record(outputs.scheduler_stats, None, outputs.engine_index)

    async def get(self) -> Any:
        """What goes vLLM's own way; called by vLLM."""
        return await self._queue.get()
