"""The servers of a small deployment: Redis, PostgreSQL, and gateways as users start them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).parents[1] / name) for name in ("gateway", "limits", "ledger"))

from ledger_postgres import Postgres, find_binaries
from limit_tools import RedisServer
from server_process import ServerProcess


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    if RedisServer.binary is None:
        pytest.skip("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Postgres(binaries)
    yield server
    server.stop()


@pytest.fixture
def servers() -> Iterator[list[ServerProcess]]:
    """Gateways that end with the test."""
    started: list[ServerProcess] = []
    yield started
    for server in started:
        server.kill()
