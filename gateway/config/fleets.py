"""The fleet that another routing leads to, made of what the present one has."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gateway.config.snapshot import Snapshot
from gateway.control.fallback import FallbackPolicy
from gateway.control.fleet import Fleet
from gateway.control.pool import Pool
from gateway.control.replica import Replica
from gateway.routing.config import ModelSpec, RemoteSpec
from gateway.routing.remote import RemoteTarget


@dataclass(frozen=True, slots=True)
class NextFleet:
    """A fleet that can take over.

    Attributes:
        found: remote targets that are new.
        weighed: remote targets that stay, with the spec that they get; it differs in weight only.
    """

    fleet: Fleet
    found: list[RemoteTarget]
    weighed: list[tuple[RemoteTarget, RemoteSpec]]

    async def start(self) -> None:
        """Find the servers of the new targets."""
        await asyncio.gather(*(remote.start() for remote in self.found))

    async def abandon(self) -> None:
        """Let go of the new targets: the fleet is not wanted."""
        await asyncio.gather(*(remote.stop() for remote in self.found))

    def weigh(self) -> None:
        """Have targets that stay go by their weights in this fleet."""
        for remote, spec in self.weighed:
            remote.spec = spec
            for upstream in remote.upstreams:
                upstream.weight = spec.weight
        for pool in self.fleet.pools:
            for target in pool.spec.locals:
                for replica in replicas_of(target.name, pool.replicas):
                    replica.weight = target.weight


def next_fleet(present: Fleet, snapshot: Snapshot) -> NextFleet:
    """The fleet for a snapshot whose engines are those of the present one; nothing is started,
    and the present one is as it was."""
    by_name = {pool.names[0]: pool for pool in present.pools}
    found: list[RemoteTarget] = []
    weighed: list[tuple[RemoteTarget, RemoteSpec]] = []

    def remote_for(spec: RemoteSpec, known: Iterable[RemoteTarget]) -> RemoteTarget:
        for remote in known:
            if replace(remote.spec, weight=spec.weight) == spec:
                weighed.append((remote, spec))
                return remote
        found.append(RemoteTarget(spec))
        return found[-1]

    def pool_for(model: ModelSpec) -> Pool:
        old = by_name.get(model.name)
        if old is not None and old.spec == model and old.carry_on_wait_s == wait_s:
            return old
        known = old.remotes if old is not None else []
        remotes = [remote_for(spec, known) for spec in model.remotes]
        replicas = [
            replica
            for target in model.locals
            for replica in replicas_of(target.name, old.replicas if old is not None else [])
        ]
        return Pool(replicas, wait_s, model, remotes=remotes, before=old)

    wait_s = snapshot.settings.carry_on_wait_s
    pools = [pool_for(model) for model in snapshot.routing.models]
    policy = FallbackPolicy.parse(snapshot.settings.fallback_policy)
    has_remotes = any(pool.remotes for pool in pools)
    fleet = Fleet(pools, present.fallback, policy, remotes_started=has_remotes)
    return NextFleet(fleet, found, weighed)


def replicas_of(target: str, replicas: Iterable[Replica]) -> list[Replica]:
    """Those of one target."""
    return [replica for replica in replicas if replica.name.rpartition("/")[0] == target]
