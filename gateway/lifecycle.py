"""Whether the server takes work: loading, ready, draining, and who is still being served."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from prometheus_client.core import GaugeMetricFamily, Metric

from engine.base import EngineError
from gateway.control.fleet import Fleet
from gateway.errors import ModelLoading, ServerDraining
from gateway.telemetry.metrics import EngineSample, Metrics


class Lifecycle:
    """The state of one server process. Owned by its event loop.

    Attributes:
        fleet: set as soon as its engines are built, which is long before they have started.
        begun: the models have been started, as far as they could be.
        draining: no new work is taken.
        drain_until: Unix seconds, when the drain has to be over; None before it.
        starters: called once the models have been started.
        drainers: awaited when the drain begins; they end what nobody waits for.
        closers: awaited once nothing is being worked on any more, before the process ends.
    """

    def __init__(self) -> None:
        self.metrics = Metrics(self.engine_samples)
        self.fleet: Fleet | None = None
        self.begun = False
        self.draining = False
        self.drain_until: float | None = None
        self.metrics.sources.append(self._drain_metrics)
        self.starters: list[Callable[[], None]] = []
        self.drainers: list[Callable[[], Awaitable[None]]] = []
        self.closers: list[Callable[[], Awaitable[None]]] = []
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def started(self) -> bool:
        """Whether a model has been loaded."""
        return self.fleet is not None and self.fleet.was_started

    def loaded_fleet(self) -> Fleet:
        """The engines, once one of them has started."""
        if self.fleet is None or not self.fleet.was_started:
            raise ModelLoading("The model is still loading. Please retry shortly.")
        return self.fleet

    @contextmanager
    def admit(self) -> Iterator[Fleet]:
        """Hold a place for one request. Raises ServerDraining or ModelLoading."""
        if self.draining:
            raise ServerDraining("The server is shutting down. Please retry on another one.")
        fleet = self.loaded_fleet()
        self.metrics.in_flight += 1
        fleet.users += 1
        self._idle.clear()
        try:
            yield fleet
        finally:
            self.metrics.in_flight -= 1
            fleet.leave()
            if not self.metrics.in_flight:
                self._idle.set()

    async def wait_idle(self) -> None:
        """Return when no request is being worked on."""
        await self._idle.wait()

    def begin(self) -> None:
        """Have everything started that works without being asked."""
        self.begun = True
        for start in self.starters:
            start()

    async def drain(self) -> None:
        """Take no new work, and end what nobody waits for."""
        self.draining = True
        for stop in self.drainers:
            await stop()

    async def end(self) -> None:
        """Have everything that outlives requests closed."""
        for close in self.closers:
            await close()

    def close(self) -> None:
        """Free what the gateway itself holds of the models."""
        if self.fleet is not None:
            self.fleet.close()

    def _drain_metrics(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "gateway_draining", "1 while the gateway shuts down.", float(self.draining)
        )
        if self.drain_until is not None:
            yield GaugeMetricFamily(
                "gateway_drain_deadline_timestamp_seconds",
                "When running requests are ended; only while the gateway shuts down.",
                self.drain_until,
            )

    def engine_samples(self) -> Iterator[EngineSample]:
        """Every engine as the metrics see it, at this moment."""
        for replica in self.fleet or ():
            engine = replica.engine
            try:
                info = engine.info
            except EngineError:
                info = None  # it has never been loaded
            yield EngineSample(
                model=replica.config.names[0],
                index=replica.index,
                kind=replica.kind,
                reason=replica.reason,
                up=replica.ready,
                restarts=engine.restarts,
                info=info,
                load=engine.load(),
            )
