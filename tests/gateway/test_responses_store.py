"""The store below the Responses API: bounds, tenants, crashes, and a database that misbehaves."""

import asyncio
import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StorageUnavailable
from gateway.protocol.response_items import new_message
from gateway.store.instance import Instance
from gateway.store.responses import Bounds, Record, ResponseStore
from gateway.store.sqlite import MOST_PENDING, Database, split_script

ROOMY = Bounds(count=1000, bytes=10**9, total_bytes=10**9, age_s=3600)


def record(
    name: str, *, size: int = 0, status: str = "completed", previous: str | None = None
) -> Record:
    body: dict[str, Any] = {
        "id": name,
        "status": status,
        "background": True,
        "previous_response_id": previous,
        "output": [
            new_message("assistant", [{"type": "output_text", "text": "x" * size}], f"out_{name}")
        ],
    }
    return Record(body, [new_message("user", [{"type": "input_text", "text": name}], f"in_{name}")])


async def stored(store: ResponseStore, tenant: str, *names: str) -> list[str]:
    return [name for name in names if await store.get(tenant, name) is not None]


async def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, Bounds(3, 10**9, 10**9, 3600))
    for name in "abc":
        assert await store.put("t", record(name))
    assert await stored(store, "t", "a")  # used again
    await store.put("t", record("d"))
    assert await stored(store, "t", "a", "b", "c", "d") == ["a", "c", "d"]
    await store.put("other", record("e"))
    assert await stored(store, "t", "a", "c", "d") == ["a", "c", "d"]
    assert await store.get("t", "e") is None
    await store.close()


async def test_bytes_are_bounded_per_tenant_and_in_total(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, Bounds(1000, 30_000, 50_000, 3600))
    assert not await store.put("t", record("huge", size=40_000))
    for number in range(20):
        assert await store.put("t", record(f"t{number}", size=8000))
    kept = await stored(store, "t", *(f"t{number}" for number in range(20)))
    assert kept == ["t17", "t18", "t19"]
    for tenant in "uvw":
        for number in range(3):
            await store.put(tenant, record(f"{tenant}{number}", size=8000))
    await store.close()
    with sqlite3.connect(tmp_path / "responses.sqlite") as db:
        (total,) = db.execute("SELECT SUM(size) FROM responses").fetchone()
        counted = db.execute("SELECT SUM(count), SUM(bytes) FROM tenants").fetchone()
        items = db.execute("SELECT COUNT(*) FROM items").fetchone()[0]
    (rows,) = db.execute("SELECT COUNT(*) FROM responses").fetchone()
    db.close()
    assert total <= 50_000
    assert counted == (rows, total)
    assert items == 2 * rows


async def test_what_is_running_is_not_evicted(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, Bounds(2, 10**9, 10**9, 3600))
    await store.put("t", record("running", status="queued"))
    for name in "abcd":
        await store.put("t", record(name))
    assert await stored(store, "t", "running", "c", "d") == ["running", "d"]
    assert await store.finish("t", record("running"))
    assert not await store.finish("t", record("running"))
    assert not await store.finish("t", record("never"))
    await store.close()


async def test_age_counts_from_the_last_use(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, Bounds(100, 10**9, 10**9, 2.0))
    await store.put("t", record("used"))
    await store.put("t", record("unused"))
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        assert await stored(store, "t", "used")
        await asyncio.sleep(0.2)
    assert await stored(store, "t", "used", "unused") == ["used"]
    await store.close()


async def test_a_chain_is_read_within_bounds(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, ROOMY)
    for number in range(10):
        previous = f"r{number - 1}" if number else None
        await store.put("t", record(f"r{number}", size=1000, previous=previous))
    whole = await store.chain("t", "r9", 100, 10**6)
    assert [found.id for found in whole] == [f"r{number}" for number in range(10)]
    assert len(await store.chain("t", "r9", 4, 10**6)) == 5
    assert len(await store.chain("t", "r9", 100, 3000)) == 2
    assert await store.chain("u", "r9", 100, 10**6) == []
    assert await store.delete("t", "r4")
    broken = await store.chain("t", "r9", 100, 10**6)
    assert [found.id for found in broken] == ["r5", "r6", "r7", "r8", "r9"]
    assert broken[0].body["previous_response_id"] == "r4"
    await store.close()


async def test_items_are_found_by_id_and_go_with_their_response(tmp_path: Path) -> None:
    store = ResponseStore(tmp_path, ROOMY)
    await store.put("t", record("a"))
    found = await store.items("t", {"in_a", "out_a", "none"})
    assert set(found) == {"in_a", "out_a"}
    assert await store.items("u", {"in_a"}) == {}
    await store.delete("t", "a")
    assert await store.items("t", {"in_a"}) == {}
    await store.close()


