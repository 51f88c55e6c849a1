"""Servers for the tests of limits: the gateway as a user starts it, and a real Redis."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# The helper that starts a server is that of the gateway's own tests.
from limit_tools import RedisServer
from server_process import ServerProcess


@pytest.fixture
def same_day() -> None:
    """Begin no test of days when this one is about to end."""
    left_s = 86_400 - time.time() % 86_400
    if left_s < 180:
        time.sleep(left_s + 1)


@pytest.fixture
def redis(same_day: None) -> Iterator[RedisServer]:
    """A Redis of the test's own, running."""
    if RedisServer.binary is None:
        pytest.skip("redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.kill()


@pytest.fixture
def servers(same_day: None, tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Gateways that are ended with the test."""
    started: list[ServerProcess] = []
    yield started
    for server in started:
        server.kill()
