"""What the gateway asks of an answer holds on vLLM as it does on the ONNX engine."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from vllm_helpers import one, request

from engine.base import RequestRejected, StructuredOutput
from engine.models.find import BundledModel
from engine.vllm.engine import VllmEngine
from gateway.chat.parsing import collect, make_parser
from gateway.chat.prompt import Prompt, PromptBuilder
from gateway.protocol.chat_request import read_chat_request

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
MESSAGES = [{"role": "user", "content": "Hello there"}]


@pytest.fixture
def builder(engine: VllmEngine) -> PromptBuilder:
    if engine.info.chat_template is None or not BundledModel().checkpoint.exists():
        pytest.skip("the bundled model is not there")
    return PromptBuilder(engine.info)


async def answer(
    engine: VllmEngine, builder: PromptBuilder, **fields: Any
) -> tuple[Prompt, str, str]:
    """The prompt, the whole output as text, and why it ended."""
    body = {"messages": MESSAGES, "max_tokens": 200, "temperature": 0, **fields}
    prompt = await builder.build(read_chat_request(body))
    asked = request(prompt.ids)
    output = await one(engine, type(asked)(asked.request_id, prompt.ids, sampling=prompt.sampling))
    return prompt, output.text, output.last.finish_reason or ""


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_weather"}}]
)
async def test_forced_calls(engine: VllmEngine, builder: PromptBuilder, choice: Any) -> None:
    _, text, finish = await answer(engine, builder, tools=[TOOL], tool_choice=choice)
    assert finish == "stop"
    parsed = collect(make_parser(builder.formats, tools={"get_weather": {}}, prompt=""), text)
    assert parsed.tool_calls
    for call in parsed.tool_calls:
        assert call.name == "get_weather"
        jsonschema.validate(json.loads(call.arguments), PARAMETERS)


async def test_a_format_behind_the_thinking(engine: VllmEngine, builder: PromptBuilder) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}}
    prompt, text, finish = await answer(
        engine,
        builder,
        messages=[{"role": "user", "content": "What is 17 + 25?"}],
        reasoning_effort="low",
        response_format=wanted,
    )
    assert finish == "stop"
    plan = prompt.output
    parsed = collect(make_parser(plan.formats, tools=None, prompt=plan.prompt_end), text)
    assert parsed.reasoning.strip()
    jsonschema.validate(json.loads(parsed.content), PARAMETERS)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"regex": r"[0-9]{3}-[a-f]{2}"}, r"[0-9]{3}-[a-f]{2}"),
        ({"choice": ["red", "dark blue"]}, "red|dark blue"),
        ({"grammar": 'start: "<" WORD ">"\nWORD: /[a-z]{1,9}/'}, "<[a-z]{1,9}>"),
        ({"grammar": 'root ::= "a" ("b" | "c")'}, "a[bc]"),
    ],
    ids=["regex", "choice", "lark", "gbnf"],
)
async def test_structured_outputs(
    engine: VllmEngine, builder: PromptBuilder, constraint: Any, pattern: str
) -> None:
    _, text, _ = await answer(engine, builder, structured_outputs=constraint)
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    ("structured", "param"),
    [
        (StructuredOutput(json_schema='{"type": "nonsense"}'), None),
        (StructuredOutput(json_schema='{"maxLength": 1e99}'), "response_format"),
        (StructuredOutput(regex="(?=a)b"), None),
        (StructuredOutput(choice=()), "structured_outputs"),
        (StructuredOutput(grammar="start: nothing"), None),
    ],
)
async def test_what_cannot_be_enforced_is_refused(
    engine: VllmEngine, structured: StructuredOutput, param: str | None
) -> None:
    with pytest.raises(RequestRejected) as caught:
        await one(engine, request([65, 66], structured=structured))
    if param is not None:
        assert caught.value.param == param
