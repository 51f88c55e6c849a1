"""The engines of one gateway: which one answers a request, and what follows from a death.

A model is served by one or more replicas, each supervised on its own. While none of them can
serve, the fallback answers, where the policy allows it, and every such answer says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import jinja2.exceptions

from engine import carry_on
from engine.base import (
    Delta,
    Embeddings,
    EmbedRequest,
    Engine,
    EngineDead,
    EngineStartError,
    GenerateRequest,
    ModelInfo,
)
from engine.config import EngineConfig
from engine.registry import choose
from engine.supervise import Backoff, SupervisedEngine
from gateway.chat.prompt import PromptBuilder
from gateway.control.auth import Principal
from gateway.control.fallback import FallbackPolicy
from gateway.errors import ModelLoading, ModelNotFound

log = logging.getLogger("gateway.fleet")

BuildEngine = Callable[[EngineConfig], Engine]
# What a request wants of a model; ``any`` for work that needs its tokenizer only.
Task = Literal["generation", "embeddings", "any"]


class Replica:
    """One supervised engine, with what the gateway derives from its model.

    Attributes:
        index: among the replicas of the model.
        kind, reason: which engine it is and why it was chosen.
    """

    def __init__(
        self, config: EngineConfig, build: BuildEngine, backoff: Backoff, index: int = 0
    ) -> None:
        self.config = config
        self.index = index
        self.kind, self.reason = choose(config)
        name = f"{config.names[0]}/{index}"
        self.engine = SupervisedEngine(name, lambda: build(config), backoff)
        self._prompts: PromptBuilder | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes requests now."""
        return self._prompts is not None and self.engine.ready

    @property
    def was_ready(self) -> bool:
        """Whether it has ever taken requests."""
        return self._prompts is not None

    @property
    def info(self) -> ModelInfo:
        """The loaded model."""
        return self.engine.info

    def does(self, task: Task) -> bool:
        """Whether the loaded model does this."""
        can = self.info.capabilities
        return {"generation": can.generation, "embeddings": can.embeddings, "any": True}[task]

    @property
    def prompts(self) -> PromptBuilder:
        """Builds prompts for this model; only once it has been ready."""
        if self._prompts is None:
            raise ModelLoading("The model is still loading. Please retry shortly.")
        return self._prompts

    @property
    def outstanding(self) -> int:
        """Requests queued and running."""
        load = self.engine.load()
        return load.waiting + load.running

    async def start(self) -> None:
        """Load the model once. Raises EngineStartError."""
        await self.engine.start()
        await self.prepare()

    async def prepare(self) -> None:
        """Build what depends on the loaded model; raises EngineStartError."""
        if self._prompts is None:
            self._prompts = await asyncio.to_thread(prepare_prompts, self.engine.info, self.config)

    def close(self) -> None:
        """Free what the gateway holds of the model."""
        if self._prompts is not None:
            self._prompts.close()


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes.

    Attributes:
        asked: the model the client asked for, by its first name.
        degraded: the fallback answers in place of that model.
    """

    replica: Replica
    asked: str
    degraded: bool
    pool: Pool

    @property
    def info(self) -> ModelInfo:
        """The model that answers."""
        return self.replica.info

    @property
    def prompts(self) -> PromptBuilder:
        """Builds prompts for the model that answers."""
        return self.replica.prompts

    def generate(
        self, request: GenerateRequest, on_carry: Callable[[str], None]
    ) -> AsyncGenerator[Delta, None]:
        """Generate, carried on by another replica of the same model when one dies.

        ``on_carry`` is told the model's name each time.
        """

        async def successor(dead: Engine) -> Engine | None:
            found = None if self.degraded else await self.pool.successor()
            if found is not None:
                on_carry(self.asked)
            return found

        return carry_on.generate(self.replica.engine, request, successor)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """The vectors of the request's prompts; raises what ``Embedder.embed`` does."""
        return await self.replica.engine.embed(request)


