"""Counts requests. What requests do is append to a list in memory; threads do the rest.

    loop ──append──▶ pending ──every 0.2 s──▶ journal on disk ──every 0.5 s──▶ database

So a process that is killed loses what it counted in the last fraction of a second, one that
ends in peace loses nothing, and a database that is slow or gone is not felt.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
import shutil
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.control.ledger.journal import Journal
from gateway.control.ledger.record import FIELDS, Entry, Source
from gateway.control.ledger.report import Query, Row
from gateway.control.ledger.shipper import Shipper
from gateway.control.ledger.store import Store, StoreUnavailable
from gateway.control.prices import PriceTable
from gateway.control.rights import Principal
from gateway.errors import Conflict, StorageUnavailable
from gateway.store.sqlite import make_private_folder

log = logging.getLogger("gateway.usage")

# What may wait for a disk that does not take it; beyond, the oldest are given up.
MOST_PENDING = 100_000
WRITE_EVERY_S = 0.2
SYNC_EVERY_S = 1.0
CLOSE_WITHIN_S = 5.0
REPORT_WITHIN_S = 20.0
REPORTS_AT_ONCE = 2
SEVERAL = "several"


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has just ended, as its handler saw it.

    Attributes:
        details: fields of its access log line; the token counts and times are among them.
        total_s: from its arrival to its last byte.
        id: for work that may be done again after a crash, so that it is counted once; otherwise
            one is made.
        prices: that it began with; None: those in force.
    """

    source: Source
    principal: Principal
    route: str
    request_id: str
    outcome: str
    status: int | None
    error_code: str | None
    total_s: float
    details: Mapping[str, Any]
    id: str = ""
    prices: PriceTable | None = None


