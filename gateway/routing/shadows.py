"""What is known of the copies of a model's requests."""

from __future__ import annotations

import asyncio


class Shadows:
    """The copies of one model that run now, and how the others ended. Owned by the event loop."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self.outcomes: dict[str, int] = {"completed": 0, "failed": 0, "skipped": 0}
