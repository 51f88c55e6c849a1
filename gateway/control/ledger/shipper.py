"""Takes records from the journal to the database, in a thread of its own.

The database may be slow or gone: the thread waits and tries again, the journal grows, and nobody
else notices.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from gateway.control.ledger.journal import Batch, Journal
from gateway.control.ledger.store import RecordRefused, Store, StoreUnavailable

log = logging.getLogger("gateway.usage")

MOST_RECORDS = 1000
SHIP_EVERY_S = 0.5
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
TIDY_EVERY_S = 600.0


class Shipper:
    """One thread from a journal to a store.

    Args:
        keep_days: how long records are kept, and how long sums of days.

    Attributes:
        connected: the database did the last thing that it was asked.
        refused: records that the database would not take.
    """

    def __init__(self, journal: Journal, store: Store, keep_days: tuple[int, int]) -> None:
        self._journal = journal
        self._store = store
        self._keep_days = keep_days
        self._stopping = threading.Event()
        self._delay_s = FIRST_DELAY_S
        self._tidy_at = 0.0
        self._told_fault = False
        self.connected = False
        self.refused = 0
        self._thread = threading.Thread(target=self._run, name="usage-shipper", daemon=True)

    def start(self) -> None:
        """Begin to ship."""
        self._thread.start()

    def stop(self, within_s: float) -> None:
        """Ship what waits, if that can be done in time, and end the thread."""
        self._stopping.set()
        self._thread.join(within_s)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            wait_s = SHIP_EVERY_S if self._attempt(self._work) else self._backed_off()
        self._attempt(self._ship_all)
        self._store.close()

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Do it; whether that worked. The thread outlives whatever happens."""
        try:
            work()
        except StoreUnavailable as error:
            self._note_fault(str(error))
            return False
        except Exception as error:
            log.error("usage records could not be shipped", exc_info=error)
            self.connected = False
            return False
        if self._told_fault:
            log.info("the usage database is available again")
        self._told_fault = False
        self.connected = True
        self._delay_s = FIRST_DELAY_S
        return True

    def _note_fault(self, cause: str) -> None:
        if not self._told_fault:
            log.warning(
                "the usage database is not available; records are kept in the journal",
                extra={"fields": {"cause": cause}},
            )
        self._told_fault = True
        self.connected = False

    def _backed_off(self) -> float:
        wait_s = self._delay_s
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        return wait_s

    def _work(self) -> None:
        self._store.prepare()
        self._ship_all()
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_EVERY_S
            self._journal.adopt()
            # Only now: what was in an old journal is in the database, and counted, already.
            self._ship_all()
            today = datetime.now(UTC).date()
            records, days = ((today - timedelta(days=kept)).isoformat() for kept in self._keep_days)
            self._store.purge(records, days)

    def _ship_all(self) -> None:
        while batch := self._journal.next_batch(MOST_RECORDS):
            self._ship(batch)

    def _ship(self, batch: Batch) -> None:
        self._add(batch.payloads)
        self._journal.settle(batch)

    def _add(self, payloads: Sequence[bytes]) -> None:
        """Insert them, without those that the database will never take."""
        try:
            self._store.add(payloads)
        except RecordRefused as error:
            if len(payloads) == 1:
                self.refused += 1
                fields = {"cause": str(error)}
                log.error("the database refuses a usage record", extra={"fields": fields})
                return
            middle = len(payloads) // 2
            self._add(payloads[:middle])
            self._add(payloads[middle:])
