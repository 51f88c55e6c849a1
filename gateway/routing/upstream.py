"""One other server: its connections, what it works on, and whether it can be asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from types import TracebackType

from engine.base import Load
from gateway import __version__
from gateway.relay.errors import Busy, Refused, Rejected, Unreachable, UpstreamFault
from gateway.relay.pool import Address, ConnectionPool
from gateway.routing.breaker import Breaker, Pass
from gateway.routing.config import RemoteSpec

log = logging.getLogger("gateway.routing")

# What is assumed of a server that does not say how much it takes, for comparing loads.
USUAL_REQUESTS = 256
SHORTEST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Upstream:
    """Owned by the event loop.

    Attributes:
        name: ``TARGET/NUMBER``; tells clients nothing of addresses.
        tokens: estimated tokens of what it works on.
        outstanding: requests that it works on.
        well: outcome of the active checks; True where there are none.
        outcomes: attempts by how they ended.
    """

    def __init__(self, spec: RemoteSpec, address: Address, number: int) -> None:
        self.spec = spec
        self.name = f"{spec.name}/{number}"
        self.weight = spec.weight
        self.address = address
        self.connections = ConnectionPool(address, spec.timeouts.connect, spec.ca_file)
        self.breaker = Breaker(spec.breaker)
        self.tokens = 0
        self.outstanding = 0
        self.well = True
        self.outcomes: Counter[str] = Counter()
        self._busy_until = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._check: asyncio.Task[None] | None = None
        self._head = request_head(spec, address)

    @property
    def available(self) -> bool:
        """Whether it may be asked now."""
        return self.works and time.monotonic() >= self._busy_until

    @property
    def works(self) -> bool:
        """Whether it answers, be it that it has too much to do now."""
        return self.well and self.breaker.passes

    @property
    def full(self) -> bool:
        """Whether it works on all that it takes at a time."""
        most = self.spec.most_requests
        return most is not None and self.outstanding >= most

    def load(self) -> Load:
        """What is known of its load; KV memory is not."""
        most = self.spec.most_requests or USUAL_REQUESTS
        return Load(0, self.outstanding, 0, 0, most)

    def head(self, method: bytes, path: str) -> bytes:
        """Request line and the headers that every request to it carries."""
        return method + b" " + path.encode() + b" HTTP/1.1\r\n" + self._head

    def attempt(self, tokens: int) -> Counted:
        """Enter it to count an attempt, and to learn from how it ends. Entering raises
        Unreachable when the breaker has opened in the meantime."""
        return Counted(self, tokens)

    def begin(self, tokens: int) -> Pass:
        """An attempt begins. Raises Unreachable."""
        given = self.breaker.try_pass()
        if given is None:
            raise Unreachable("it has just failed others")
        self.outstanding += 1
        self.tokens += tokens
        return given

    def end(self, tokens: int, given: Pass, error: BaseException | None) -> None:
        """It ends, with an error or without one."""
        self.outstanding -= 1
        self.tokens -= tokens
        if error is None:
            self.outcomes["completed"] += 1
            self.breaker.succeed(given)
        elif isinstance(error, UpstreamFault):
            self._learn(error, given)
        else:
            self.outcomes["cancelled"] += 1
            self.breaker.abandon(given)
        self._wake_one()

    async def wait_for_room(self) -> None:
        """Return when a request has ended, first come first served."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled():
                self._wake_one()  # somebody else may have what came too late for this one
            raise

    def _wake_one(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    def start(self) -> None:
        """Begin active checks, where there are any."""
        if self.spec.health.path is not None and self._check is None:
            self._check = asyncio.create_task(self._check_on(self.spec.health.path))

    async def stop(self) -> None:
        """End checks and idle connections."""
        self.connections.close()
        if self._check is not None:
            self._check.cancel()
            await asyncio.wait({self._check})
            self._check = None

    def _learn(self, fault: UpstreamFault, given: Pass) -> None:
        outcome, works = "failed", False
        if isinstance(fault, Rejected):
            self.outcomes["rejected"] += 1
            return self.breaker.succeed(given)
        if isinstance(fault, Refused):
            # A model or an endpoint that it does not have says nothing of its health, and any
            # caller could make it say so.
            outcome, works = "refused", fault.status not in (401, 403)
        elif isinstance(fault, Busy):
            # A 503 is what proxies say for a server that is gone, too.
            outcome, works = "busy", fault.status != 503
            pause_s = min(fault.retry_after_s or SHORTEST_PAUSE_S, LONGEST_PAUSE_S)
            self._busy_until = time.monotonic() + pause_s
        self.outcomes[outcome] += 1
        fields = {"target": self.name, "outcome": outcome, "cause": str(fault)}
        log.warning("an upstream failed", extra={"fields": fields})
        if works:
            self.breaker.succeed(given)
        else:
            self.breaker.fail(given)

    async def _check_on(self, path: str) -> None:
        health = self.spec.health
        failures = 0
        while True:
            try:
                async with asyncio.timeout(health.timeout_s):
                    await self._ask_health(path)
            except (TimeoutError, UpstreamFault) as error:
                failures += 1
                if failures >= health.failures and self.well:
                    self.well = False
                    cause = str(error) or "no answer in time"
                    fields = {"target": self.name, "cause": cause}
                    log.warning("an upstream is down", extra={"fields": fields})
            else:
                failures = 0
                if not self.well:
                    self.well = True
                    log.warning("an upstream is back", extra={"fields": {"target": self.name}})
            await asyncio.sleep(health.interval_s)

    async def _ask_health(self, path: str) -> None:
        async with self.connections.connection() as connection:
            bound = self.spec.health.timeout_s
            await connection.request(self.head(b"GET", path) + b"\r\n", bound)
            while await connection.read(bound):
                pass
            if not 200 <= connection.status < 300:
                raise UpstreamFault(f"answered {connection.status}")


def request_head(spec: RemoteSpec, address: Address) -> bytes:
    """Headers for every request: ours, and none of any client's."""
    lines = [
        f"host: {address.authority}",
        f"user-agent: llm-gateway/{__version__}",
        "accept-encoding: identity",
    ]
    if spec.api_key is not None:
        key = spec.api_key.get_secret_value()
        scheme = "x-api-key: " if spec.kind == "anthropic" else "authorization: Bearer "
        lines.append(scheme + key)
    lines += [f"{name}: {value.get_secret_value()}" for name, value in spec.headers]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")


class Counted:
    """See ``Upstream.attempt``."""

    __slots__ = ("_given", "_tokens", "_upstream")

    def __init__(self, upstream: Upstream, tokens: int) -> None:
        self._upstream = upstream
        self._tokens = tokens

    def __enter__(self) -> None:
        self._given = self._upstream.begin(self._tokens)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._upstream.end(self._tokens, self._given, error)
