"""Both databases: a record counts once however often it comes, and sums are those of records."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from ledger_postgres import Postgres
from typer.testing import CliRunner

from gateway.cli import app
from gateway.control.ledger.journal import Journal
from gateway.control.ledger.record import FIELDS, Entry
from gateway.control.ledger.report import SUMS, QueryError, as_csv, read_query
from gateway.control.ledger.shipper import Shipper
from gateway.control.ledger.sqlite_store import SqliteStore
from gateway.control.ledger.store import RecordRefused, Store

NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z
DAY_S = 86_400

NewStore = Callable[[], Store]


@pytest.fixture(params=["sqlite", "postgres"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewStore]:
    """Makes stores of one and the same database."""
    made: list[Store] = []
    if request.param == "postgres":
        from gateway.control.ledger.postgres_store import PostgresStore

        server: Postgres = request.getfixturevalue("postgres")
        url = server.url(request.getfixturevalue("database"))

        def new() -> Store:
            made.append(PostgresStore(url))
            return made[-1]
    else:

        def new() -> Store:
            made.append(SqliteStore(tmp_path / "usage" / "usage.sqlite3"))
            return made[-1]

    yield new
    for store in made:
        store.close()


def record(number: int, **fields: Any) -> bytes:
    entry = Entry(
        id=f"r-{number}",
        at=NOON,
        source="http",
        key_id="key_a",
        organisation="acme",
        project="search",
        route="/v1/chat/completions",
        model="m",
        target="m/0",
        outcome="completed",
        status=200,
        error_code=None,
        prompt_tokens=10,
        cached_tokens=4,
        completion_tokens=5,
        reasoning_tokens=2,
        usd=0.25,
        priced="2026-11-01",
        queue_ms=None,
        engine_queue_ms=1.5,
        ttft_ms=20.0,
        total_ms=90.5,
        degraded=None,
        stream=True,
        cache_hit=False,
        request_id=f"req_{number}",
    )._replace(**fields)
    return orjson.dumps(dict(zip(FIELDS, entry, strict=True)))


def asked(store: Store, by: str = "", first: str = "2026-11-01", **only: str) -> list[Any]:
    return store.report(read_query(by, first, "2026-11-30", dict(only)))


def test_a_record_counts_once(new_store: NewStore) -> None:
    store = new_store()
    store.add([record(n) for n in range(10)])
    store.add([record(n) for n in range(5, 15)])
    store.add([record(3), record(3), record(20), record(20)])
    (row,) = asked(store)
    assert row == {
        **dict.fromkeys(SUMS, 0),
        "requests": 16,
        "completed": 16,
        "prompt_tokens": 160,
        "cached_tokens": 64,
        "completion_tokens": 80,
        "reasoning_tokens": 32,
        "usd": 4.0,
    }


def test_sums_by_everything_that_can_be_asked_for(new_store: NewStore) -> None:
    store = new_store()
    store.add(
        [
            record(1),
            record(2, at=NOON + DAY_S, outcome="cancelled", status=None),
            record(3, key_id="key_b", project="ads", outcome="failed", status=500),
            record(4, model="", outcome="rejected", status=404, prompt_tokens=0),
            record(5, outcome="shed", status=503, route="/v1/embeddings"),
            record(6, cache_hit=True, usd=0.0),
        ]
    )
    (everything,) = asked(store)
    assert [everything[name] for name in SUMS[:7]] == [6, 2, 1, 1, 1, 1, 1]
    assert [(r["day"], r["requests"]) for r in asked(store, "day")] == [
        ("2026-11-21", 5),
        ("2026-11-22", 1),
    ]
    assert [(r["key"], r["requests"]) for r in asked(store, "key")] == [("key_a", 5), ("key_b", 1)]
    tenants = [(r["organisation"], r["project"], r["requests"]) for r in asked(store, "tenant")]
    assert tenants == [("acme", "ads", 1), ("acme", "search", 5)]
    by_both = [(r["model"], r["route"], r["requests"]) for r in asked(store, "model,route")]
    assert by_both == [
        ("", "/v1/chat/completions", 1),
        ("m", "/v1/chat/completions", 4),
        ("m", "/v1/embeddings", 1),
    ]
    assert asked(store, project="ads")[0]["requests"] == 1
    assert asked(store, key="key_a", model="m")[0]["requests"] == 4
    assert asked(store, first="2026-11-22")[0]["requests"] == 1
    assert asked(store, project="nobody")[0]["requests"] == 0


def test_gateways_that_insert_at_once_never_count_twice(new_store: NewStore) -> None:
    """Four at a time, each with what the next one has as well, in another order."""
    new_store().prepare()
    faults: list[BaseException] = []

    def insert(start: int) -> None:
        try:
            store = new_store()
            for begin in range(start, start + 100, 10):
                batch = [record(n, key_id=f"key_{n % 7}") for n in range(begin, begin + 20)]
                store.add(batch[:: -1 if start % 100 else 1])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=insert, args=(start,)) for start in (0, 50, 100, 150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults
    (row,) = asked(new_store())
    assert row["requests"] == 260
    assert row["prompt_tokens"] == 2600
    assert sum(row["requests"] for row in asked(new_store(), "key")) == 260


def test_old_records_go_and_old_days_later(new_store: NewStore) -> None:
    store = new_store()
    store.add([record(n, at=NOON - n * DAY_S) for n in range(10)])
    store.purge("2026-11-19", "2026-11-15")
    assert [row["day"] for row in asked(store, "day")] == [f"2026-11-{n}" for n in range(15, 22)]
    # What is still there is known; it would count again only once its record has gone.
    store.add([record(n, at=NOON - n * DAY_S) for n in range(3)])
    assert asked(store)[0]["requests"] == 7


def test_a_record_that_is_refused_does_not_hold_up_the_others(
    new_store: NewStore, tmp_path: Path
) -> None:
    bad = record(5).replace(b'"key_id":"key_a"', b'"key_id":null')
    with pytest.raises(RecordRefused):
        new_store().add([record(1), bad])
    assert asked(new_store())[0]["requests"] == 0
    journal = Journal(tmp_path / "journal", 64 * 1024 * 1024)
    journal.open()
    journal.append([record(n) for n in range(5)] + [bad] + [record(n) for n in range(6, 11)])
    shipper = Shipper(journal, new_store(), (90, 1100))
    shipper.start()
    deadline = time.monotonic() + 60
    while journal.waiting:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shipper.stop(60)
    assert shipper.refused == 1
    assert asked(new_store())[0]["requests"] == 10
    journal.close()


def test_a_store_can_be_opened_again(new_store: NewStore) -> None:
    new_store().add([record(1)])
    again = new_store()
    again.prepare()
    again.add([record(1), record(2)])
    assert asked(again)[0]["requests"] == 2


def test_questions_that_cannot_be_answered_say_why() -> None:
    for by, first, last, field in (
        ("day,nothing", None, None, "by"),
        ("day", "2026-13-01", None, "from"),
        ("day", None, "yesterday", "to"),
        ("day", "2026-11-02", "2026-11-01", "from"),
    ):
        with pytest.raises(QueryError) as raised:
            read_query(by, first, last)
        assert raised.value.field == field


def test_the_command_says_what_is_wrong(tmp_path: Path) -> None:
    where = {"DATA_DIR": str(tmp_path / "data")}
    for options, told in (
        (["--by", "size"], "--by: 'size' is unknown; there are day, key"),
        (["--from", "today"], "--from: it must be a day as YYYY-MM-DD"),
        (["--json", "--csv"], "--json and --csv cannot be combined"),
    ):
        done = CliRunner().invoke(app, ["usage", *options], env=where)
        assert (done.exit_code, told in done.stderr) == (1, True), done.stderr
    done = CliRunner().invoke(app, ["usage", "--to", "2026-11-30"], env=where)
    assert done.exit_code == 0
    assert "nothing was recorded from 2026-11-01 to 2026-11-30" in done.stderr
    assert not (tmp_path / "data").exists()


def test_csv_has_a_header_and_no_formulas() -> None:
    query = read_query("key", "2026-11-01", "2026-11-02")
    row = {"key": "=cmd()", **dict.fromkeys(SUMS, 1), "usd": 0.5}
    header, line, *rest = as_csv(query, [row]).splitlines()
    assert header == ",".join(query.names)
    assert line == "'=cmd()," + "1," * len(SUMS) + "0.5"
    assert rest == []
