"""The ONNX engine as a whole, on a small random Llama."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_calls import Answer, ask, prompt, request
from random_llama import EOS_ID

from engine.base import EngineError, RequestRejected
from engine.onnx.engine import OnnxEngine

PLAIN: dict[str, Any] = {}
SEEDED = {"temperature": 1.0, "seed": 5, "top_p": 0.95, "frequency_penalty": 0.3}


async def ask_many(engine: OnnxEngine, count: int, **options: Any) -> list[Answer]:
    return await asyncio.gather(
        *(ask(engine, prompt(20 + 3 * i, i), max_tokens=60, **options) for i in range(count))
    )


@pytest.mark.parametrize("prefix_cache_tokens", [0, 4096])
@pytest.mark.parametrize("options", [PLAIN, SEEDED], ids=["greedy", "seeded"])
async def test_preempted_requests_end_as_if_they_had_not_been(
    start_onnx: Any, options: dict[str, Any], prefix_cache_tokens: int
) -> None:
    roomy = await start_onnx(prefix_cache_tokens=prefix_cache_tokens)
    expected = await ask_many(roomy, 8, **options)
    assert roomy.load().preemptions == 0
    tight = await start_onnx(prefix_cache_tokens=prefix_cache_tokens, kv_cache_tokens=192)
    got = await ask_many(tight, 8, **options)
    assert tight.load().preemptions > 0
    assert [a.token_ids for a in got] == [a.token_ids for a in expected]
    assert [a.text for a in got] == [a.text for a in expected]
    assert tight.load().kv_used == 0


async def test_preempted_choices_of_one_request(start_onnx: Any) -> None:
    async def all_choices(engine: OnnxEngine) -> dict[int, list[int]]:
        asked = request(prompt(30), n=6, temperature=1.0, seed=2, max_tokens=70)
        tokens: dict[int, list[int]] = {}
        async for delta in engine.generate(asked):
            tokens.setdefault(delta.index, []).extend(delta.token_ids)
        return tokens

    expected = await all_choices(await start_onnx())
    tight = await start_onnx(kv_cache_tokens=256)
    assert await all_choices(tight) == expected
    assert tight.load().preemptions > 0


async def test_choices_share_one_prefill(start_onnx: Any) -> None:
    engine = await start_onnx(prefix_cache_tokens=0)
    session = engine._worker._stepper._session
    prefilled = []
    real = session.prefill

    def counting(slot: int, past: int, tokens: list[int], wanted: int) -> Any:
        prefilled.append(len(tokens))
        return real(slot, past, tokens, wanted)

    session.prefill = counting
    async for _ in engine.generate(request(prompt(100), n=5)):
        pass
    assert sum(prefilled) == 100


async def test_a_request_beyond_the_kv_memory_is_refused(start_onnx: Any) -> None:
    engine = await start_onnx(kv_cache_tokens=64)
    with pytest.raises(RequestRejected) as caught:
        await ask(engine, prompt(60), max_tokens=10)
    assert caught.value.code == "context_length_exceeded"
    assert len((await ask(engine, prompt(60), max_tokens=5)).token_ids) == 5


@pytest.mark.parametrize("max_prefill_chunk", [16, 48, 512])
async def test_chunks_of_any_size_give_the_same_tokens(
    start_onnx: Any, max_prefill_chunk: int
) -> None:
    whole = await start_onnx()
    chunked = await start_onnx(options={"max_prefill_chunk": max_prefill_chunk})
    for length in (1, 2, 15, 16, 17, 33, 200):
        expected = await ask(whole, prompt(length))
        assert (await ask(chunked, prompt(length))).token_ids == expected.token_ids


async def test_prompt_logprobs_do_not_depend_on_chunks_or_the_cache(start_onnx: Any) -> None:
    chunked = await start_onnx(options={"max_prefill_chunk": 16})
    whole = await start_onnx()
    asked = prompt(90)
    await ask(chunked, asked)
    got, expected = [
        (await ask(engine, asked, prompt_logprobs=2, max_tokens=1)).deltas[0].prompt_logprobs
        for engine in (chunked, whole)
    ]
    assert got[0] is None
    assert [e.logprob for e in got[1:]] == pytest.approx(
        [e.logprob for e in expected[1:]], abs=1e-4
    )


async def test_generated_tokens_are_reused_as_a_prefix(start_onnx: Any) -> None:
    engine = await start_onnx()
    first = await ask(engine, prompt(40), max_tokens=60)
    follow_up = [*prompt(40), *first.token_ids, 65, 66]
    second = await ask(engine, follow_up)
    assert second.last.cached_tokens == 96
    fresh = await start_onnx(prefix_cache_tokens=0)
    assert (await ask(fresh, follow_up)).token_ids == second.token_ids


async def test_the_prompt_of_a_running_request_is_reused(start_onnx: Any) -> None:
    engine = await start_onnx()
    running = engine.generate(request(prompt(100), max_tokens=400))
    await anext(running)
    assert (await ask(engine, prompt(100), max_tokens=1)).last.cached_tokens == 96
    await running.aclose()


async def test_logits_that_are_not_finite_fail_one_request_only(start_onnx: Any) -> None:
    engine = await start_onnx()
    expected = await ask(engine, prompt(30), max_tokens=40)
    session = engine._worker._stepper._session
    real = session.decode
    victim = prompt(30, salt=1)[-1]

    def spoiled(tokens: list[int], past: list[int]) -> Any:
        logits = real(tokens, past)
        for row, length in enumerate(past):
            if length == 50:
                logits[row, victim] = np.nan
        return logits

    session.decode = spoiled
    healthy = asyncio.create_task(ask(engine, prompt(30), max_tokens=15))
    with pytest.raises(EngineError, match="not finite"):
        await ask(engine, prompt(45, salt=1), max_tokens=40)
    assert (await healthy).token_ids == expected.token_ids[:15]
    await engine.check_health()
    assert engine.load().running == 0


async def test_sampling_options_reach_the_sampler(start_onnx: Any) -> None:
    engine = await start_onnx()
    greedy = await ask(engine, prompt(30))
    narrow = await ask(engine, prompt(30), temperature=1.0, top_k=1)
    assert narrow.token_ids == greedy.token_ids
    biased = await ask(engine, prompt(30), logit_bias={65: 100.0})
    assert set(biased.token_ids) == {65}
    banned = tuple(greedy.token_ids[3:5])
    avoided = await ask(engine, prompt(30), max_tokens=100, bad_words=(banned,))
    pairs = set(zip(avoided.token_ids, avoided.token_ids[1:], strict=False))
    assert banned not in pairs


async def test_an_end_of_sequence_token_ends(start_onnx: Any) -> None:
    engine = await start_onnx()
    answer = await ask(engine, prompt(9), logit_bias={EOS_ID: 100.0}, ignore_eos=False)
    assert answer.token_ids == [EOS_ID]
    assert answer.last.finish_reason == "stop"


async def test_short_prompts_run_beside_a_long_one(start_onnx: Any) -> None:
    """A prompt of 450 tokens must not hold up streams that run already."""
    engine = await start_onnx(prefix_cache_tokens=0)
    stream = engine.generate(request(prompt(10), max_tokens=400))
    await anext(stream)
    long = asyncio.create_task(ask(engine, prompt(450, salt=3), max_tokens=1))
    while engine.load().running + engine.load().waiting < 2:
        await asyncio.sleep(0)
    tokens_meanwhile = 0
    while not long.done():
        tokens_meanwhile += len((await anext(stream)).token_ids)
    await stream.aclose()
    assert tokens_meanwhile >= 3


async def test_running_streams_keep_their_rhythm_beside_a_long_prompt(
    start_onnx: Any, llama: Path
) -> None:
    """Gaps in processor time, which other programs on the machine stretch the least; the best
    of three, since they still do."""
    engine = await start_onnx(prefix_cache_tokens=0)
    assert min([await worst_gap(engine, salt) for salt in (9, 19, 29)]) < 8


async def worst_gap(engine: Any, salt: int) -> float:
    """The 99th percentile of the gaps beside three long prompts, in medians."""
    stepper = engine._worker._stepper
    gaps: list[float] = []
    last = [0.0]
    real_decode = stepper.decode

    def timed_decode() -> None:
        was_decoding = bool(stepper._scheduler.decoding)
        real_decode()
        now = time.process_time()
        if was_decoding and last[0]:
            gaps.append(now - last[0])
        last[0] = now

    stepper.decode = timed_decode
    streams = [asyncio.create_task(ask(engine, prompt(12, i), max_tokens=480)) for i in range(4)]
    while engine.load().running < 4:
        await asyncio.sleep(0.001)
    for i in range(3):
        await ask(engine, prompt(490, salt=i + salt), max_tokens=1)
    await asyncio.gather(*streams)
    stepper.decode = real_decode
    return float(np.percentile(gaps, 99) / np.median(gaps))


async def test_idle_engine_uses_no_processor_time(start_onnx: Any) -> None:
    engine = await start_onnx()
    await ask(engine, prompt(30))
    before = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - before < 0.25
    assert engine.load().running == 0
