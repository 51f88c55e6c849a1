"""Databases and servers for the tests of accounting."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_postgres import Postgres, find_binaries

# The server process of the gateway's own tests.
from server_process import NewServer, ServerProcess

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL for all tests; each takes a database of its own."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Postgres(binaries)
    yield server
    server.stop()


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The name of a new, empty database."""
    name = f"usage{next(_numbers)}"
    postgres.run(f"CREATE DATABASE {name}")
    return name


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    """A ready server with its own folder, or with that of an earlier one."""
    started: list[ServerProcess] = []

    def start(*, options: dict[str, Any] | None = None, **settings: str) -> ServerProcess:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        settings = {"LOG_LEVEL": "warning", **settings}
        server = ServerProcess(folder, options=options, **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()
