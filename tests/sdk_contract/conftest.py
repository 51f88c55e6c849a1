"""The endpoints' own tests, pointed at a gateway with a real vLLM in it.

The tests of tests/gateway that speak to the bundled model ask ``shared_server`` for a server
on the ONNX engine. Here that is one server on vLLM with the same weights under the same names,
so what they assert of one engine is asserted of the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import NewServer, ServerProcess

from engine.models.find import BundledModel
from engine.vllm.compat import installed_version

sys.path.append(str(Path(__file__).parents[1] / "node"))  # test_node_sdk lives there

pytest.register_assert_rewrite("vllm_server", "test_node_sdk")
RUNNING: list[ServerProcess] = []
# As in tests/vllm: models this small are fastest on one thread.
QUIET_VLLM = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"on_vllm", "pooling_server"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Leave the memory to the tests of other folders."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        for server in RUNNING:
            server.kill()


@pytest.fixture(scope="session")
def on_vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The bundled model on vLLM under its usual names."""
    if installed_version() is None:
        pytest.skip("vLLM is not installed")
    from vllm_server import VllmServer

    folder = tmp_path_factory.mktemp("on-vllm")
    names = {"SERVED_MODEL_NAME": "tiny-chat,bundled"}
    server = VllmServer(folder, BundledModel().checkpoint, **names, **QUIET_VLLM)
    RUNNING.append(server)
    try:
        server.wait_started()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def pooling_server(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The module's ``bert`` on vLLM under the name ``embedder``."""
    if installed_version() is None:
        pytest.skip("vLLM is not installed")
    from vllm_server import VllmServer

    settings = {"SERVED_MODEL_NAME": "embedder", "MAX_MODEL_LEN": "96"}
    server = VllmServer(tmp_path_factory.mktemp("pooling"), bert, **settings, **QUIET_VLLM)
    try:
        server.wait_started()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def on_onnx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The bundled model on the ONNX engine."""
    server = ServerProcess(tmp_path_factory.mktemp("on-onnx"), ENGINE="onnx", MAX_NUM_SEQS="4")
    RUNNING.append(server)
    try:
        yield server.wait_ready()
    finally:
        server.kill()


@pytest.fixture(scope="session")
def shared_server(on_vllm: ServerProcess) -> NewServer:
    """Gives the one server to whoever asks for the bundled model, whatever size of batch."""

    def get(**settings: str) -> ServerProcess:
        assert settings.pop("ENGINE") == "onnx"
        assert settings.keys() <= {"MAX_NUM_SEQS"}
        return on_vllm

    return get