async def test_orphans_fail_and_the_living_do_not(tmp_path: Path) -> None:
    first = ResponseStore(tmp_path, ROOMY)
    await first.put("t", record("a", status="in_progress"))
    second = ResponseStore(tmp_path, ROOMY)
    found = await second.get("t", "a")
    assert found is not None
    assert found.running
    await first.close()  # its lock is gone, as it would be after a crash
    found = await second.get("t", "a")
    assert found is not None
    assert found.body["status"] == "failed"
    assert found.body["error"]["code"] == "server_error"
    assert not await second.finish("t", record("a"))
    await second.close()


async def test_a_foreign_or_damaged_file_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = b"this is no database at all" * 100
    (tmp_path / "responses.sqlite").write_bytes(damaged)
    store = ResponseStore(tmp_path, ROOMY)
    with caplog.at_level(logging.WARNING, "gateway.store"):
        await store.put("t", record("a"))
        assert await stored(store, "t", "a") == ["a"]
    assert [entry.levelname for entry in caplog.records] == ["WARNING"]
    await store.close()
    assert (tmp_path / "responses.sqlite").read_bytes() == damaged


async def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    old = Database(tmp_path / "x.sqlite", ["CREATE TABLE a (b);", "CREATE TABLE c (d);"])
    await old.run(lambda db: db.execute("INSERT INTO a VALUES (1)"))
    await old.close()
    older = Database(tmp_path / "x.sqlite", ["CREATE TABLE a (b);"])
    assert await older.run(lambda db: db.execute("SELECT * FROM a").fetchall()) == []
    assert older.in_memory
    await older.close()
    newer = Database(
        tmp_path / "x.sqlite",
        ["CREATE TABLE a (b);", "CREATE TABLE c (d);", "ALTER TABLE a ADD COLUMN e;"],
    )
    assert await newer.run(lambda db: db.execute("SELECT * FROM a").fetchall()) == [(1, None)]
    assert not newer.in_memory
    await newer.close()


async def test_a_failed_migration_leaves_nothing_behind(tmp_path: Path) -> None:
    bad = Database(tmp_path / "x.sqlite", ["CREATE TABLE a (b);\nCREATE TABLE a (b);"])
    with pytest.raises(StorageUnavailable):
        await bad.run(lambda db: None)
    await bad.close()
    good = Database(tmp_path / "x.sqlite", ["CREATE TABLE a (b);"])
    assert await good.run(lambda db: db.execute("SELECT * FROM a").fetchall()) == []
    assert not good.in_memory
    await good.close()


async def test_transactions_are_whole_and_off_the_loop(tmp_path: Path) -> None:
    database = Database(tmp_path / "x.sqlite", ["CREATE TABLE a (b);"])
    threads: set[str] = set()

    def fail(db: sqlite3.Connection) -> None:
        threads.add(threading.current_thread().name)
        db.execute("INSERT INTO a VALUES (1)")
        raise ValueError("after the insert")

    with pytest.raises(ValueError, match="after the insert"):
        await database.run(fail)
    assert await database.run(lambda db: db.execute("SELECT * FROM a").fetchall()) == []
    assert threads
    assert threading.current_thread().name not in threads
    with pytest.raises(StorageUnavailable):
        await database.run(lambda db: db.execute("SELECT * FROM missing"))
    await database.close()
    await database.close()
    with pytest.raises(StorageUnavailable):
        await database.run(lambda db: None)


async def test_slow_work_is_waited_for_so_long_and_not_piled_up() -> None:
    database = Database(None, [])
    release = threading.Event()
    slow = asyncio.create_task(database.run(lambda db: release.wait(60)))
    await asyncio.sleep(0)
    began = time.monotonic()
    with pytest.raises(StorageUnavailable):
        await database.run(lambda db: None, timeout_s=0.05)
    assert time.monotonic() - began < 30
    waiting = [asyncio.create_task(database.run(lambda db: 1)) for _ in range(MOST_PENDING - 1)]
    await asyncio.sleep(0)
    with pytest.raises(StorageUnavailable):
        await database.run(lambda db: None)
    release.set()
    assert await slow
    assert await asyncio.gather(*waiting) == [1] * len(waiting)
    assert await database.run(lambda db: 2) == 2
    await database.close()


def test_instances_are_told_apart_by_locks(tmp_path: Path) -> None:
    first, second = Instance(tmp_path / "locks"), Instance(tmp_path / "locks")
    first.hold()
    assert first.alive(first.id)
    assert second.alive(first.id)
    assert not first.alive(second.id)
    assert not first.alive("../../etc/passwd")
    first.release()
    assert not second.alive(first.id)
    assert list((tmp_path / "locks").iterdir()) == []


def test_scripts_are_split_at_statements() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n SELECT 1;\n SELECT 2;\nEND;\n"
    assert split_script(f"CREATE TABLE a (b);\n{trigger}") == ["CREATE TABLE a (b);\n", trigger]
    with pytest.raises(ValueError, match="middle"):
        split_script("CREATE TABLE a (")