class Ledger:
    """The ledger of one process. ``record`` belongs to the event loop.

    Args:
        folder: of the journal; another one, for this process only, where it cannot be used.
        new_store: makes the database's store, given a folder.
        keep_days: how long records are kept, and how long sums of days.
        enabled: False counts nothing.

    Attributes:
        recorded: requests so far. dropped: of these, lost before they were on disk.
        usd: what they cost, by model.
    """

    def __init__(
        self,
        folder: Path,
        new_store: Callable[[Path], Store],
        prices: PriceTable,
        *,
        journal_bytes: int,
        keep_days: tuple[int, int],
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        self._folder = folder
        self._new_store = new_store
        self._prices = prices
        self._journal_bytes = journal_bytes
        self._keep_days = keep_days
        self._name = secrets.token_hex(8)
        self._numbers = itertools.count()
        self._pending: deque[Entry] = deque(maxlen=MOST_PENDING)
        self._unwritten: list[bytes] = []
        self._stopping = threading.Event()
        self._writer = threading.Thread(target=self._write, name="usage-journal", daemon=True)
        self._store: Store | None = None
        self._reports = ThreadPoolExecutor(REPORTS_AT_ONCE, thread_name_prefix="usage-report")
        self._synced_at = 0.0
        self._disk_works = True
        self._temporary: Path | None = None
        self.journal: Journal | None = None
        self.shipper: Shipper | None = None
        self.recorded = 0
        self.dropped = 0
        self.usd: defaultdict[str, float] = defaultdict(float)

    def record(self, ended: Ended) -> None:
        """Count a request. Never blocks and never raises what a database could cause."""
        if not self._enabled:
            return
        if len(self._pending) == MOST_PENDING:
            self.dropped += 1
        self.recorded += 1
        entry = self._entry(ended)
        self._pending.append(entry)
        if entry.model:  # a request of several instances may have asked several models
            self.usd[entry.model if "," not in entry.model else SEVERAL] += entry.usd

    @property
    def waiting(self) -> int:
        """Records that the database does not have yet, wherever they are; at most a few are
        counted twice while they go to disk."""
        in_memory = len(self._pending) + len(self._unwritten)
        return in_memory + (self.journal.waiting if self.journal is not None else 0)

    def start(self) -> None:
        """Take the journal into use and begin to write. What is recorded before that waits."""
        if not self._enabled:
            return
        folder = self._folder
        try:
            self.journal = opened(folder, self._journal_bytes)
        except OSError as error:
            log.warning(
                "the folder for usage cannot be used: a temporary one takes its place, and what "
                "is in it is lost with this process",
                extra={"fields": {"folder": str(folder), "cause": str(error)}},
            )
            try:
                folder = self._temporary = Path(tempfile.mkdtemp(prefix="llm-gateway-"))
                self.journal = opened(folder, self._journal_bytes)
            except OSError:
                log.error("there is no folder for the journal of usage; nothing is recorded")
                return
        self._store = self._new_store(folder)
        self.shipper = Shipper(self.journal, self._store, self._keep_days)
        self._writer.start()
        self.shipper.start()

    async def report(self, query: Query) -> list[Row]:
        """Sums from the database, which lags a second behind. Raises StorageUnavailable, and
        Conflict where nothing is recorded."""
        if self._store is None:
            raise Conflict("This server keeps no record of usage; see USAGE_LEDGER.")
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._reports, self._store.report, query)
        try:
            async with asyncio.timeout(REPORT_WITHIN_S):
                return await work
        except (StoreUnavailable, TimeoutError) as error:
            fields = {"cause": str(error)}
            log.warning("the usage database does not answer", extra={"fields": fields})
            raise StorageUnavailable(
                "The usage database is not available. Please retry shortly."
            ) from None

    async def close(self) -> None:
        """Have everything on disk, and in the database where that can be done in time."""
        if self.journal is None or self.shipper is None or self._stopping.is_set():
            return
        self._stopping.set()
        self._reports.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self.shipper.stop, CLOSE_WITHIN_S)
        self._flush()  # what ended in the meantime is shipped by the next process
        try:
            self.journal.close()
        except OSError as error:
            log.error("the journal of usage could not be closed", exc_info=error)
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    def use_prices(self, prices: PriceTable) -> None:
        """Go by other prices for what is recorded from now on."""
        self._prices = prices

    def _entry(self, ended: Ended) -> Entry:
        details = ended.details
        get = details.get
        # A generation that never gave a token has cost the caller nothing.
        began = get("ttft_ms", 0.0) is not None and not get("cache_hit", False)
        prompt, cached, completion, reasoning = (
            (
                get("prompt_tokens") or 0,
                get("cached_tokens") or 0,
                get("completion_tokens") or 0,
                get("reasoning_tokens") or 0,
            )
            if began
            else (0, 0, 0, 0)
        )
        model = get("model", "")
        usd = get("usd")
        prices = ended.prices or self._prices
        if usd is None or not began:
            usd = prices.usd(model, prompt, cached, completion)
        tenant = ended.principal.tenant
        return Entry(
            id=ended.id or f"{self._name}-{next(self._numbers):x}",
            at=time.time(),
            source=ended.source,
            key_id=ended.principal.id,
            organisation=tenant.organisation,
            project=tenant.project,
            route=ended.route,
            model=model,
            target=get("target") or model,
            outcome=ended.outcome,
            status=ended.status,
            error_code=ended.error_code,
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            reasoning_tokens=reasoning,
            usd=usd,
            priced=prices.date,
            queue_ms=get("admission_ms"),
            engine_queue_ms=get("queue_ms"),
            ttft_ms=get("ttft_ms"),
            total_ms=round(ended.total_s * 1000, 2),
            degraded=get("degraded"),
            stream=get("stream", False),
            cache_hit=get("cache_hit", False),
            request_id=ended.request_id,
        )

    def _write(self) -> None:
        while not self._stopping.wait(WRITE_EVERY_S):
            try:
                self._flush()
            except Exception as error:  # the thread has to outlive whatever happens
                log.error("the journal of usage cannot be written", exc_info=error)
        self._flush()

    def _flush(self) -> None:
        """Bring what is pending to disk; what a full disk does not take is tried again."""
        assert self.journal is not None
        journal = self.journal
        try:
            for _ in range(len(self._pending)):
                self._encode(self._pending.popleft())
            if self._unwritten:
                journal.append(self._unwritten)
                self._unwritten = []
            if time.monotonic() - self._synced_at >= SYNC_EVERY_S or self._stopping.is_set():
                self._synced_at = time.monotonic()
                journal.sync()
            journal.tidy()
            self._disk_works = True
        except OSError as error:
            if self._disk_works:
                fields = {"cause": str(error)}
                log.error("the journal of usage cannot be written", extra={"fields": fields})
            self._disk_works = False
            excess = len(self._unwritten) - MOST_PENDING
            if excess > 0:
                self.dropped += excess
                del self._unwritten[:excess]

    def _encode(self, entry: Entry) -> None:
        try:
            self._unwritten.append(orjson.dumps(dict(zip(FIELDS, entry, strict=True))))
        except TypeError as error:  # one that cannot be written must not hold up the others
            self.dropped += 1
            log.error("a usage record cannot be written", exc_info=error)


def opened(folder: Path, most_bytes: int) -> Journal:
    """A journal in use. Raises OSError."""
    make_private_folder(folder.parent)  # DATA_DIR, where this is the first to come
    journal = Journal(folder, most_bytes)
    journal.open()
    return journal
