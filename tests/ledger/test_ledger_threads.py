"""The ledger's threads, when disk and database do not do what they should."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.control.ledger import journal, ledger
from gateway.control.ledger.ledger import Ended, Ledger
from gateway.control.ledger.report import read_query
from gateway.control.ledger.sqlite_store import SqliteStore
from gateway.control.ledger.store import Store, StoreUnavailable
from gateway.control.prices import Price, PriceTable
from gateway.control.rights import Principal, Tenant
from gateway.errors import Conflict, StorageUnavailable

MIB = 1024 * 1024
EVERYTHING = read_query("", "2020-01-01", "2100-01-01")
PRICES = PriceTable({"m": Price(input=1.0, cached=0.5, output=2.0)}, "2026-11-01", "test")
WHO = Principal("key_a", "salt", Tenant("acme", "search"))
USED = {
    "model": "m",
    "prompt_tokens": 100,
    "cached_tokens": 40,
    "completion_tokens": 10,
    "reasoning_tokens": 3,
    "ttft_ms": 12.5,
    "queue_ms": 1.5,
}


def in_sqlite(folder: Path) -> Store:
    return SqliteStore(folder / "usage.sqlite3")


def new_ledger(
    folder: Path, new_store: Callable[[Path], Store] = in_sqlite, *, enabled: bool = True
) -> Ledger:
    return Ledger(
        folder, new_store, PRICES, journal_bytes=64 * MIB, keep_days=(90, 1100), enabled=enabled
    )


def ended(number: int = 0, **details: Any) -> Ended:
    return Ended(
        source="http",
        principal=WHO,
        route="/v1/chat/completions",
        request_id=f"req_{number}",
        outcome="completed",
        status=200,
        error_code=None,
        total_s=0.25,
        details=USED | details,
    )


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sums(store: Store) -> dict[str, Any]:
    (row,) = store.report(EVERYTHING)
    return row


async def test_what_was_counted_before_the_start_is_kept_and_a_close_ships_all(
    tmp_path: Path,
) -> None:
    counting = new_ledger(tmp_path)
    for number in range(50):
        counting.record(ended(number))
    counting.start()
    for number in range(50):
        counting.record(ended(number))
    await counting.close()
    assert sums(in_sqlite(tmp_path))["requests"] == 100
    assert not list(tmp_path.glob("*.journal"))
    counting.record(ended())  # after the end: nothing breaks


async def test_only_what_an_engine_worked_on_is_charged(tmp_path: Path) -> None:
    counting = new_ledger(tmp_path)
    counting.start()
    counting.record(ended())
    counting.record(ended(ttft_ms=None))
    counting.record(ended(cache_hit=True))
    counting.record(ended(model="free"))
    counting.record(ended(usd=7.0))
    await counting.close()
    found = sums(in_sqlite(tmp_path))
    assert (found["requests"], found["cache_hits"]) == (5, 1)
    assert (found["prompt_tokens"], found["cached_tokens"]) == (300, 120)
    assert (found["completion_tokens"], found["reasoning_tokens"]) == (30, 9)
    assert found["usd"] == pytest.approx((60 + 20 + 20) / 1e6 + 7.0)


async def test_work_that_is_done_again_is_counted_once(tmp_path: Path) -> None:
    for _ in range(2):
        counting = new_ledger(tmp_path)
        counting.start()
        line = ended()
        object.__setattr__(line, "id", "batch_1-7")
        counting.record(line)
        await counting.close()
    assert sums(in_sqlite(tmp_path))["requests"] == 1


async def test_a_full_disk_is_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_PENDING", 50)
    full = threading.Event()
    tried = threading.Event()
    write = journal.write_all

    def write_if_free(file: int, data: bytes) -> None:
        if full.is_set():
            tried.set()
            raise OSError(28, "No space left on device")
        write(file, data)

    monkeypatch.setattr(journal, "write_all", write_if_free)
    counting = new_ledger(tmp_path)
    counting.start()
    full.set()
    for number in range(30):
        counting.record(ended(number))
    wait_for(tried.is_set)
    assert counting.dropped == 0
    for _ in range(3):
        tried.clear()
        for number in range(40):
            counting.record(ended(number))
        wait_for(tried.is_set)
    full.clear()
    await counting.close()
    assert counting.recorded == 150
    assert sums(in_sqlite(tmp_path))["requests"] == 150 - counting.dropped
    assert 50 <= counting.dropped <= 100


class Stuck:
    """A database that hangs, as fault injector."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.called = threading.Event()

    def prepare(self) -> None:
        pass

    def add(self, payloads: Sequence[bytes]) -> None:
        self.called.set()
        self.release.wait(60)
        raise StoreUnavailable("gone")

    def purge(self, records_before: str, days_before: str) -> None:
        pass

    def report(self, query: Any) -> list[dict[str, Any]]:
        raise StoreUnavailable("gone")

    def close(self) -> None:
        pass


async def test_a_database_that_hangs_holds_up_nobody_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "CLOSE_WITHIN_S", 0.1)
    stuck = Stuck()
    counting = new_ledger(tmp_path, lambda _: stuck)
    counting.start()
    counting.record(ended(0))
    wait_for(stuck.called.is_set)
    for number in range(1, 20):
        counting.record(ended(number))
    with pytest.raises(StorageUnavailable):
        await counting.report(read_query("day", None, None))
    with monkeypatch.context() as patience:
        patience.setattr(ledger, "CLOSE_WITHIN_S", 0.1)
        await counting.close()
    assert len(list(tmp_path.glob("*.journal"))) == 1
    stuck.release.set()
    again = new_ledger(tmp_path)
    again.start()
    shipped = in_sqlite(tmp_path)
    wait_for(lambda: [row["requests"] for row in shipped.report(EVERYTHING)] == [20])
    await again.close()
    assert not list(tmp_path.glob("*.journal"))


async def test_without_a_folder_a_temporary_one_does(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    counting = new_ledger(tmp_path / "file" / "usage")
    counting.start()
    counting.record(ended())
    assert counting.journal is not None
    folder = counting.journal.folder
    wait_for(lambda: (folder / "usage.sqlite3").exists())
    await counting.close()
    assert not folder.exists()


async def test_a_ledger_that_is_off_does_nothing(tmp_path: Path) -> None:
    counting = new_ledger(tmp_path, enabled=False)
    counting.start()
    counting.record(ended())
    with pytest.raises(Conflict):
        await counting.report(read_query("day", None, None))
    await counting.close()
    assert counting.recorded == 0
    assert list(tmp_path.iterdir()) == []
