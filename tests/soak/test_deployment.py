"""Two gateways that share Redis and PostgreSQL, under load from the SDK, while both are killed
and started again: limits hold, and the ledger says what the clients say.

One round of it takes seconds and is part of the suite; SOAK_S=3600 goes on for an hour.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import openai
from ledger_load import MESSAGES, Load
from ledger_postgres import Postgres
from limit_tools import RedisServer
from server_process import ServerProcess

from gateway.control.auth import principal_of

SOAK_S = float(os.environ.get("SOAK_S", "0"))
PATIENCE_S = 120.0
FREE, BOUND, UPSTREAM = (
    "key-without-limits-0123",
    "key-with-a-limit-012345",
    "key-of-the-upstream-012",
)
LIMIT = 48
GATEWAYS = 2
# What may lie idle in leases while others are refused.
IDLE = GATEWAYS * (LIMIT // (8 * GATEWAYS))
MODELS = """
models:
- name: bundled
  policy: weighted
  targets:
  - {engine: fake, engine_options: {text: "A few words are enough."}, name: here}
  - {base_url: "@url@/v1", kind: gateway, model: up, api_key: "${UPSTREAM_KEY}", name: there}
"""


class Leaver:
    """A client that always leaves within its streams."""

    def __init__(self, url: str, name: str) -> None:
        self.left: list[str] = []
        self._url, self._name = url, name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with openai.OpenAI(base_url=f"{self._url}/v1", api_key=FREE, max_retries=0) as client:
            for number in itertools.count():
                if self._stop.wait(0.05):
                    return
                name = f"{self._name}-{number}"
                stream = client.chat.completions.create(
                    model="bundled",
                    messages=MESSAGES,
                    stream=True,
                    extra_body={"ignore_eos": True, "max_tokens": 2000},
                    extra_headers={"x-request-id": name},
                )
                next(iter(stream))
                stream.close()
                self.left.append(name)


def test_limits_and_ledger_hold_whatever_is_killed(
    tmp_path: Path, redis: RedisServer, postgres: Postgres, servers: list[ServerProcess]
) -> None:
    began = time.monotonic()
    days = {today()}
    postgres.run("CREATE DATABASE usage")
    upstream = gateway(tmp_path, servers, "up", SERVED_MODEL_NAME="up", API_KEYS=UPSTREAM)
    shared = {
        "API_KEYS": f"{FREE},{BOUND}",
        "LIMITS": json.dumps({"keys": {id_of(BOUND): {"requests_per_day": LIMIT}}}),
        "REDIS_URL": redis.url,
        "REDIS_TIMEOUT_S": "1",
        "LIMITS_REPLICAS": str(GATEWAYS),
        "USAGE_DATABASE_URL": postgres.url("usage"),
        "UPSTREAM_KEY": UPSTREAM,
    }
    fronts = [
        gateway(tmp_path, servers, f"front{n}", MODELS.replace("@url@", upstream.url), **shared)
        for n in range(GATEWAYS)
    ]
    for front in fronts:
        wait_for(lambda f=front: f.metric("gateway_redis_up") == 1, "Redis")  # type: ignore[misc]
    free = [Load(f.url, FREE, f"free{n}", threads=2) for n, f in enumerate(fronts)]
    bound = [Load(f.url, BOUND, f"bound{n}", threads=1) for n, f in enumerate(fronts)]
    leavers = [Leaver(f.url, f"left{n}") for n, f in enumerate(fronts)]
    try:
        wait_for(lambda: refused(bound) > 20, "the limit to be reached")
        days.add(today())
        assert LIMIT - IDLE <= granted(bound) <= LIMIT * len(days)
        warm: list[tuple[int, float]] = []
        while not warm or time.monotonic() - began < SOAK_S:
            one_round(redis, postgres, fronts, free)
            days.add(today())
            # Without Redis, what was used before and each gateway's share once more.
            assert granted(bound) <= 2 * LIMIT * len(days)
            warm = warm or [weight(front) for front in fronts]
    finally:
        for client in (*free, *bound, *leavers):
            client.stop()
    for front, (files, resident_mb) in zip(fronts, warm, strict=True):
        wait_for(lambda f=front: f.metric("gateway_requests_in_flight") == 0, "the last request")  # type: ignore[misc]
        left = {k: v for k, v in front.metrics().items() if "requests_outstanding" in k}
        assert set(left.values()) == {0}
        assert weight(front)[0] < files + 20, "files or connections are left open"
        if SOAK_S >= 600:
            assert weight(front)[1] < 1.1 * resident_mb + 10
    check_ledger(postgres, [*free, *bound], leavers)
    for front in fronts:
        front.signal()
        assert front.wait_exit() == 0
    check_ledger(postgres, [*free, *bound], leavers)


def one_round(
    redis: RedisServer, postgres: Postgres, fronts: list[ServerProcess], free: list[Load]
) -> None:
    """Kill and start each of the two, with clients that are answered all the while."""
    redis.kill()
    go_on(free)
    redis.start()
    postgres.kill()
    go_on(free)
    for front in fronts:
        wait_for(lambda f=front: f.metric("gateway_redis_up") == 1, "Redis again")  # type: ignore[misc]
    redis.kill()
    go_on(free)
    postgres.start()
    redis.start()
    for front in fronts:
        for name in ("gateway_redis_up", "gateway_usage_database_up"):
            wait_for(lambda f=front, n=name: f.metric(n) == 1, name)  # type: ignore[misc]


def check_ledger(postgres: Postgres, loads: list[Load], leavers: list[Leaver]) -> None:
    """Every request of every client once, as it ended for the client, and nothing else."""
    ended = {200: "completed", 429: "shed"}
    answered = [(one.request_id, ended[one.status]) for load in loads for one in load.answered]
    assert sum(load.unanswered for load in loads) == 0
    left = [name for leaver in leavers for name in leaver.left]
    count = len(answered) + len(left)

    def rows() -> list[tuple[str, str]]:
        return postgres.run("SELECT request_id, outcome FROM usage_records", "usage")  # type: ignore[return-value]

    wait_for(lambda: len(rows()) >= count, "the ledger to have everything")
    found = Counter(rows())
    assert Counter({row: n for row, n in found.items() if row[0] not in left}) == Counter(answered)
    gone = Counter({row: n for row, n in found.items() if row[0] in left})
    assert sorted(name for name, _ in gone.elements()) == sorted(left)
    assert {outcome for _, outcome in gone} <= {"cancelled", "completed"}
    tokens = postgres.run(
        "SELECT sum(prompt_tokens), sum(completion_tokens) FROM usage_records "
        "WHERE request_id LIKE 'free%' OR request_id LIKE 'bound%'",
        "usage",
    )
    own = [one for load in loads for one in load.answered]
    assert tokens == [(sum(o.prompt_tokens for o in own), sum(o.completion_tokens for o in own))]


def gateway(
    tmp_path: Path, servers: list[ServerProcess], name: str, models: str = "", **settings: str
) -> ServerProcess:
    folder = tmp_path / name
    folder.mkdir()
    if models:
        (folder / "gateway.yaml").write_text(models)
        settings["CONFIG_FILE"] = "gateway.yaml"
    server = ServerProcess(folder, LOG_LEVEL="warning", **settings)
    servers.append(server)
    return server.wait_ready()


def go_on(loads: list[Load]) -> None:
    """All clients are answered some more."""
    before = [len(load.answered) for load in loads]
    for load, count in zip(loads, before, strict=True):
        load.wait_for(count + 20, PATIENCE_S)


def granted(loads: list[Load]) -> int:
    return sum(one.status == 200 for load in loads for one in list(load.answered))


def refused(loads: list[Load]) -> int:
    return sum(one.status == 429 for load in loads for one in list(load.answered))


def weight(server: ServerProcess) -> tuple[int, float]:
    """Open files, and resident memory in MB."""
    process = Path(f"/proc/{server.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    return len(list((process / "fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.02)


def id_of(key: str) -> str:
    return principal_of(hashlib.sha256(key.encode()).digest()).id
