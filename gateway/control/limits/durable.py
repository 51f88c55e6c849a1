"""What was used of days and months, kept in a file over a restart.

Without a shared store only. Written beside the requests, once a second where anything changed,
so that a killed process forgets one second at most. Gateways that share DATA_DIR add to the same
file; each reads it when it starts.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
from pathlib import Path

from gateway.control.limits.book import Book, Hold
from gateway.control.limits.counter import Counter, Key
from gateway.control.limits.windows import WINDOWS

log = logging.getLogger("gateway.limits")

SAVE_S = 1.0
FILE = "limits.json"

Use = dict[Key, dict[int, int]]


class DurableUse:
    """Use by counter and period, in a file of a folder."""

    def __init__(self, folder: Path, save_s: float = SAVE_S) -> None:
        self._path = folder / FILE
        self._save_s = save_s
        self._first = self._load()
        self._saved: Use = {key: dict(slots) for key, slots in self._first.items()}
        self._changed: set[Counter] = set()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def first_use(self, key: Key) -> dict[int, int]:
        """What earlier processes used; told once, as a counter begins with it."""
        return self._first.pop(key, {})

    def start(self) -> None:
        """Begin to save; nothing the second time."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def touch(self, holds: list[Hold]) -> None:
        """Something was used or given back."""
        for hold in holds:
            if hold.counter.window.is_calendar:
                self._changed.add(hold.counter)

    async def close(self) -> None:
        """Save what is not saved yet."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._save()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._save_s)
            # A save that has begun is finished, or its changes would be added twice.
            await asyncio.shield(asyncio.ensure_future(self._save()))

    async def _save(self) -> None:
        changed, self._changed = self._changed, set()
        more: Use = {}
        for counter in changed:
            saved = self._saved.setdefault(counter.key, {})
            for slot, used in counter.used.items():
                if used != saved.get(slot, 0):
                    more.setdefault(counter.key, {})[slot] = used - saved.get(slot, 0)
                    saved[slot] = used
            for slot in saved.keys() - counter.used.keys():
                del saved[slot]
        if not more:
            return
        try:
            await asyncio.to_thread(self._add, more)
            self._failing = False
        except OSError as error:
            for key, slots in more.items():
                for slot, amount in slots.items():
                    self._saved[key][slot] = self._saved[key].get(slot, 0) - amount
            self._changed |= changed
            if not self._failing:
                log.warning(
                    "what was used of limits cannot be saved; a restart would forget it",
                    extra={"fields": {"cause": error.strerror or str(error)}},
                )
            self._failing = True

    def _add(self, more: Use) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(
            self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            use = self._load()
            for key, slots in more.items():
                own = use.setdefault(key, {})
                for slot, amount in slots.items():
                    own[slot] = own.get(slot, 0) + amount
                newest = max(own)
                use[key] = {slot: amount for slot, amount in own.items() if slot >= newest - 1}
            text = json.dumps(
                [
                    [*key, {str(slot): amount for slot, amount in own.items()}]
                    for key, own in use.items()
                ]
            )
            draft = self._path.with_suffix(f".{os.getpid()}.new")
            with draft.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            os.close(lock)

    def _load(self) -> Use:
        """The file's contents; nothing where there is none or none that can be read."""
        try:
            entries = json.loads(self._path.read_text())
            return {
                (scope, name, field): {int(slot): int(amount) for slot, amount in own.items()}
                for scope, name, field, own in entries
                if field in WINDOWS
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError):
            log.warning("what was used of limits cannot be read", extra={"fields": {"file": FILE}})
            return {}


def attach(book: Book, durable: DurableUse) -> None:
    """Have counters begin with what earlier processes used."""
    book.first_use = durable.first_use
