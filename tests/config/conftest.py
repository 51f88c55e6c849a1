"""A gateway whose files can be changed while it serves, in front of servers that tests release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from held_upstream import HeldUpstream
from reloaded_gateway import NewGateway, ReloadedGateway


@pytest.fixture(scope="session")
def upstreams() -> Iterator[tuple[HeldUpstream, HeldUpstream]]:
    """Two servers that answer with their own names."""
    both = HeldUpstream("one"), HeldUpstream("two")
    yield both
    for upstream in both:
        upstream.close()


@pytest.fixture
def new_gateway(
    tmp_path: Path, upstreams: tuple[HeldUpstream, HeldUpstream]
) -> Iterator[NewGateway]:
    """Starts gateways; they end with the test."""
    started: list[ReloadedGateway] = []

    def start(env: str, yaml: str | None = None, **settings: str) -> ReloadedGateway:
        folder = tmp_path / f"gateway{len(started)}"
        folder.mkdir()
        started.append(ReloadedGateway(folder, env, yaml, **settings))
        return started[-1]

    yield start
    for gateway in started:
        gateway.close()
