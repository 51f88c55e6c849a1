"""One Slurm for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from slurm_cluster import Slurm, missing


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm whose one node is idle."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    cluster = Slurm(tmp_path_factory.mktemp("slurm"))
    try:
        yield cluster.start()
    finally:
        cluster.end()
