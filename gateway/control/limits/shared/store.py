"""Limits shared with the other replicas, told and asked by one task beside the requests.

Requests use what this replica has leased. Only a request that no lease covers waits for an
answer, ``timeout_s`` at most and twice that behind a call under way; when Redis does not answer
by then, this replica goes on with its share of every limit until Redis is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass

from gateway.control.limits.book import Book, Costs, Hold, Refusal
from gateway.control.limits.counter import Counter
from gateway.control.limits.shared.link import Link, LinkError, Reply
from gateway.control.limits.shared.outbox import Answer, Ask, Call, Outbox, give_up

log = logging.getLogger("gateway.limits")

# Statuses of the script.
UNKNOWN = 1
# Between calls while Redis is lost or begins anew.
IMPATIENCE_S = 0.1
# While nobody waits, a new connection may take its time.
CONNECT_S = 1.0


@dataclass(frozen=True, slots=True)
class Timing:
    """How often and how long.

    Attributes:
        timeout_s: for Redis to answer.
        heartbeat_s: between calls when there is nothing to tell.
        flush_s: how long what there is to tell may wait.
        ttl_s: after which a silent replica's running requests do not count any more.
        grace_s: after Redis began anew, for every replica to tell what it knows.
        lease_s: after which an unused lease goes back.
        retry_s: between attempts to reach Redis, at first and at most.
        block_s: how long a refusal is repeated without asking.
    """

    timeout_s: float = 0.1
    heartbeat_s: float = 1.0
    flush_s: float = 0.05
    ttl_s: float = 5.0
    grace_s: float = 2.5
    lease_s: float = 1.0
    retry_s: tuple[float, float] = (0.1, 2.0)
    block_s: float = 0.1


class SharedStore:
    """Owned by the event loop.

    Args:
        prefix: of the names in Redis.
        replicas: how many there are at least.

    Attributes:
        up: Redis answers, and knows what this replica used.
        replicas: that share the limits, this one included.
        failures: calls that were not answered.
        asked: requests that waited for an answer.
    """

    def __init__(
        self, book: Book, link: Link, prefix: str, replicas: int, timing: Timing | None = None
    ) -> None:
        self._book = book
        self._link = link
        self._timing = timing = timing or Timing()
        # The braces keep all names in one slot of a cluster.
        self._out = Outbox(
            book, f"{{{prefix}}}:limits", secrets.token_hex(6), timing.ttl_s, timing.grace_s
        )
        self._fewest = replicas
        self._leasing: set[Counter] = set()
        self._wake = asyncio.Event()
        self._wake.set()  # the first call is due at once
        self._flush: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._known = False  # Redis has heard of this replica
        self.up = False
        self.replicas = replicas
        self.failures = 0
        self.asked = 0
        book.is_shared = True
        book.share = replicas

    def start(self) -> None:
        """Begin to talk to Redis; nothing the second time."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def touch(self, holds: list[Hold]) -> None:
        """Something was used or given back; Redis is told within ``flush_s``."""
        self._out.changed.update(hold.counter for hold in holds)
        if self._flush is None:
            loop = asyncio.get_running_loop()
            self._flush = loop.call_later(self._timing.flush_s, self._wake.set)

    async def ask(self, costs: Costs) -> Answer:
        """Take all or nothing of what all replicas share; None when Redis is lost."""
        if not self.up:
            return None
        self.asked += 1
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._out.asks.append(Ask(costs, answer))
        self._wake.set()
        try:
            return await answer
        except asyncio.CancelledError:
            held = answer.result() if answer.done() and not answer.cancelled() else None
            if isinstance(held, list):
                self._book.settle(held, lambda hold: 0)
                self.touch(held)
            raise

    async def close(self) -> None:
        """Give every lease back and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self._flush is not None:
            self._flush.cancel()
        self.up, self._closing = False, True
        self._out.replicas = 0
        self._out.answer_all()
        # Also where the last call was lost: else what ran here would count until it is missed.
        if self._known:
            self._return_leases(self._leasing)
            while self._out.has_news and await self._exchange(self._out.compose()):
                pass
        await self._link.close()

    async def _run(self) -> None:
        retry_s = self._timing.retry_s[0]
        while True:
            await self._turn()
            if await self._exchange(self._out.compose()):
                retry_s = self._timing.retry_s[0]
            else:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, self._timing.retry_s[1])

    async def _turn(self) -> None:
        """Wait until there is something to tell or to ask, or for the next heartbeat."""
        if not self._out.asks and not self._out.resend:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timing.heartbeat_s if self.up else IMPATIENCE_S):
                    await self._wake.wait()
        self._wake.clear()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        now = self._book.clock.now_ms()
        self._return_leases({one for one in self._leasing if one.lease_until_ms < now})

    def _return_leases(self, counters: set[Counter]) -> None:
        self._leasing = self._leasing - counters
        for counter in counters:
            counter.drop_lease()
        self._out.changed |= counters

    async def _exchange(self, call: Call) -> bool:
        """Call and apply the answer; False when there was none."""
        began = time.monotonic()
        try:
            reply = await self._answered(call)
            in_time = time.monotonic() - began <= self._timing.timeout_s
            self._apply(call, reply, in_time=in_time)
        except Exception as error:
            # Whatever it was: requests must not wait for a task that has ended.
            if not isinstance(error, LinkError):
                log.error("unexpected exception", exc_info=error)
            await self._lose(call, error)
            return False
        except asyncio.CancelledError:
            # Whether Redis got it nobody knows.
            self._out.resend_all()
            give_up(call.asks)
            raise
        if self._out.has_news:
            self._wake.set()
        return True

    async def _answered(self, call: Call) -> Reply:
        """Raises LinkError, also when there was no answer in time."""
        patience = self._timing.timeout_s if self.up else max(CONNECT_S, self._timing.timeout_s)
        calling = asyncio.create_task(self._link.call(call.keys, call.request))
        try:
            done, _ = await asyncio.wait({calling}, timeout=patience)
            if not done:
                # Perhaps it was this process that was late, and the answer is there.
                done, _ = await asyncio.wait({calling}, timeout=patience / 10)
            if not done:
                raise LinkError(f"no answer within {patience:g} s")
            return calling.result()
        finally:
            calling.cancel()
            await asyncio.wait({calling})

    async def _lose(self, call: Call, error: Exception) -> None:
        self.failures += 1
        if self.up or self.failures == 1:
            log.warning(
                "Redis does not answer; each replica goes on with its share of the limits",
                extra={"fields": {"cause": str(error), "replicas": self.replicas}},
            )
        self._go_on_alone()
        give_up(call.asks)
        await self._link.close()

    def _go_on_alone(self) -> None:
        self.up = self._book.leased = False
        self._book.share = self.replicas
        self._out.replicas = 0
        self._leasing.clear()
        self._out.resend_all()
        self._out.answer_all()

    def _apply(self, call: Call, reply: Reply, *, in_time: bool) -> None:
        status, now, replicas, windows, verdicts = reply
        self._known = True
        self._book.clock.follow(now)
        self.replicas = max(self._fewest, replicas)
        if status == UNKNOWN or (status and self.up):
            self._go_on_alone()
        until = now + round(self._timing.lease_s * 1000)
        for position, counter in enumerate(call.counters):
            slot, granted, left = windows[3 * position : 3 * position + 3]
            counter.room = left
            if granted:
                counter.grant(slot, granted, until)
                self._leasing.add(counter)
        for position, ask in enumerate(call.asks):
            blocker, wait = verdicts[2 * position : 2 * position + 2]
            if ask.answer.done():
                continue  # it was cancelled; what it was granted is a lease
            if status:
                ask.answer.set_result(None)
            elif blocker:
                ask.answer.set_result(self._refusal(ask, call.counters[blocker - 1], wait))
            else:
                ask.answer.set_result(self._holds(ask, call, windows))
        self._book.share = self.replicas
        if not status and not self.up and in_time and not self._out.resend and not self._closing:
            log.info("limits are shared", extra={"fields": {"replicas": self.replicas}})
            self.up = self._book.leased = True
        self._out.replicas = self.replicas if self.up else 0

    def _refusal(self, ask: Ask, counter: Counter, wait: int) -> Refusal:
        cost = dict(ask.costs)[counter]
        now = self._book.moment(counter.window)
        counter.block(now, cost, wait, round(self._timing.block_s * 1000))
        return Refusal(counter, cost, counter.limit, max(0, counter.limit - counter.room), wait)

    def _holds(self, ask: Ask, call: Call, windows: list[int]) -> list[Hold]:
        holds = []
        for counter, cost in ask.costs:
            slot = windows[3 * call.counters.index(counter)]
            counter.spend_at(slot, cost)
            holds.append(Hold(counter, cost, [(slot, cost)]))
        return holds
