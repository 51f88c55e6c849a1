"""Servers for the tests: shared where a test leaves no trace, fresh where it does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from server_process import SENTENCE, NewServer, ServerProcess, info_with

from engine.base import ModelInfo


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewServer]:
    """A ready server with these settings, started once for all tests that ask for the same."""
    running: dict[str, ServerProcess] = {}

    def get(*, options: dict[str, Any] | None = None, **settings: str) -> ServerProcess:
        key = json.dumps([options, settings], sort_keys=True)
        server = running.get(key)
        if server is None or server.process.poll() is not None:
            folder = tmp_path_factory.mktemp("server")
            server = running[key] = ServerProcess(folder, options=options, **settings)
        return server.wait_ready()

    yield get
    for server in running.values():
        server.kill()


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[NewServer]:
    """A server of the test's own, not waited for."""
    started: list[ServerProcess] = []

    def start(*, options: dict[str, Any] | None = None, **settings: str) -> ServerProcess:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        server = ServerProcess(folder, options=options, **settings)
        started.append(server)
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def server(shared_server: NewServer) -> ServerProcess:
    """A fast fake model that answers a fixed sentence."""
    return shared_server(options={"text": SENTENCE})


@pytest.fixture
def client(server: ServerProcess) -> openai.OpenAI:
    """The OpenAI SDK, pointed at ``server``."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def fake_info() -> ModelInfo:
    """What an engine tells of a small model."""
    return info_with()
