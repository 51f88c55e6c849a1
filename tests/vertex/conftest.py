"""A fresh emulated cloud per test, specs for it, and one container that is shared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prober_container import ADMIN_KEY, ContainerProber, start_container
from server_process import SENTENCE, ServerProcess
from vertex_emulator import Emulator
from vertex_specs import Workbench


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator() as cloud:
        monkeypatch.setenv("VERTEX_API_ENDPOINT", cloud.url)
        yield cloud


@pytest.fixture
def bench(emulator: Emulator, tmp_path) -> Iterator[Workbench]:
    with Workbench(emulator, tmp_path) as bench:
        yield bench


@pytest.fixture(scope="session")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A gateway as Vertex AI starts it, ready, which answers SENTENCE; its callers came by IAM."""
    folder = tmp_path_factory.mktemp("container")
    server = start_container(folder, options={"text": SENTENCE}, ADMIN_KEYS=ADMIN_KEY)
    try:
        ContainerProber(server).wait_routed()
        yield server
    finally:
        server.kill()
