"""Hands deltas from an engine to the consumer of one request, on the event loop."""

from __future__ import annotations

import asyncio

from engine.base import Delta, EngineError


class Mailbox:
    """Deltas of one request that its consumer has not taken yet.

    Used on the event loop only. What piles up while the consumer is slow is merged into
    one delta per choice when it is taken.
    """

    __slots__ = ("_error", "_pending", "_waiter")

    def __init__(self) -> None:
        self._pending: list[Delta] = []
        self._error: EngineError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, item: Delta | EngineError) -> None:
        """Add a delta, or the error that ends the request; items after it are ignored."""
        if self._error is not None:
            return
        if isinstance(item, EngineError):
            self._error = item
        else:
            self._pending.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[Delta]:
        """Wait for something to come and take all of it, at least one delta.

        Raises the error that ended the request once every delta before it was taken.
        """
        while not self._pending:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        taken, self._pending = self._pending, []
        return taken if len(taken) == 1 else merge(taken)


def merge(deltas: list[Delta]) -> list[Delta]:
    """One delta per choice, in the order in which the choices appear."""
    by_choice: dict[int, list[Delta]] = {}
    for delta in deltas:
        by_choice.setdefault(delta.index, []).append(delta)
    return [_joined(parts) for parts in by_choice.values()]


def _joined(parts: list[Delta]) -> Delta:
    first, last = parts[0], parts[-1]
    if first is last:
        return first
    logprobs = None
    if first.logprobs is not None:
        logprobs = [entry for part in parts for entry in part.logprobs or ()]
    return Delta(
        index=first.index,
        token_ids=[token for part in parts for token in part.token_ids],
        text="".join([part.text for part in parts]),
        logprobs=logprobs,
        finish_reason=last.finish_reason,
        stop_reason=last.stop_reason,
        prompt_logprobs=first.prompt_logprobs,
        cached_tokens=first.cached_tokens,
        queue_s=first.queue_s,
    )
