"""One real server for the folder, and one that breaks in every way a test asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from bench_calls import ITL_S, KEY, TTFT_S
from faulty_server import FaultyServer
from server_process import ServerProcess


@pytest.fixture(scope="session")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real server whose times to first and between tokens are known; it wants a key."""
    folder = tmp_path_factory.mktemp("timed")
    options = {"ttft_s": TTFT_S, "itl_s": ITL_S}
    server = ServerProcess(folder, options=options, API_KEYS=KEY)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


@pytest.fixture
def faulty() -> Iterator[FaultyServer]:
    """A server that does what the name of the model says."""
    with FaultyServer() as server:
        yield server
