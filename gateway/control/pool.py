"""The targets of one model: engines of this process, and servers elsewhere."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from engine import carry_on
from engine.base import (
    Delta,
    Embeddings,
    EmbedRequest,
    Engine,
    GenerateRequest,
    Load,
    ModelInfo,
)
from gateway.chat.prompt import PromptBuilder
from gateway.control.replica import Replica, Task
from gateway.routing.absence import Absence
from gateway.routing.ask import EXPECTED_OUTPUT, Ask
from gateway.routing.budget import RetryBudget
from gateway.routing.config import Api, ModelSpec
from gateway.routing.hedging import Hedging
from gateway.routing.policies import choose, load_of
from gateway.routing.remote import RemoteTarget
from gateway.routing.shadows import Shadows
from gateway.routing.upstream import Upstream

if TYPE_CHECKING:
    from gateway.control.gate import Work


class HasLoad(Protocol):
    """Anything that takes work and says how much it has."""

    def load(self) -> Load:
        """What it holds now."""


class Pool:
    """Owned by the event loop.

    Args:
        remotes: its targets elsewhere, where some are known already; otherwise they are made.
        before: the pool that this one takes over from.

    Attributes:
        replicas: its engines in this process; may be none.
        remotes: its targets elsewhere; may be none.
        absence: whether none of its servers is there, and requests wait for one.
        budget: of its retries.
        hedging: its second attempts at late answers, where it makes any.
        shadows: copies of its requests.
        created: Unix seconds.
    """

    def __init__(
        self,
        replicas: list[Replica],
        carry_on_wait_s: float = 0.0,
        spec: ModelSpec | None = None,
        draw: random.Random | None = None,
        *,
        remotes: list[RemoteTarget] | None = None,
        before: Pool | None = None,
    ) -> None:
        self.replicas = replicas
        self.spec = spec or ModelSpec(replicas[0].config.names[0], replicas[0].config.names[1:])
        if remotes is None:
            remotes = [RemoteTarget(remote) for remote in self.spec.remotes]
        self.remotes = remotes
        gone = None if before is None else before.absence
        self.absence: Absence = Absence(self.spec.wait_for_target_s, remotes, gone)
        kept = before.budget if before and before.spec.retries == self.spec.retries else None
        self.budget: RetryBudget = kept or RetryBudget(self.spec.retries)
        self.hedging: Hedging | None = None
        if self.spec.hedge is not None:
            same_hedge = before is not None and before.spec.hedge == self.spec.hedge
            self.hedging = before.hedging if before and same_hedge else Hedging(self.spec.hedge)
        self.shadows: Shadows = Shadows() if before is None else before.shadows
        self.created: int = int(time.time()) if before is None else before.created
        self.carry_on_wait_s = carry_on_wait_s
        self._draw = draw or random.Random()  # noqa: S311 - spreads load, keeps no secret

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model, the answered one first; known before it has loaded."""
        return self.spec.names

    @property
    def upstreams(self) -> Iterable[Upstream]:
        """Every server of its remote targets."""
        return (upstream for remote in self.remotes for upstream in remote.upstreams)

    @property
    def was_ready(self) -> bool:
        """Whether it is known what the model does, which takes one load."""
        return any(replica.was_ready for replica in self.replicas)

    @property
    def up(self) -> bool:
        """Whether anything can answer now, or is waited for."""
        can_wait = self.absence.wait_s > 0
        return can_wait or self.pick() is not None or any(u.available for u in self.upstreams)

    def does(self, task: Task) -> bool:
        """Whether the model is known to do this in this process."""
        return any(replica.does(task) for replica in self.replicas if replica.was_ready)

    def speaks(self, api: Api) -> bool:
        """Whether a server elsewhere offers this API."""
        return any(api in remote.apis for remote in self.spec.remotes)

    def loads(self) -> list[Load]:
        """Of everything that can take requests now."""
        ready = [replica.load() for replica in self.replicas if replica.ready]
        return ready + [upstream.load() for upstream in self.upstreams if upstream.available]

    def load(self) -> Load:
        """What its servers elsewhere hold together, as far as the gateway knows: requests, and
        nothing of KV memory."""
        loads = [upstream.load() for upstream in self.upstreams]
        running = sum(load.running for load in loads)
        return Load(0, running, 0, 0, sum(load.max_running for load in loads))

    def pick(self, ask: Ask | None = None) -> Replica | None:
        """A ready replica, chosen by the model's policy."""
        found = self.choose_replica(ask)
        return found[0] if found is not None else None

    def choose_replica(self, ask: Ask | None = None) -> tuple[Replica, str] | None:
        """A ready replica and why it is this one."""
        ready = [replica for replica in self.replicas if replica.ready]
        return choose(self.spec, ready, ask, self._draw) if ready else None

    def choose(
        self, api: Api, ask: Ask, tried: Sequence[str]
    ) -> tuple[Replica | Upstream, str] | None:
        """A target that can answer, here or elsewhere, and why it is this one."""
        task: Task = "embeddings" if api == "embeddings" else "generation"
        able: list[Replica | Upstream] = [
            replica
            for replica in self.replicas
            if replica.ready and replica.does(task) and replica.name not in tried
        ]
        servers = self.servers(api, tried)
        # Where all are full, the request waits for the first that has room.
        able += [upstream for upstream in servers if not upstream.full] or servers
        return choose(self.spec, able, ask, self._draw) if able else None

    def servers(self, api: Api, tried: Sequence[str] = ()) -> list[Upstream]:
        """The servers elsewhere that may be asked now."""
        return [
            upstream
            for remote in self.remotes
            if api in remote.spec.apis
            for upstream in remote.upstreams
            if upstream.available and upstream.name not in tried
        ]

    def roomier(self, upstream: Upstream, api: Api) -> Upstream:
        """This server, or one with room where it has none after a wait."""
        if not upstream.full:
            return upstream
        free = [other for other in self.servers(api) if not other.full]
        return min(free, key=load_of, default=upstream)

    def offers(self, task: Task) -> bool:
        """Whether the model is known to do this, here or elsewhere."""
        api: Api = "embeddings" if task == "embeddings" else "chat"
        return self.does(task) or self.speaks(api) or self.spec.split is not None

    async def successor(self, dead: Engine) -> Engine | None:
        """Where generations of a dead replica go on; None when nowhere in time."""
        origin = next((r for r in self.replicas if r.engine is dead), None)
        able = [r for r in self.replicas if origin is None or r.has_same_weights(origin)]
        found = least_busy(able)
        if found is None and self.carry_on_wait_s:
            waits = [asyncio.create_task(r.engine.wait_ready(self.carry_on_wait_s)) for r in able]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            found = least_busy(able)
        return found.engine if found is not None else None