class Pool:
    """The replicas of one model."""

    def __init__(self, replicas: list[Replica], carry_on_wait_s: float = 0.0) -> None:
        self.replicas = replicas
        self._wait_s = carry_on_wait_s

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model, the answered one first; known before it has loaded."""
        return self.replicas[0].config.names

    @property
    def was_ready(self) -> bool:
        """Whether it is known what the model does, which takes one load."""
        return any(replica.was_ready for replica in self.replicas)

    def does(self, task: Task) -> bool:
        """Whether the model is known to do this."""
        return any(replica.does(task) for replica in self.replicas if replica.was_ready)

    def pick(self) -> Replica | None:
        """The ready replica with the fewest outstanding requests."""
        ready = [replica for replica in self.replicas if replica.ready]
        return min(ready, key=lambda replica: replica.outstanding, default=None)

    async def successor(self) -> Engine | None:
        """Where generations of a dead replica go on; None when nowhere in time."""
        found = self.pick()
        if found is None and self._wait_s:
            waits = [asyncio.create_task(r.engine.wait_ready(self._wait_s)) for r in self.replicas]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            found = self.pick()
        return found.engine if found is not None else None


class Fleet:
    """Every engine of the gateway. Owned by the event loop.

    Args:
        pools: the served models.
        fallback: answers while a model cannot, or None.
        policy: for whom the fallback may answer.
    """

    def __init__(
        self, pools: Iterable[Pool], fallback: Replica | None, policy: FallbackPolicy
    ) -> None:
        self.pools = list(pools)
        self.fallback = fallback
        self.policy = policy
        self._by_name = {name: pool for pool in self.pools for name in pool.names}

    def __iter__(self) -> Iterator[Replica]:
        for pool in self.pools:
            yield from pool.replicas
        if self.fallback is not None:
            yield self.fallback

    @property
    def started(self) -> bool:
        """Whether anything can serve now."""
        return any(replica.ready for replica in self)

    @property
    def was_started(self) -> bool:
        """Whether anything has been able to serve so far."""
        return any(replica.was_ready for replica in self)

    def models(self) -> list[Replica]:
        """A replica of each model that can be asked for by name, loaded ones first."""
        found = [pool.pick() for pool in self.pools]
        listed = [replica for replica in found if replica is not None]
        fallback = self.fallback
        if fallback is not None and fallback.ready and not self._names(fallback, listed):
            listed.append(fallback)
        return listed

    def route(self, name: str | None, principal: Principal, task: Task = "generation") -> Route:
        """Choose who answers. Nobody stands in for an embedding model: vectors of different
        models cannot be compared.

        Raises ModelNotFound for an unknown name and for a model that does something else;
        ModelLoading or EngineDead while neither the model nor the fallback can serve.
        """
        pool = self._pool_of(name, task)
        asked = pool.names[0]
        if pool.was_ready and not pool.does(task):
            raise wrong_task(asked, task)
        replica = pool.pick()
        if replica is not None:
            return Route(replica, asked, degraded=False, pool=pool)
        fallback = self.fallback
        stands_in = task != "embeddings" and fallback is not None and fallback.ready
        if fallback is not None and stands_in and self.policy.allows(pool.names, principal.id):
            return Route(fallback, asked, degraded=True, pool=pool)
        if all(r.engine.last_error is None for r in pool.replicas):
            raise ModelLoading("The model is still loading. Please retry shortly.")
        raise EngineDead(f"no replica of {asked} is running")

    async def start(self) -> None:
        """Load every model; returns when each has been tried once.

        Raises EngineStartError when a model cannot start and nothing may answer for it.
        """
        replicas = list(self)
        results = await asyncio.gather(
            *(replica.start() for replica in replicas), return_exceptions=True
        )
        failed = [result for result in results if isinstance(result, BaseException)]
        for error in failed:
            if not isinstance(error, EngineStartError) or not self._survives(error):
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
        """Stop every engine."""
        await asyncio.gather(*(replica.engine.stop(drain_s) for replica in self))

    def close(self) -> None:
        """Free what the gateway itself holds of the models."""
        for replica in self:
            replica.close()

    def _pool_of(self, name: str | None, task: Task) -> Pool:
        if name is None:
            return next((pool for pool in self.pools if pool.does(task)), self.pools[0])
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

    def _names(self, fallback: Replica, listed: list[Replica]) -> bool:
        return any(fallback.info.id == replica.info.id for replica in listed)

    def _survives(self, error: EngineStartError) -> bool:
        if self.fallback is None or not self.fallback.ready or self.policy.off:
            return False
        log.error("a model did not start; the fallback answers for it", extra={"cause": str(error)})
        return True


def wrong_task(name: str, task: Task) -> ModelNotFound:
    """The error for a model that is served here, and not on this endpoint."""
    if task == "embeddings":
        text = f"The model '{name}' makes no embeddings. Use it with /v1/chat/completions."
    else:
        text = f"The model '{name}' is an embedding model. Use it with /v1/embeddings."
    return ModelNotFound(text, param="model")


def prepare_prompts(info: ModelInfo, config: EngineConfig) -> PromptBuilder:
    """The prompt builder of a model; raises EngineStartError for a broken chat template."""
    try:
        return PromptBuilder(
            info, tool_parser=config.tool_parser, reasoning_parser=config.reasoning_parser
        )
    except jinja2.exceptions.TemplateError as error:
        raise EngineStartError(
            f"The chat template of {info.source} is not valid Jinja: {error}"
        ) from None
