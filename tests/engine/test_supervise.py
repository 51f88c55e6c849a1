"""A supervised engine and the streams that outlive it."""

from __future__ import annotations

import pytest

from engine import carry_on
from engine.base import Engine, EngineDead, GenerateRequest, SamplingParams
from engine.config import EngineConfig
from engine.fake import FakeEngine
from engine.supervise import Backoff, SupervisedEngine

pytestmark = pytest.mark.asyncio
TOKENS = 40


async def test_a_slow_consumers_late_news_of_a_death_harms_nobody() -> None:
    made: list[FakeEngine] = []

    def make() -> FakeEngine:
        made.append(FakeEngine(EngineConfig(options={"itl_s": 0.001})))
        return made[-1]

    engine = SupervisedEngine("test", make, Backoff(first=0.01))
    await engine.start()
    engine.keep_alive()
    sampling = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)

    async def same(_: Engine) -> Engine | None:
        return engine if await engine.wait_ready(60) else None

    try:
        request = GenerateRequest("undisturbed", [72, 105], sampling)
        undisturbed = [delta async for delta in engine.generate(request)]
        streams = [
            carry_on.generate(engine, GenerateRequest(name, [72, 105], sampling), same)
            for name in ("quick", "slow")
        ]
        firsts = [await anext(stream) for stream in streams]
        made[0].die()
        quick = [firsts[0], *[delta async for delta in streams[0]]]
        # Only now does this one hear that the engine which it began on has died.
        slow = [firsts[1], *[delta async for delta in streams[1]]]
        for got in (quick, slow):
            assert [token for delta in got for token in delta.token_ids] == [
                token for delta in undisturbed for token in delta.token_ids
            ]
            assert "".join(d.text for d in got) == "".join(d.text for d in undisturbed)
        assert engine.ready
        assert engine.restarts == 1
        assert len(made) == 2
    finally:
        await engine.stop(0)


async def test_what_no_engine_can_go_on_with_ends_at_once() -> None:
    class Particular(FakeEngine):
        def can_carry_on(self, request: GenerateRequest) -> bool:
            return request.request_id == "easy"

    engine = Particular(EngineConfig(options={"itl_s": 0.001}))
    other = FakeEngine(EngineConfig())
    await engine.start()
    await other.start()
    asked: list[Engine] = []

    async def successor(dead: Engine) -> Engine | None:
        asked.append(dead)
        return other

    sampling = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    easy, hard, unbegun = (
        carry_on.generate(engine, GenerateRequest(name, [72, 105], sampling), successor)
        for name in ("easy", "hard", "unbegun")
    )
    await anext(easy)
    await anext(hard)
    engine.die()
    with pytest.raises(EngineDead):
        async for _ in hard:
            pass
    assert not asked
    assert [delta async for delta in easy][-1].finish_reason == "length"
    # Nothing of it has been seen, so it can begin anew anywhere.
    assert [delta async for delta in unbegun][-1].finish_reason == "length"
    assert asked == [engine, engine]
    await engine.stop(0)
    await other.stop(0)
