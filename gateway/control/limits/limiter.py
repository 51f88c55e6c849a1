"""The guard that keeps callers and models within their limits."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from types import TracebackType

from gateway.control.gate import Work
from gateway.control.limits.book import Book, Costs, Hold, Refusal
from gateway.control.limits.durable import DurableUse
from gateway.control.limits.estimate import Estimator, Prices
from gateway.control.limits.headers import tell_limits
from gateway.control.limits.refusal import rate_limited
from gateway.control.limits.shared.store import SharedStore
from gateway.control.limits.table import LimitTable
from gateway.errors import ClientGone, UpstreamError, find_row
from gateway.relay.errors import Rejected


class Limiter:
    """Reserves an estimate of what work will use, and settles on what it did use.

    Attributes:
        table: the operator's limits; may be replaced at any time.
        first_names: of every model that is served, by each of its names.
        book: every counter of this process.
        shared: the counters of all replicas, or None.
        durable: keeps days and months over a restart, or None.
        refused: refusals by scope and limit.
    """

    def __init__(
        self,
        table: LimitTable,
        prices: Prices,
        book: Book,
        shared: SharedStore | None = None,
        durable: DurableUse | None = None,
    ) -> None:
        self.table = table
        self.book = book
        self.shared = shared
        self.durable = durable
        self.refused: Tally[tuple[str, str]] = Tally()
        self.first_names: Callable[[], Mapping[str, str]] = dict
        self.estimator = Estimator(prices)
        self._resolved: tuple[LimitTable, LimitTable] | None = None

    def use_prices(self, prices: Prices) -> None:
        """Go by other prices; work that has been reserved for is settled by those it began with."""
        self.estimator = self.estimator.priced(prices)

    def start(self) -> None:
        """Begin what runs beside the requests; needs the event loop."""
        for keeper in (self.shared, self.durable):
            if keeper is not None:
                keeper.start()

    async def close(self) -> None:
        """Give back what is leased and write down what was used."""
        for keeper in (self.shared, self.durable):
            if keeper is not None:
                await keeper.close()

    def hold(self, work: Work) -> Reserved:
        """Entering it raises RateLimited."""
        return Reserved(self, work)

    async def reserve(self, work: Work, estimator: Estimator) -> list[Hold]:
        """Take what ``work`` is expected to use of every limit. Raises RateLimited."""
        applying = self._by_first_names().of(work.principal, work.model)
        if not applying:
            return []
        costs: Costs = []
        for key, window, limit in applying:
            cost = estimator.before(work, window.unit, limit)
            costs.append((self.book.counter(key, window, limit), cost))
        found = self.book.reserve(costs)
        while found is None and self.shared is not None:
            found = await self.shared.ask(costs)
            if found is None:  # Redis is lost, and with it the need to ask
                found = self.book.reserve(costs)
        if isinstance(found, list):
            self._touch(found)
        tell_limits(self.book, costs, work.marks, anthropic=work.anthropic)
        if isinstance(found, Refusal):
            scope, _, field = found.counter.key
            self.refused[scope, field] += 1
            raise rate_limited(found)
        return found or []

    def _by_first_names(self) -> LimitTable:
        """The table under the names that work goes by; these are known once models are."""
        if self._resolved is None or self._resolved[0] is not self.table:
            self._resolved = self.table, self.table.under(self.first_names())
        return self._resolved[1]

    def settle(self, work: Work, holds: list[Hold], charged: bool, estimator: Estimator) -> None:
        """Put what ``work`` did use in place of what was taken."""

        def actual(hold: Hold) -> int:
            unit = hold.counter.window.unit
            if unit == "concurrent":
                return 0
            if unit == "requests":
                return hold.cost if charged else 0
            return estimator.after(work, unit)

        self.book.settle(holds, actual)
        self._touch(holds)

    def _touch(self, holds: list[Hold]) -> None:
        for keeper in (self.shared, self.durable):
            if keeper is not None:
                keeper.touch(holds)


class Reserved:
    """What one request has taken, from entering to leaving."""

    __slots__ = ("_estimator", "_holds", "_limiter", "_work")

    def __init__(self, limiter: Limiter, work: Work) -> None:
        self._limiter = limiter
        self._work = work

    async def __aenter__(self) -> None:
        self._estimator = self._limiter.estimator
        self._holds = await self._limiter.reserve(self._work, self._estimator)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        work = self._work
        used = work.used
        charged = error is None or bool(used.prompt_tokens) or not is_ours(error)
        if self._holds:
            self._limiter.settle(work, self._holds, charged, self._estimator)
        if error is None and work.choices and used.completion_tokens:
            self._estimator.observe(work.model, used.completion_tokens / work.choices)


def is_ours(error: BaseException) -> bool:
    """Whether the request ended for a cause of the service's, not of the caller's."""
    if not isinstance(error, Exception) or isinstance(error, ClientGone | Rejected):
        return False
    return isinstance(error, UpstreamError) or find_row(error).status >= 500
