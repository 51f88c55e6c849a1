"""An engine that comes back: notices death at once, restarts with back-off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.base import (
    Delta,
    Embedder,
    Embeddings,
    EmbedRequest,
    Engine,
    EngineDead,
    EngineError,
    EngineStartError,
    GenerateRequest,
    ImageRenderer,
    Load,
    ModelInfo,
    Progress,
    RenderedImages,
    RequestRejected,
)

log = logging.getLogger(__name__)

# Engines notice the death of their own process by themselves; polling only bounds how long
# an idle engine's death stays unseen.
HEALTH_POLL_S = 0.25
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait before restart ``k`` in a row: ``first * factor**k``, at most ``most``.

    A run of at least ``stable_s`` seconds makes the next restart count as the first again.
    """

    first: float = 1.0
    factor: float = 2.0
    most: float = 60.0
    stable_s: float = 60.0

    def delay(self, failures: int) -> float:
        return float(min(self.most, self.first * self.factor**failures))


class SupervisedEngine:
    """Wraps a factory of engines and keeps one of them alive.

    Itself an ``engine.base.Engine``: between death and the end of the restart ``generate``
    raises EngineDead and ``progress`` says what is going on.

    Args:
        name: for logs and metrics.
        make: builds a fresh, unstarted engine.
        backoff: how long to wait between restarts.

    Attributes:
        held_back: requests that wait for this engine elsewhere; its load counts them.
    """

    def __init__(self, name: str, make: Callable[[], Engine], backoff: Backoff | None = None):
        self.name = name
        self.held_back = 0
        self.restarts = 0
        self.last_error: str | None = None
        self._make = make
        self._backoff = backoff or Backoff()
        self._engine = make()
        self._info: ModelInfo | None = None
        self._ready = asyncio.Event()
        self._died = asyncio.Event()
        self._stopping = False
        self._watch: asyncio.Task[None] | None = None
        self._on_ready: Callable[[], Awaitable[None]] | None = None

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raise EngineError(f"{self.name} has not been loaded yet")
        return self._info

    @property
    def ready(self) -> bool:
        return self._ready.is_set() and not self._died.is_set()

    @property
    def progress(self) -> Progress:
        if self.ready or self._stopping:
            return self._engine.progress
        current = self._engine.progress
        if current.state == "loading":
            return current
        return Progress("dead", self.last_error or current.stage)

    async def start(self) -> None:
        """Start once. Raises EngineStartError; ``keep_alive`` may then go on trying."""
        try:
            await self._engine.start()
        except EngineStartError as error:
            self.last_error = str(error)
            raise
        self._serve()

    def keep_alive(self, on_ready: Callable[[], Awaitable[None]] | None = None) -> None:
        """Watch from now on, restarting whatever dies or has failed to start.

        ``on_ready`` is awaited after each successful restart; it may raise EngineStartError.
        """
        self._on_ready = on_ready
        if self._watch is None:
            self._watch = asyncio.create_task(self._run(), name=f"supervise {self.name}")

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        engine = self.running()
        source = engine.generate(request)
        try:
            async for delta in source:
                yield delta
        except EngineDead as error:
            self.note_death(engine, error)
            raise
        finally:
            await source.aclose()

    def running(self) -> Engine:
        """The engine that runs now, for whoever tells ``note_death`` of its EngineDead: that
        saves a layer per delta. Raises EngineDead."""
        if not self.ready:
            raise EngineDead(f"{self.name} is not running")
        return self._engine

    def note_death(self, engine: Engine, error: EngineDead) -> None:
        """Restart, if it is the running engine that has died. A slow consumer may learn of a
        death long after the restart."""
        if engine is self._engine and not self._died.is_set():
            self.last_error = str(error)
            self._ready.clear()
            self._died.set()
            log.error("engine died", extra={"engine": self.name, "cause": str(error)})

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """The ``embed`` of the engine, where it is an ``engine.base.Embedder``."""
        engine = self.running()
        if not isinstance(engine, Embedder):
            raise RequestRejected("this model makes no embeddings", param="model")
        try:
            return await engine.embed(request)
        except EngineDead as error:
            self.note_death(engine, error)
            raise

    async def render_images(
        self, prompt_ids: Sequence[int], images: Sequence[Any]
    ) -> RenderedImages:
        """The ``render_images`` of the engine, where it is an ``engine.base.ImageRenderer``."""
        engine = self.running()
        if not isinstance(engine, ImageRenderer):
            raise RequestRejected("this model takes no images", param="messages")
        try:
            return await engine.render_images(prompt_ids, images)
        except EngineDead as error:
            self.note_death(engine, error)
            raise

    def load(self) -> Load:
        if not self.ready:
            return Load(0, 0, 0, 0, 0)
        load = self._engine.load()
        if not self.held_back:
            return load
        return replace(load, waiting=load.waiting + self.held_back)

    async def check_health(self) -> None:
        if not self.ready:
            raise EngineDead(self.last_error or f"{self.name} is not running")
        engine = self._engine
        try:
            await engine.check_health()
        except EngineDead as error:
            self.note_death(engine, error)
            raise

    async def wait_ready(self, timeout_s: float) -> bool:
        """Whether it serves within ``timeout_s`` seconds."""
        if self.ready or timeout_s <= 0:
            return self.ready
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        return self.ready

    async def stop(self, drain_s: float) -> None:
        self._stopping = True
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        await self._engine.stop(drain_s)

    def _serve(self) -> None:
        self._info = self._engine.info
        self.last_error = None
        self._died.clear()
        self._ready.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            if self.ready:
                await self._until_death()
            if time.monotonic() - began >= self._backoff.stable_s:
                failures = 0
            delay = self._backoff.delay(failures)
            failures += 1
            log.warning("engine restarts", extra={"engine": self.name, "in_s": delay})
            await self._discard()
            await asyncio.sleep(delay)
            await self._restart()

    async def _until_death(self) -> None:
        while not self._died.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._died.wait(), HEALTH_POLL_S)
                return
            with contextlib.suppress(EngineDead):
                await self.check_health()

    async def _discard(self) -> None:
        """Free what the dead engine holds; a dead engine must not stop the restart."""
        try:
            await asyncio.wait_for(self._engine.stop(0), STOP_TIMEOUT_S)
        except Exception:
            log.exception("a dead engine did not stop cleanly", extra={"engine": self.name})

    async def _restart(self) -> None:
        self.restarts += 1
        self._engine = self._make()
        try:
            await self._engine.start()
            self._serve()
            if self._on_ready is not None:
                await self._on_ready()
        except EngineStartError as error:
            self.last_error = str(error)
            self._ready.clear()
            log.error("engine restart failed", extra={"engine": self.name, "cause": str(error)})
        else:
            log.warning("engine is back", extra={"engine": self.name, "restarts": self.restarts})
