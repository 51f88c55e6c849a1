"""A remote target at run time: the servers that it stands for at this moment."""

from __future__ import annotations

import asyncio
import itertools
import logging

from gateway.relay.pool import Address
from gateway.routing.config import RemoteSpec
from gateway.routing.discovery import DiscoveryError, find, follow
from gateway.routing.upstream import Upstream

log = logging.getLogger("gateway.routing")


class RemoteTarget:
    """Owned by the event loop.

    Attributes:
        upstreams: its servers. One that discovery no longer finds leaves this list at once; what
            runs on it ends as it would have.
    """

    def __init__(self, spec: RemoteSpec) -> None:
        self.spec = spec
        self.upstreams: list[Upstream] = []
        self._numbers = itertools.count()
        self._follow: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Find the servers. None found is no failure: they may come later."""
        try:
            self.update(await find(self.spec.discovery))
        except DiscoveryError as error:
            fields = {"target": self.spec.name, "cause": str(error)}
            log.warning("discovery failed", extra={"fields": fields})
        if self.spec.discovery.kind != "static":
            self._follow = asyncio.create_task(follow(self.spec.discovery, self.update))

    def update(self, addresses: list[Address]) -> None:
        """Have exactly these servers; those that stay keep what is known of them."""
        known = {upstream.address: upstream for upstream in self.upstreams}
        self.upstreams = [
            known.get(address) or self._new(address) for address in dict.fromkeys(addresses)
        ]
        for address in known.keys() - set(addresses):
            gone = known[address]
            task = asyncio.create_task(gone.stop())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def stop(self) -> None:
        """End discovery, checks and idle connections."""
        if self._follow is not None:
            self._follow.cancel()
            await asyncio.wait({self._follow})
        await asyncio.gather(*(upstream.stop() for upstream in self.upstreams), *self._leaving)

    def _new(self, address: Address) -> Upstream:
        upstream = Upstream(self.spec, address, next(self._numbers))
        upstream.start()
        return upstream
