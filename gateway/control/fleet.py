"""Everything that the gateway serves: which model answers a request, and what follows from a death.

A model is served by replicas in this process, each supervised on its own, and by servers
elsewhere. While none of the replicas can serve, the fallback answers, where the policy allows it,
and every such answer says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from engine.base import EngineDead, EngineStartError
from gateway.control.fallback import FallbackPolicy
from gateway.control.identity.models import permitted_name
from gateway.control.pool import HasLoad, Pool, RemoteRoute, Route
from gateway.control.replica import BuildEngine, Replica, Task
from gateway.control.rights import Principal
from gateway.errors import EndpointNotSupported, ModelLoading, ModelNotFound
from gateway.routing.ask import Ask
from gateway.routing.split import share_for

__all__ = ["BuildEngine", "Fleet", "HasLoad", "Pool", "RemoteRoute", "Replica", "Route", "Task"]

log = logging.getLogger("gateway.fleet")

KEYED = ("session", "prefix")


class Fleet:
    """Every model and engine of the gateway. Owned by the event loop.

    Args:
        pools: the served models.
        fallback: answers while a model cannot, or None.
        policy: for whom the fallback may answer.
        remotes_started: its servers elsewhere have been looked for already.

    Attributes:
        users: requests that go by this fleet; another one may have taken over since.
        on_idle: called whenever the last of them has ended.
        routed: some model needs more than a choice among equal replicas, so requests go through
            ``gateway.routing.dispatch``.
    """

    def __init__(
        self,
        pools: Iterable[Pool],
        fallback: Replica | None,
        policy: FallbackPolicy,
        *,
        remotes_started: bool = False,
    ) -> None:
        self.pools = list(pools)
        self.fallback = fallback
        self.policy = policy
        self.routed = any(is_routed(pool) for pool in self.pools)
        self._by_name = {name: pool for pool in self.pools for name in pool.names}
        self._remotes_started = remotes_started
        self.users = 0
        self.on_idle: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[Replica]:
        for pool in self.pools:
            yield from pool.replicas
        if self.fallback is not None:
            yield self.fallback

    @property
    def started(self) -> bool:
        """Whether anything can serve now."""
        return any(replica.ready for replica in self) or any(pool.up for pool in self.pools)

    @property
    def was_started(self) -> bool:
        """Whether anything has been able to serve so far."""
        return self._remotes_started or any(replica.was_ready for replica in self)

    def models(self) -> list[Replica]:
        """A replica of each model that can be asked for by name, loaded ones first."""
        found = [pool.pick() for pool in self.pools]
        listed = [replica for replica in found if replica is not None]
        fallback = self.fallback
        if fallback is not None and fallback.ready and not self._names(fallback, listed):
            listed.append(fallback)
        return listed

    def names_of(self, replica: Replica) -> Sequence[str]:
        """What clients may ask for to get it; other names than it was started with, after a
        reload."""
        pool = next((pool for pool in self.pools if replica in pool.replicas), None)
        return pool.names if pool is not None else (replica.info.id, *replica.info.aliases)

    def is_up(self, pool: Pool) -> bool:
        """Whether some target of the model, or of one of its shares, can answer now."""
        split = pool.spec.split
        if split is None:
            return pool.up
        return any(self._by_name[name].up for name, weight in split.shares if weight)

    def find(self, name: str | None, principal: Principal, task: Task = "generation") -> Pool:
        """The model that a client asks for. Raises ModelNotFound."""
        return self.named(permitted_name(principal.rights, name, self._offers(task)), task)

    def named(self, name: str | None, task: Task = "generation") -> Pool:
        """The model with this name, whoever asks; without one, the first that does the task.

        Raises ModelNotFound.
        """
        if name is None:
            return next((pool for pool in self.pools if pool.offers(task)), self.pools[0])
        pool = self._by_name.get(name)
        if pool is not None:
            return pool
        fallback = self.fallback
        if fallback is not None and name in fallback.config.names:
            return Pool([fallback])
        served = ", ".join(f"'{pool.names[0]}'" for pool in self.pools)
        raise ModelNotFound(
            f"The model '{name}' does not exist. This server serves {served}.", param="model"
        )

    def asked(self, name: str | None, principal: Principal, task: Task) -> str:
        """The first name of a model that is asked for. Raises what ``route`` raises, for one that
        runs in this process only."""
        pool = self.find(name, principal, task)
        if pool.remotes or pool.spec.split is not None:
            return pool.names[0]
        return self.route(name, principal, task).asked

    def route(
        self,
        name: str | None,
        principal: Principal,
        task: Task = "generation",
        ask: Ask | None = None,
    ) -> Route:
        """Choose who answers in this process. Nobody stands in for an embedding model: vectors of
        different models cannot be compared.

        ``ask`` is what has been decided before; its model has been found for this caller already.

        Raises ModelNotFound for an unknown name and for a model that does something else;
        EndpointNotSupported for a model that only other servers run; ModelLoading or EngineDead
        while neither the model nor the fallback can serve.
        """
        pool = self.find(name, principal, task) if ask is None else self.named(name, task)
        asked = pool.names[0] if ask is None else ask.asked
        if pool.spec.split is not None:
            pool = self._by_name[share_for(pool.spec, principal.id, {})]
        if not pool.replicas:
            raise remote_only(asked)
        if pool.was_ready and not pool.does(task):
            raise wrong_task(asked, task)
        found = self._chosen(ask, pool)
        if found is not None:
            degraded = ask is not None and ask.degraded
            return Route(found[0], asked, degraded=degraded, pool=pool, reason=found[1])
        fallback = self.fallback
        stands_in = task != "embeddings" and fallback is not None and fallback.ready
        if fallback is not None and stands_in and self.policy.allows(pool.names, principal.id):
            return Route(fallback, asked, degraded=True, pool=pool, reason="fallback_model")
        if all(r.engine.last_error is None for r in pool.replicas):
            raise ModelLoading("The model is still loading. Please retry shortly.")
        raise EngineDead(f"no replica of {asked} is running")

    async def start(self) -> None:
        """Load every model; returns when each has been tried once.

        Raises EngineStartError when a model cannot start and nothing may answer for it.
        """
        await self._start_remotes()
        replicas = list(self)
        results = await asyncio.gather(
            *(replica.start() for replica in replicas), return_exceptions=True
        )
        for replica, error in zip(replicas, results, strict=True):
            if isinstance(error, EngineStartError) and self._survives(replica, error):
                continue
            if isinstance(error, BaseException):
                raise error
        for replica in replicas:
            replica.engine.keep_alive(on_ready=replica.prepare)

    async def notice_deaths(self) -> None:
        """Ask every engine that counts as ready whether it still lives."""
        for replica in self:
            if replica.ready:
                with contextlib.suppress(EngineDead):
                    await replica.engine.check_health()

    async def stop(self, drain_s: float) -> None:
        """Stop every engine, and let go of other servers."""
        await asyncio.gather(
            *(replica.engine.stop(drain_s) for replica in self),
            *(remote.stop() for pool in self.pools for remote in pool.remotes),
        )

    def leave(self) -> None:
        """A request that went by this fleet has ended."""
        self.users -= 1
        if not self.users and self.on_idle is not None:
            self.on_idle()

    def close(self) -> None:
        """Free what the gateway itself holds of the models."""
        for replica in self:
            replica.close()

    async def _start_remotes(self) -> None:
        remotes = [remote for pool in self.pools for remote in pool.remotes]
        await asyncio.gather(*(remote.start() for remote in remotes))
        self._remotes_started = bool(remotes)

    def _chosen(self, ask: Ask | None, pool: Pool) -> tuple[Replica, str] | None:
        """The replica that was decided on while it lives, then another."""
        decided = None if ask is None else ask.replica
        if decided is not None and decided.ready and decided in pool.replicas:
            return decided, ""
        return pool.choose_replica(ask)

    def _offers(self, task: Task) -> Iterator[tuple[Sequence[str], bool]]:
        """Names of every model that can be asked for, and whether it is known to do a task."""
        for pool in self.pools:
            yield pool.names, pool.offers(task)
        if self.fallback is not None:
            yield self.fallback.config.names, True

    def _names(self, fallback: Replica, listed: list[Replica]) -> bool:
        return any(fallback.info.id == replica.info.id for replica in listed)

    def _survives(self, replica: Replica, error: EngineStartError) -> bool:
        pool = next((pool for pool in self.pools if replica in pool.replicas), None)
        elsewhere = pool is not None and bool(pool.remotes)
        stands_in = self.fallback is not None and self.fallback.ready and not self.policy.off
        if not elsewhere and not stands_in:
            return False
        who = "other targets answer" if elsewhere else "the fallback answers"
        log.error("a model did not start; %s for it", who, extra={"cause": str(error)})
        return True


def is_routed(pool: Pool) -> bool:
    """Whether requests for the model need the dispatcher."""
    spec = pool.spec
    keyed = spec.policy in KEYED and len(pool.replicas) > 1
    further = spec.split is not None or spec.shadow is not None or bool(spec.fallbacks)
    return bool(pool.remotes) or keyed or further


def remote_only(name: str) -> EndpointNotSupported:
    """The error for work that needs the model in this process."""
    return EndpointNotSupported(
        f"The model '{name}' runs on another server, and this endpoint serves models of this "
        "process only. Use it with /v1/chat/completions.",
        param="model",
    )


def wrong_task(name: str, task: Task) -> ModelNotFound:
    """The error for a model that is served here, and not on this endpoint."""
    if task == "embeddings":
        text = f"The model '{name}' makes no embeddings. Use it with /v1/chat/completions."
    else:
        text = f"The model '{name}' is an embedding model. Use it with /v1/embeddings."
    return ModelNotFound(text, param="model")
