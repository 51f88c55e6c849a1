"""Start, health, drain, stop and death of an engine."""

from __future__ import annotations

import asyncio

import pytest
from engine_calls import ask, is_idle, request
from engine_factories import Factory

from engine.base import Engine, EngineDead, EngineError, EngineStartError


async def test_before_start_there_is_no_info_and_no_load(factory: Factory) -> None:
    engine = factory.build()
    assert engine.progress.state == "created"
    with pytest.raises(EngineError):
        _ = engine.info
    with pytest.raises(EngineError):
        await anext(engine.generate(request()))
    assert is_idle(engine)
    await engine.stop(0)


async def test_start_makes_it_ready(engine: Engine) -> None:
    assert isinstance(engine, Engine)
    assert engine.progress.state == "ready"
    assert engine.progress.fraction == 1
    await engine.check_health()
    assert engine.info.vocab_size > max(engine.info.eos_token_ids)


async def test_names_come_from_the_config(factory: Factory) -> None:
    engine = factory.build(served_names=("first", "second", "third"))
    await engine.start()
    assert (engine.info.id, engine.info.aliases) == ("first", ("second", "third"))
    await engine.stop(0)


async def test_it_starts_once(engine: Engine) -> None:
    with pytest.raises(EngineStartError):
        await engine.start()
    await engine.check_health()


async def test_an_unknown_option_stops_the_start(factory: Factory) -> None:
    engine = factory.build()
    object.__setattr__(engine._config, "options", {"no_such_option": 1})  # type: ignore[attr-defined]
    with pytest.raises(EngineStartError, match="no_such_option"):
        await engine.start()
    await engine.stop(0)


async def test_stop_lets_running_requests_finish(factory: Factory) -> None:
    engine = factory.build()
    await engine.start()
    factory.slow_down(engine)
    stream = engine.generate(request(max_tokens=30))
    deltas = [await anext(stream)]
    stopping = asyncio.create_task(engine.stop(30))
    await asyncio.sleep(0)
    assert engine.progress.state == "draining"
    with pytest.raises(EngineError):
        await anext(engine.generate(request()))
    deltas += [delta async for delta in stream]
    await stopping
    assert deltas[-1].finish_reason == "length"
    assert sum(len(delta.token_ids) for delta in deltas) == 30
    assert is_idle(engine)


async def test_stop_without_patience_aborts(factory: Factory) -> None:
    engine = factory.build(max_num_seqs=1)
    await engine.start()
    factory.slow_down(engine)
    running = asyncio.create_task(ask(engine, max_tokens=400))
    waiting = asyncio.create_task(ask(engine, max_tokens=400))
    while engine.load().running == 0 or engine.load().waiting == 0:
        await asyncio.sleep(0.001)
    await engine.stop(0)
    assert (await running).last.finish_reason == "abort"
    assert (await waiting).last.finish_reason == "abort"
    assert is_idle(engine)


async def test_stop_is_idempotent_and_final(factory: Factory) -> None:
    engine = factory.build()
    await engine.start()
    await engine.stop(0)
    await engine.stop(5)
    assert engine.progress.state == "stopped"
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await anext(engine.generate(request()))


async def test_concurrent_stops_agree(factory: Factory) -> None:
    engine = factory.build()
    await engine.start()
    factory.slow_down(engine)
    stream = engine.generate(request(max_tokens=400))
    await anext(stream)
    patient = asyncio.create_task(engine.stop(60))
    await asyncio.sleep(0.01)
    await engine.stop(0)
    await patient
    assert engine.progress.state == "stopped"
    assert [delta async for delta in stream][-1].finish_reason == "abort"


async def test_a_start_can_be_cancelled(factory: Factory) -> None:
    engine = factory.build()
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises((asyncio.CancelledError, EngineStartError)):
        await starting
    await engine.stop(0)
    with pytest.raises(EngineError):
        await anext(engine.generate(request()))
