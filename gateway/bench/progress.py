"""Shows a run on stderr while it goes on: one line that changes, or lines where none can."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gateway.bench.load import Counts

EVERY_S = 0.5
EVERY_PIPED_S = 10.0


class Progress:
    """A Display. Drawing costs the generator time, so it is seldom and small."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line that stays."""
        self._console.print(Text(text), style="dim")

    @contextlib.asynccontextmanager
    async def following(self, counts: Counts) -> AsyncIterator[None]:
        """Show counts until left, then leave their last state."""
        began = time.perf_counter()
        shows = self._console.is_terminal
        live = Live(console=self._console, auto_refresh=False, transient=True)

        async def follow() -> None:
            while True:
                await asyncio.sleep(EVERY_S if shows else EVERY_PIPED_S)
                text = line(counts, time.perf_counter() - began)
                if shows:
                    live.update(Text(text), refresh=True)
                else:
                    self._console.print(Text(text))

        with live if shows else contextlib.nullcontext():
            task = asyncio.create_task(follow())
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        self.say(line(counts, time.perf_counter() - began))


def line(counts: Counts, seconds: float) -> str:
    """Counts as one line."""
    total = "" if counts.total is None else f"/{counts.total}"
    parts = [
        f"{counts.server}, {counts.stage}: {counts.done}{total} done",
        f"{counts.sent - counts.done} running",
    ]
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    parts.append(f"{counts.tokens / max(seconds, 1e-9):.0f} tokens/s")
    if counts.last is not None and counts.last.good:
        parts.append(
            f"last: first token {counts.last.ttft * 1000:.0f} ms,"
            f" {counts.last.tpot * 1000:.1f} ms per token"
        )
    return ", ".join(parts) + f", {seconds:.0f} s"
