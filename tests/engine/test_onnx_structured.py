"""Structured output on the ONNX engine: a random model that still writes what it must."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import jsonschema
import pytest
from onnx_calls import ask, prompt, request

from engine.base import RequestRejected, Resume, StructuredOutput

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "kind": {"enum": ["cat", "dog"]},
        "ages": {"type": "array", "items": {"type": "integer", "maximum": 999}, "maxItems": 3},
    },
    "required": ["name", "kind", "ages"],
    "additionalProperties": False,
}
JSON = StructuredOutput(json_schema=json.dumps(SCHEMA))
HOT: dict[str, Any] = {"temperature": 1.5, "max_tokens": 300, "ignore_eos": False}


@pytest.mark.parametrize("seed", range(6))
async def test_json_is_valid_and_ends_by_itself(start_onnx: Any, seed: int) -> None:
    engine = await start_onnx()
    assert engine.info.capabilities.structured_output
    answer = await ask(engine, prompt(9, seed), structured=JSON, seed=seed, **HOT)
    assert answer.last.finish_reason == "stop"
    assert answer.last.stop_reason is None
    jsonschema.validate(json.loads(answer.text), SCHEMA)


async def test_constrained_and_free_streams_share_a_batch(start_onnx: Any) -> None:
    engine = await start_onnx()
    alone = await ask(engine, prompt(20, 3), seed=1, temperature=1.0, max_tokens=80)
    wanted = [
        StructuredOutput(regex=r"[0-9]{3}-[a-f]{2,5}"),
        StructuredOutput(choice=("yes", "no", "maybe")),
        StructuredOutput(grammar='start: "<" WORD ">"\nWORD: /[a-z]{1,9}/'),
        JSON,
    ]
    free, *bound = await asyncio.gather(
        ask(engine, prompt(20, 3), seed=1, temperature=1.0, max_tokens=80),
        *(ask(engine, prompt(9, i), structured=w, seed=i, **HOT) for i, w in enumerate(wanted)),
    )
    assert free.token_ids == alone.token_ids
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2,5}", bound[0].text)
    assert bound[1].text in ("yes", "no", "maybe")
    assert re.fullmatch("<[a-z]{1,9}>", bound[2].text)
    jsonschema.validate(json.loads(bound[3].text), SCHEMA)
    assert engine.load().kv_used == 0


async def test_each_choice_has_a_constraint_of_its_own(start_onnx: Any) -> None:
    engine = await start_onnx()
    asked = request(prompt(9), n=4, structured=JSON, seed=3, **HOT)
    texts = [""] * 4
    async for delta in engine.generate(asked):
        texts[delta.index] += delta.text
    for text in texts:
        jsonschema.validate(json.loads(text), SCHEMA)
    assert len(set(texts)) > 1


async def test_preempted_outputs_keep_their_constraint(start_onnx: Any) -> None:
    def several(engine: Any) -> Any:
        return asyncio.gather(
            *(ask(engine, prompt(30, i), structured=JSON, seed=i, **HOT) for i in range(8))
        )

    expected = await several(await start_onnx())
    tight = await start_onnx(kv_cache_tokens=448)
    got = await several(tight)
    assert [a.token_ids for a in got] == [a.token_ids for a in expected]


@pytest.mark.parametrize("done", [1, 7, -1])
async def test_resumed_outputs_keep_their_constraint(start_onnx: Any, done: int) -> None:
    engine = await start_onnx()
    whole = await ask(engine, prompt(9), structured=JSON, seed=5, **HOT)
    resume = Resume(tuple(whole.token_ids[:done]), text_sent=0)
    rest = await ask(engine, prompt(9), structured=JSON, seed=5, resume=resume, **HOT)
    assert rest.text == whole.text


async def test_what_cannot_be_enforced_or_resumed_is_refused(start_onnx: Any) -> None:
    engine = await start_onnx()
    for structured, param in (
        (StructuredOutput(json_schema='{"not": {"type": "string"}}'), "response_format"),
        (StructuredOutput(regex="(?=a)b"), "structured_outputs"),
        (StructuredOutput(grammar="start: nothing"), "structured_outputs"),
    ):
        with pytest.raises(RequestRejected) as caught:
            await ask(engine, prompt(9), structured=structured)
        assert caught.value.param == param
    with pytest.raises(RequestRejected, match="does not follow"):
        await ask(engine, prompt(9), structured=JSON, resume=Resume((65, 66), 0))
    assert engine.load().running == engine.load().waiting == 0


async def test_a_constraint_that_is_cut_short_says_so(start_onnx: Any) -> None:
    engine = await start_onnx()
    answer = await ask(
        engine, prompt(9), structured=StructuredOutput(regex="[a-z]{50}"), max_tokens=10
    )
    assert (answer.last.finish_reason, len(answer.token_ids)) == ("length", 10)


async def test_a_closed_stream_frees_everything(start_onnx: Any) -> None:
    engine = await start_onnx()
    structured = StructuredOutput(regex="[a-z]{2000}")
    stream = engine.generate(request(prompt(9), structured=structured, max_tokens=400))
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(60):
        while engine.load().running:
            await asyncio.sleep(0.01)
    assert engine.load().kv_used == 0
