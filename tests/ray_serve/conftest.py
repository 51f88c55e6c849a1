"""One Ray cluster for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_serve_cluster import Cluster

from engine.environments import EnvironmentMissing, interpreter


@pytest.fixture(scope="session")
def ray_python() -> Path:
    """The Python of the ray environment."""
    try:
        return interpreter("ray")
    except EnvironmentMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def cluster(ray_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Ray with the gateway in it, one replica ready."""
    running = Cluster(ray_python, tmp_path_factory.mktemp("ray"))
    try:
        yield running.wait_ready()
    finally:
        running.end()
