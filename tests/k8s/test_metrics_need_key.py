"""METRICS_NEED_KEY=false opens /metrics to scrapers without a key, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from server_process import ServerProcess

from gateway.control.identity.access import ROUTES
from gateway.http.edge import OPEN_PATHS

KEY = "a-key-of-some-length"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("open")
    started = ServerProcess(folder, API_KEYS=KEY, METRICS_NEED_KEY="false", PLAYGROUND="false")
    yield started.wait_ready()
    started.kill()


def test_metrics_are_open(server: ServerProcess) -> None:
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    assert "vllm:num_requests_waiting{" in answer.text


def test_everything_else_needs_a_key(server: ServerProcess) -> None:
    closed = {(path, method) for path, method in ROUTES if path not in OPEN_PATHS | {"/metrics"}}
    with httpx.Client(base_url=server.url) as client:
        for path, method in closed:
            assert client.request(method, path).status_code == 401, (method, path)
