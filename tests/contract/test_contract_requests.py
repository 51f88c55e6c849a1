"""What an engine takes on, refuses and gives up."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from engine_calls import ask, ask_all, is_idle, prompt, request, until
from engine_factories import MAX_MODEL_LEN

from engine.base import (
    Engine,
    EngineOverloaded,
    GenerateRequest,
    RequestRejected,
    StructuredOutput,
)

# An idle machine needs less than one second; a busy one delays threads and processes.
ABORT_S = 3.0


async def first_delta(engine: Engine, asked: GenerateRequest) -> None:
    async with contextlib.aclosing(engine.generate(asked)) as stream:
        await anext(stream)


@pytest.mark.parametrize(
    ("prompt_ids", "options", "code"),
    [
        ([], {}, "invalid_value"),
        ([10**6], {}, "invalid_value"),
        ([-1], {}, "invalid_value"),
        (prompt(MAX_MODEL_LEN), {"max_tokens": 1}, "context_length_exceeded"),
        (prompt(10), {"max_tokens": MAX_MODEL_LEN}, "context_length_exceeded"),
        (prompt(), {"logprobs": 10**6}, "invalid_value"),
        (prompt(), {"temperature": float("nan")}, "invalid_value"),
        (prompt(), {"temperature": -1.0}, "invalid_value"),
        (prompt(), {"top_p": 1.5}, "invalid_value"),
        (prompt(), {"repetition_penalty": 0.0}, "invalid_value"),
        (prompt(), {"stop": ("",)}, "invalid_value"),
        (prompt(), {"stop_token_ids": (10**6,)}, "invalid_value"),
        (prompt(), {"allowed_token_ids": ()}, "invalid_value"),
        (prompt(), {"logit_bias": {10**6: 1.0}}, "invalid_value"),
        (prompt(), {"bad_words": ((10**6,),)}, "invalid_value"),
        (prompt(), {"n": 0}, "invalid_value"),
    ],
)
async def test_what_can_never_work_is_rejected_before_any_work(
    engine: Engine, prompt_ids: list[int], options: dict[str, Any], code: str
) -> None:
    with pytest.raises(RequestRejected) as caught:
        await first_delta(engine, request(prompt_ids, **options))
    assert caught.value.code == code
    assert is_idle(engine)


async def test_a_full_context_fits(engine: Engine) -> None:
    answer = await ask(engine, prompt(MAX_MODEL_LEN - 4), max_tokens=4)
    assert len(answer.token_ids) == 4


@pytest.mark.parametrize(
    ("feature", "asked"),
    [
        ("structured_output", {"structured": StructuredOutput(json_object=True)}),
        ("lora", {"lora": "adapter"}),
        ("images", {"images": (object(),)}),
    ],
)
async def test_a_missing_capability_is_rejected(
    engine: Engine, feature: str, asked: dict[str, Any]
) -> None:
    if getattr(engine.info.capabilities, feature):
        pytest.skip("the engine can do this")
    with pytest.raises(RequestRejected):
        await first_delta(engine, request(**asked))


async def test_a_full_queue_refuses_and_recovers(slow_engine: Engine) -> None:
    first = asyncio.create_task(ask(slow_engine, max_tokens=100))
    await until(lambda: slow_engine.load().running == 1)
    second = asyncio.create_task(ask(slow_engine, max_tokens=2))
    await until(lambda: slow_engine.load().waiting == 1)
    with pytest.raises(EngineOverloaded):
        await first_delta(slow_engine, request())
    assert len((await second).token_ids) == 2
    assert len((await first).token_ids) == 100
    assert len((await ask(slow_engine)).token_ids) == 24


async def test_priority_overtakes_in_the_queue(factory: Any) -> None:
    engine = factory.build(max_num_seqs=1)
    await engine.start()
    factory.slow_down(engine)
    order: list[str] = []

    async def note(name: str, priority: int) -> None:
        await ask(engine, max_tokens=3, priority=priority)
        order.append(name)

    holder = asyncio.create_task(ask(engine, max_tokens=30))
    await until(lambda: engine.load().running == 1)
    tasks = [asyncio.create_task(note("late", 5)), asyncio.create_task(note("later", 5))]
    await until(lambda: engine.load().waiting == 2)
    tasks.append(asyncio.create_task(note("urgent", -1)))
    await asyncio.gather(holder, *tasks)
    await engine.stop(0)
    assert order == ["urgent", "late", "later"]


async def test_queue_time_is_reported(slow_engine: Engine) -> None:
    first = asyncio.create_task(ask(slow_engine, max_tokens=20))
    await until(lambda: slow_engine.load().running == 1)
    waited = await ask(slow_engine, max_tokens=2)
    assert waited.last.queue_s > 0
    assert {delta.queue_s for delta in waited.deltas} == {waited.last.queue_s}
    await first


async def abort_when(engine: Engine, task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_abort_while_waiting(slow_engine: Engine) -> None:
    holder = asyncio.create_task(ask(slow_engine, max_tokens=400))
    await until(lambda: slow_engine.load().running == 1)
    waiting = asyncio.create_task(ask(slow_engine))
    await until(lambda: slow_engine.load().waiting == 1)
    await abort_when(slow_engine, waiting)
    await until(lambda: slow_engine.load().waiting == 0, ABORT_S)
    assert slow_engine.load().running == 1
    await abort_when(slow_engine, holder)
    await until(lambda: is_idle(slow_engine), ABORT_S)


async def test_abort_while_prefilling(slow_engine: Engine) -> None:
    task = asyncio.create_task(ask(slow_engine, prompt(400), max_tokens=100))
    await until(lambda: slow_engine.load().running == 1)
    await abort_when(slow_engine, task)
    await until(lambda: is_idle(slow_engine), ABORT_S)
    assert len((await ask(slow_engine)).token_ids) == 24


@pytest.mark.parametrize("choices", [1, 3])
async def test_abort_while_decoding_by_closing(engine: Engine, choices: int) -> None:
    stream = engine.generate(request(max_tokens=400, n=choices))
    for _ in range(4):
        await anext(stream)
    await stream.aclose()
    await until(lambda: is_idle(engine), ABORT_S)


async def test_abort_while_decoding_by_cancelling(slow_engine: Engine) -> None:
    arrived = asyncio.Event()

    async def consume() -> None:
        async for _ in slow_engine.generate(request(max_tokens=400)):
            arrived.set()

    task = asyncio.create_task(consume())
    await arrived.wait()
    await abort_when(slow_engine, task)
    await until(lambda: is_idle(slow_engine), ABORT_S)


async def test_an_aborted_neighbour_changes_nothing(engine: Engine) -> None:
    alone = await ask(engine, max_tokens=60)
    task = asyncio.create_task(ask(engine, max_tokens=60))
    neighbours = [engine.generate(request(prompt(40, i), max_tokens=300)) for i in range(1, 4)]
    for neighbour in neighbours:
        await anext(neighbour)
        await neighbour.aclose()
    assert (await task).token_ids == alone.token_ids


async def test_many_streams_at_once_equal_each_alone(engine: Engine) -> None:
    prompts = [prompt(10 + 7 * i, i) for i in range(20)]
    alone = [await ask(engine, ids) for ids in prompts]
    together = await asyncio.gather(*(ask(engine, ids) for ids in prompts))
    assert [a.token_ids for a in alone] == [a.token_ids for a in together]
    assert is_idle(engine)


@pytest.mark.parametrize("choices", [1, 3])
async def test_a_slow_consumer_gets_merged_deltas(engine: Engine, choices: int) -> None:
    asked = {"max_tokens": 50, "n": choices, "logprobs": 1, "temperature": 1.0, "seed": 4}
    expected = await ask_all(engine, request(**asked))
    stream = engine.generate(request(**asked))
    deltas = [await anext(stream)]
    await until(lambda: is_idle(engine))
    deltas += [delta async for delta in stream]
    assert len(deltas) <= 1 + 2 * choices
    for index, answer in enumerate(expected):
        own = [delta for delta in deltas if delta.index == index]
        assert [t for delta in own for t in delta.token_ids] == answer.token_ids
        assert "".join(delta.text for delta in own) == answer.text
        assert [e for delta in own for e in delta.logprobs or ()] == answer.logprobs
        assert [delta.finish_reason for delta in own][-1] == "length"


async def test_load_stays_within_its_bounds(engine: Engine) -> None:
    tasks = [asyncio.create_task(ask(engine, prompt(30, i), max_tokens=60)) for i in range(12)]
    seen = []
    while not all(task.done() for task in tasks):
        seen.append(engine.load())
        await asyncio.sleep(0.001)
    for load in seen:
        assert 0 <= load.kv_used <= load.kv_total
        assert 0 <= load.running <= load.max_running
        assert load.waiting >= 0
    assert is_idle(engine)
