"""The life of an engine whose work is done by one thread: created, loading, ready, gone."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from engine.base import (
    EngineDead,
    EngineError,
    EngineStartError,
    EngineState,
    ModelInfo,
    Progress,
)


class Loaded(Protocol):
    """What loading leaves."""

    @property
    def info(self) -> ModelInfo: ...


class Worker(Protocol):
    """The thread that does the work."""

    def start(self) -> None: ...
    def drain(self) -> None:
        """Take nothing new; end when nothing is left to do."""

    def end(self) -> None:
        """Abort what runs, and end."""

    def join(self, timeout_s: float | None = None) -> None: ...


LoadedT = TypeVar("LoadedT", bound=Loaded)
WorkerT = TypeVar("WorkerT", bound=Worker)


class ThreadedEngine(ABC, Generic[LoadedT, WorkerT]):
    """States, progress, start and stop. Owned by the event loop that called ``start``."""

    def __init__(self) -> None:
        self._progress = Progress("created", "not started")
        self._loaded: LoadedT | None = None
        self._worker: WorkerT | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None

    @abstractmethod
    def _load(self) -> tuple[LoadedT, Callable[[], WorkerT]]:
        """Load the model, on a thread of its own, and say how its worker is made.

        Raises EngineStartError.
        """

    @property
    def info(self) -> ModelInfo:
        """As in ``Engine``."""
        if self._loaded is None:
            raise EngineError("the engine has not started")
        return self._loaded.info

    @property
    def progress(self) -> Progress:
        """As in ``Engine``."""
        return self._progress

    async def start(self) -> None:
        """As in ``Engine``; once."""
        if self._progress.state != "created":
            raise EngineStartError(
                f"this engine is {self._progress.state}: an engine starts once, build a new one"
            )
        self._event_loop = asyncio.get_running_loop()
        self._report("loading", "looking for the model", 0.0)
        try:
            loaded, make_worker = await asyncio.to_thread(self._load)
        except BaseException:
            self._report("stopped", "the start failed")
            raise
        if self._is("stopped"):
            raise EngineStartError("the engine was stopped while it loaded")
        self._loaded = loaded
        self._worker = make_worker()
        self._worker.start()
        self._report("ready", "ready", 1.0)

    async def check_health(self) -> None:
        """As in ``Engine``."""
        self._raise_if_dead()
        if self._is("stopped"):
            raise EngineDead("the engine is stopped")

    async def stop(self, drain_s: float) -> None:
        """As in ``Engine``."""
        worker = self._worker
        if worker is not None:
            if self._is("ready"):
                self._report("draining", "letting running requests finish")
            worker.drain()
            await asyncio.to_thread(worker.join, drain_s)
            worker.end()
            await asyncio.to_thread(worker.join)
            self._worker = None
        if not self._is("dead"):
            self._report("stopped", "stopped")

    def _running(self) -> tuple[LoadedT, WorkerT]:
        """The model and its worker. Raises EngineDead, or EngineError before the start."""
        self._raise_if_dead()
        if self._loaded is None:
            raise EngineError("the engine has not started")
        if self._worker is None or not self._is("ready"):
            raise EngineDead("the engine is stopping and takes no new requests")
        return self._loaded, self._worker

    def _raise_if_dead(self) -> None:
        if self._is("dead"):
            raise EngineDead("the engine died")

    def _is(self, state: EngineState) -> bool:
        return self._progress.state == state

    def _die(self) -> None:
        """Called by the worker, on its thread."""
        self._report("dead", "the engine died; its log says why")

    def _report(self, state: EngineState, stage: str, fraction: float | None = None) -> None:
        self._progress = Progress(state, stage, fraction)

    def _tell(self, stage: str, fraction: float | None) -> None:
        """Report progress from the loading thread."""

        def report() -> None:
            if self._is("loading"):
                self._report("loading", stage, fraction)

        assert self._event_loop is not None
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
            self._event_loop.call_soon_threadsafe(report)
