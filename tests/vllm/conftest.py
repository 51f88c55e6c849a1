"""A real vLLM on the CPU, started once per session and shared."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import vllm_tiny as tiny
from vllm_helpers import config

from engine.models.find import BundledModel
from engine.vllm.compat import installed_version
from engine.vllm.engine import VllmEngine

HERE = Path(__file__).parent
pytest.register_assert_rewrite("vllm_server")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            # vLLM and torch warn of their own deprecations.
            item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(scope="session", autouse=True)
def quiet_vllm() -> Iterator[None]:
    """Settings of vLLM that exist as environment variables only."""
    before = dict(os.environ)
    os.environ |= {
        "VLLM_LOGGING_LEVEL": "WARNING",
        # Models this small are fastest on one thread, above all on a busy machine.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> Path:
    """The bundled model where it is there, a random one otherwise."""
    bundled = BundledModel().checkpoint
    complete = (bundled / "config.json").exists() and (bundled / "model.safetensors").exists()
    return bundled if complete else tiny_model


@pytest.fixture(scope="session")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_adapter(tmp_path_factory.mktemp("adapters") / "loud", model)


@pytest.fixture(scope="session")
def needs_vllm() -> None:
    if installed_version() is None:
        pytest.skip("vLLM is not installed")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def engine(model: Path, adapter: Path) -> AsyncIterator[VllmEngine]:
    """The shared engine; tests leave it idle."""
    if installed_version() is None:
        pytest.skip("vLLM is not installed")
    shared = VllmEngine(config(model, lora_modules={"loud": str(adapter)}))
    await shared.start()
    yield shared
    await shared.stop(0)
