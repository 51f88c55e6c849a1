"""The engine on a real vLLM under several requests: batching, queue, abort, order."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from vllm_helpers import MAX_NUM_SEQS, MAX_WAITING, one, prompt, request, run, running, until

from engine.base import EngineOverloaded
from engine.vllm.engine import VllmEngine

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]
# An idle machine needs less than one second; a busy one delays threads and processes.
ABORT_S = 3.0
LONG = 1500


def idle(engine: VllmEngine) -> bool:
    load = engine.load()
    return (load.running, load.waiting, load.kv_used) == (0, 0, 0)


async def reported_running(engine: VllmEngine) -> int:
    """What EngineCore itself says after one more step."""
    await one(engine, request(prompt(3), 1))
    assert engine._built is not None
    return engine._built.counters.total("running")


async def test_sixteen_requests_run_as_one_batch(engine: VllmEngine) -> None:
    asked = {"max_tokens": 64, "ignore_eos": True}
    start = time.monotonic()
    await one(engine, request(prompt(20), **asked))
    single = time.monotonic() - start
    start = time.monotonic()
    most = 0
    tasks = [
        asyncio.create_task(one(engine, request(prompt(20, seed), **asked)))
        for seed in range(MAX_NUM_SEQS)
    ]
    while not all(task.done() for task in tasks):
        most = max(most, engine.load().running)
        await asyncio.sleep(0.001)
    together = time.monotonic() - start
    assert most == MAX_NUM_SEQS
    assert together < single * MAX_NUM_SEQS / 2
    assert [len((await task).token_ids) for task in tasks] == [64] * MAX_NUM_SEQS


async def test_abort_while_decoding(engine: VllmEngine) -> None:
    stream = engine.generate(request(prompt(10), LONG, ignore_eos=True))
    await anext(stream)
    assert engine.load().running == 1
    assert engine.load().kv_used > 0
    await stream.aclose()
    await until(lambda: idle(engine), ABORT_S)
    assert await reported_running(engine) == 0


async def test_abort_while_prefilling(engine: VllmEngine) -> None:
    long = request(prompt(2000, seed=8), 4, cache_salt="prefill")
    task = asyncio.create_task(run(engine, long))
    await until(lambda: engine.load().running + engine.load().waiting == 1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await until(lambda: idle(engine), ABORT_S)
    assert await reported_running(engine) == 0


async def test_abort_while_queued(engine: VllmEngine) -> None:
    full = [request(prompt(10, i), LONG, ignore_eos=True) for i in range(MAX_NUM_SEQS)]
    async with running(engine, full):
        await until(lambda: engine.load().running == MAX_NUM_SEQS)
        task = asyncio.create_task(run(engine, request(prompt(10), 4)))
        await until(lambda: engine.load().waiting == 1)
        task.cancel()
        await until(lambda: engine.load().waiting == 0, ABORT_S)
        assert engine.load().running == MAX_NUM_SEQS
    await until(lambda: idle(engine), ABORT_S)
    assert await reported_running(engine) == 0


async def test_a_full_queue_refuses(engine: VllmEngine) -> None:
    many = [
        request(prompt(10, i), LONG, ignore_eos=True) for i in range(MAX_NUM_SEQS + MAX_WAITING)
    ]
    async with running(engine, many):
        await until(lambda: engine.load().running == MAX_NUM_SEQS)
        assert engine.load().waiting == MAX_WAITING
        with pytest.raises(EngineOverloaded):
            await run(engine, request(prompt(10), 1))
    assert len((await one(engine, request(prompt(10), 2, ignore_eos=True))).token_ids) == 2


async def test_lower_priority_numbers_run_first(engine: VllmEngine) -> None:
    full = [request(prompt(10, i), LONG, ignore_eos=True) for i in range(MAX_NUM_SEQS)]
    order: list[str] = []

    async def note(name: str, priority: int) -> None:
        await run(engine, request(prompt(10), 2, priority=priority, ignore_eos=True))
        order.append(name)

    async with running(engine, full[1:]):
        # The shortest request holds the seat that the two wait for.
        holder = asyncio.create_task(run(engine, request(prompt(10), 60, ignore_eos=True)))
        await until(lambda: engine.load().running == MAX_NUM_SEQS)
        tasks = [asyncio.create_task(note("later", 5))]
        await until(lambda: engine.load().waiting == 1)
        tasks.append(asyncio.create_task(note("sooner", 1)))
        await asyncio.gather(holder, *tasks)
    assert order == ["sooner", "later"]


async def test_a_slow_consumer_gets_merged_deltas(engine: VllmEngine) -> None:
    asked = {"max_tokens": 50, "ignore_eos": True, "logprobs": 1}
    expected = await one(engine, request(prompt(20), **asked))
    stream = engine.generate(request(prompt(20), **asked))
    deltas = [await anext(stream)]
    await until(lambda: idle(engine))
    deltas += [delta async for delta in stream]
    assert len(deltas) <= 3
    assert [token for delta in deltas for token in delta.token_ids] == expected.token_ids
    assert sum(len(delta.logprobs or ()) for delta in deltas) == 50
