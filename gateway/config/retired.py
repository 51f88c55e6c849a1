"""Fleets that another one has taken over from, until their last requests have ended."""

from __future__ import annotations

import asyncio

from gateway.control.fleet import Fleet
from gateway.lifecycle import Lifecycle
from gateway.routing.remote import RemoteTarget


class Retired:
    """Lets go of remote targets once nobody uses them. Owned by the event loop."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._fleets: list[Fleet] = []
        self._stopping: set[asyncio.Task[None]] = set()

    def add(self, fleet: Fleet) -> None:
        """This fleet gets no new requests."""
        self._fleets.append(fleet)
        fleet.on_idle = self._let_go
        self._let_go()

    async def close(self) -> None:
        """Let go of everything; nothing is being worked on any more."""
        for remote in self._unneeded(self._fleets):
            self._stop(remote)
        self._fleets.clear()
        if self._stopping:
            await asyncio.wait(self._stopping)

    def _let_go(self) -> None:
        idle = [fleet for fleet in self._fleets if not fleet.users]
        self._fleets = [fleet for fleet in self._fleets if fleet.users]
        for remote in self._unneeded(idle):
            self._stop(remote)

    def _unneeded(self, fleets: list[Fleet]) -> set[RemoteTarget]:
        """Targets of these that neither the present fleet nor another retired one has."""
        present = self._lifecycle.fleet
        others = [fleet for fleet in self._fleets if fleet not in fleets]
        needed = remotes_of([*others, *([present] if present is not None else [])])
        return remotes_of(fleets) - needed

    def _stop(self, remote: RemoteTarget) -> None:
        task = asyncio.create_task(remote.stop())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)


def remotes_of(fleets: list[Fleet]) -> set[RemoteTarget]:
    """Every remote target of these fleets."""
    return {remote for fleet in fleets for pool in fleet.pools for remote in pool.remotes}
