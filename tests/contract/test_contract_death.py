"""Death of an engine. In a file of its own, so that a suite of loaded engines can try it last."""

from __future__ import annotations

import asyncio

import pytest
from engine_calls import ask, is_idle, request
from engine_factories import Factory

from engine.base import EngineDead


async def test_death_reaches_everyone(factory: Factory) -> None:
    engine = factory.build(max_num_seqs=2)
    await engine.start()
    factory.slow_down(engine)
    streams = [engine.generate(request(max_tokens=400)) for _ in range(2)]
    for stream in streams:
        await anext(stream)
    waiting = asyncio.create_task(ask(engine))
    await asyncio.sleep(0)
    factory.kill(engine)
    for stream in streams:
        with pytest.raises(EngineDead):
            async for _ in stream:
                pass
    with pytest.raises(EngineDead):
        await waiting
    assert engine.progress.state == "dead"
    assert is_idle(engine)
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await anext(engine.generate(request()))
    await engine.stop(5)
    await engine.stop(0)
