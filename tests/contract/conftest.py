"""Fixtures of the contract suite: every test runs once per engine kind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from engine_factories import Factory, FakeFactory, OnnxFactory

from engine.base import Engine


@pytest.fixture(scope="session", params=["fake", "onnx"])
def factory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    if request.param == "fake":
        return FakeFactory()
    return OnnxFactory(tmp_path_factory.mktemp("contract"))


@pytest.fixture
async def engine(factory: Factory) -> AsyncIterator[Engine]:
    """A started engine with the suite's defaults."""
    engine = factory.build()
    await engine.start()
    yield engine
    await engine.stop(0)


@pytest.fixture
async def slow_engine(factory: Factory) -> AsyncIterator[Engine]:
    """A started engine with one seat and one place in the queue, slowed down."""
    engine = factory.build(max_num_seqs=1, max_waiting=1)
    await engine.start()
    factory.slow_down(engine)
    yield engine
    await engine.stop(0)