def least_busy(replicas: Iterable[Replica]) -> Replica | None:
    """The ready one with the fewest outstanding requests."""
    ready = [replica for replica in replicas if replica.ready]
    return min(ready, key=lambda replica: replica.outstanding, default=None)


def expected_tokens(work: Work) -> int:
    """Prompt and output that comparing loads reckons with."""
    output = work.max_tokens if work.is_capped else min(work.max_tokens, EXPECTED_OUTPUT)
    return work.prompt_tokens + output * work.choices


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, in this process.

    Attributes:
        asked: the model the client asked for, by its first name.
        degraded: another model answers in place of that one.
        reason: why this replica, in a few characters.
    """

    replica: Replica
    asked: str
    degraded: bool
    pool: Pool
    reason: str = "only"

    @property
    def info(self) -> ModelInfo:
        """The model that answers."""
        return self.replica.info

    @property
    def model_id(self) -> str:
        """Name of the model that answers."""
        return self.replica.info.id

    @property
    def engine(self) -> HasLoad:
        """What the load of the target is read from, the same object for the same target."""
        return self.replica.engine

    @property
    def target(self) -> str:
        """Who answers, as headers and logs show it."""
        return self.replica.name

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
            stays = self.replica not in self.pool.replicas
            found = None if stays else await self.pool.successor(dead)
            if found is not None:
                on_carry(self.asked)
            return found

        return carry_on.generate(self.replica.engine, request, successor)

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """The vectors of the request's prompts; raises what ``Embedder.embed`` does."""
        return await self.replica.engine.embed(request)

    def take_on(self, work: Work) -> None:
        """Count the work into the load of its replica; ``let_go`` takes it out again."""
        self.replica.tokens += expected_tokens(work)

    def let_go(self, work: Work) -> None:
        """The work is over, whatever became of it."""
        self.replica.tokens -= expected_tokens(work)


@dataclass(frozen=True, slots=True)
class RemoteRoute:
    """Where a request goes that other servers answer.

    Attributes:
        asked: the model the client asked for, by its first name.
        degraded: another model answers in place of that one.
        pool: of the model that answers; which of its servers does may change while none has.
    """

    asked: str
    degraded: bool
    pool: Pool

    @property
    def model_id(self) -> str:
        """Name of the model that answers."""
        return self.pool.names[0]

    @property
    def engine(self) -> HasLoad:
        """What the load of its servers together is read from."""
        return self.pool
