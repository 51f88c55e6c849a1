"""The limiter that the settings ask for."""

from __future__ import annotations

import logging

from gateway.control.limits.book import Book
from gateway.control.limits.clock import Clock
from gateway.control.limits.durable import DurableUse, attach
from gateway.control.limits.estimate import Prices
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.metrics import LimitsMetrics
from gateway.control.limits.shared.link import RedisLink
from gateway.control.limits.shared.store import SharedStore, Timing
from gateway.control.limits.table import read_table
from gateway.lifecycle import Lifecycle
from gateway.settings import Settings

log = logging.getLogger("gateway.limits")

# Above the bound of each call, so that it is never what ends one.
SOCKET_TIMEOUT_S = 5.0


def new_limiter(settings: Settings, prices: Prices, lifecycle: Lifecycle) -> Limiter:
    """A limiter that starts and ends with the server and shows itself in its metrics."""
    table = read_table(settings.limits)
    book = Book(Clock())
    if settings.redis_url is not None:
        link = RedisLink(
            settings.redis_url.get_secret_value(),
            max(SOCKET_TIMEOUT_S, 2 * settings.redis_timeout_s),
        )
        timing = Timing(timeout_s=settings.redis_timeout_s)
        store = SharedStore(book, link, settings.redis_prefix, settings.limits_replicas, timing)
        limiter = Limiter(table, prices, book, shared=store)
    else:
        durable = DurableUse(settings.data_dir)
        attach(book, durable)
        limiter = Limiter(table, prices, book, durable=durable)

    def first_names() -> dict[str, str]:
        pools = lifecycle.fleet.pools if lifecycle.fleet is not None else []
        return {name: pool.names[0] for pool in pools for name in pool.names}

    def begin() -> None:
        warn_of_unknown_models(limiter)
        limiter.start()

    limiter.first_names = first_names
    lifecycle.starters.append(begin)
    lifecycle.closers.append(limiter.close)
    lifecycle.metrics.sources.append(LimitsMetrics(limiter).collect)
    return limiter


def warn_of_unknown_models(limiter: Limiter) -> None:
    """A limit of a model that is not served would silently never apply."""
    served = limiter.first_names()
    for name in limiter.table.models.keys() - served.keys():
        log.warning(
            "LIMITS names a model that is not served, so it limits nothing",
            extra={"fields": {"model": name, "served": sorted(served)}},
        )
