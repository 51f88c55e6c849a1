"""Servers for the tests of admission, started as those of the gateway's tests are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Behind this folder, so that its own modules are found first.
from server_process import NewServer, ServerProcess


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    """A ready server of the test's own."""
    started: list[ServerProcess] = []

    def start(*, options: dict[str, Any] | None = None, **settings: str) -> ServerProcess:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        server = ServerProcess(folder, options=options, **settings)
        started.append(server)
        return server.wait_ready()

    yield start
    for server in started:
        server.kill()
