"""What the generator itself costs: its processor time, and how late its event loop is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

_EVERY_S = 0.02
BUSY_SHARE = 0.85
LATE_MS = 20.0


@dataclass(slots=True)
class GeneratorWatch:
    """Measures this process between entering and leaving.

    Attributes:
        lags: seconds that a timer of 20 ms came late; a timer of the event loop is rounded up
            to whole milliseconds.
    """

    cpu_s: float = 0.0
    wall_s: float = 0.0
    lags: list[float] = field(default_factory=list)
    _began: tuple[float, float] = (0.0, 0.0)
    _task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> GeneratorWatch:
        self._began = (time.process_time(), time.perf_counter())
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cpu_s += time.process_time() - self._began[0]
        self.wall_s += time.perf_counter() - self._began[1]
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _sample(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_EVERY_S)
            self.lags.append(max(0.0, time.perf_counter() - before - _EVERY_S))

    def report(self, output_tokens: int, lateness: Sequence[float]) -> dict[str, Any]:
        """The generator's share of the run, in its own words.

        Args:
            lateness: seconds by which requests of an open loop left late.
        """
        report: dict[str, Any] = {
            "cpu_seconds": self.cpu_s,
            "cpu_share_of_one_core": self.cpu_s / max(self.wall_s, 1e-9),
            "cpu_us_per_output_token": self.cpu_s * 1e6 / output_tokens if output_tokens else None,
            **_tail("event_loop_lag", self.lags),
        }
        if lateness:
            report |= _tail("send_lateness", lateness)
        return report


def warnings_of(report: dict[str, Any]) -> list[str]:
    """Why the figures of a run may be the generator's and not the server's."""
    found = []
    share = report["cpu_share_of_one_core"]
    if share > BUSY_SHARE:
        found.append(
            f"the generator used {share:.0%} of a core and is likely the bottleneck: ask for less,"
            " or run several generators"
        )
    lag = report.get("p99_event_loop_lag_ms")
    if lag is not None and lag > LATE_MS:
        found.append(
            f"the generator's event loop was {lag:.0f} ms late at its 99th percentile, and times"
            " between tokens are that inexact: give it a core of its own"
        )
    late = report.get("p99_send_lateness_ms")
    if late is not None and late > LATE_MS:
        found.append(
            f"requests left up to {late:.0f} ms (99th percentile) after they were due: the"
            " schedule was not kept"
        )
    return found


def _tail(name: str, seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {f"median_{name}_ms": None, f"p99_{name}_ms": None, f"max_{name}_ms": None}
    values = np.asarray(seconds) * 1000
    return {
        f"median_{name}_ms": float(np.median(values)),
        f"p99_{name}_ms": float(np.percentile(values, 99)),
        f"max_{name}_ms": float(values.max()),
    }
