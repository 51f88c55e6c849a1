"""A gateway in front of another real gateway with the bundled model, used through the SDKs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from connection_cutter import Cutter
from routing_calls import HTTP
from server_process import ServerProcess

KEY = "sk-of-the-upstream-0123456789"
MESSAGES: Any = [{"role": "user", "content": "What is 2+3?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
FRONT = """
models:
- name: chat
  targets: [{base_url: "@url@/v1", kind: gateway, model: tiny-chat, api_key: "${UPSTREAM_KEY}",
             name: near, health: {interval: 0.2}}]
"""

PAIR = """
models:
- name: chat
  retries: {ratio: 1, burst: 100}
  targets: [{base_urls: ["@first@/v1", "@second@/v1"], kind: gateway, model: tiny-chat, name: pair,
             api_key: "${UPSTREAM_KEY}", health: {path: ""}, breaker: {failures: 1000}}]
"""
LONG: Any = [{"role": "user", "content": "Who are you and what can you do?"}]


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The gateway that runs the model."""
    folder = tmp_path_factory.mktemp("near")
    server = ServerProcess(folder, ENGINE="onnx", API_KEYS=KEY, MAX_NUM_SEQS="4")
    yield server.wait_ready()
    server.kill()


@pytest.fixture(scope="module")
def cutter() -> Iterator[Cutter]:
    """Stands between a gateway and its upstream and breaks their connections off."""
    running = Cutter()
    yield running
    running.close()


@pytest.fixture(scope="module")
def front(near: ServerProcess, start: Any) -> ServerProcess:
    """The gateway that clients know."""
    server: ServerProcess = start(FRONT.replace("@url@", near.url), UPSTREAM_KEY=KEY)
    return server.wait_ready()


def sdk(server: ServerProcess, key: str = "none") -> openai.OpenAI:
    url = f"{server.url}/v1"
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60, http_client=HTTP)


def test_answers_are_those_of_the_model_itself(near: ServerProcess, front: ServerProcess) -> None:
    direct = sdk(near, KEY).chat.completions.create(model="tiny-chat", messages=MESSAGES)
    client = sdk(front)
    raw = client.chat.completions.with_raw_response.create(model="chat", messages=MESSAGES)
    answer = raw.parse()
    assert answer.choices[0].message.content == direct.choices[0].message.content
    assert answer.usage is not None
    assert direct.usage is not None
    assert answer.usage.completion_tokens == direct.usage.completion_tokens
    assert raw.headers["x-gateway-target"] == "near/0"
    assert raw.headers["x-gateway-route"] == "only"
    chunks = list(client.chat.completions.create(model="chat", messages=MESSAGES, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == direct.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_tools_pass_both_ways(near: ServerProcess, front: ServerProcess) -> None:
    asked: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    choice: Any = {"type": "function", "function": {"name": "get_weather"}}
    options: Any = {"messages": asked, "tools": [WEATHER], "tool_choice": choice}
    direct = sdk(near, KEY).chat.completions.create(model="tiny-chat", **options)
    relayed = sdk(front).chat.completions.create(model="chat", **options)
    mine, theirs = relayed.choices[0].message.tool_calls, direct.choices[0].message.tool_calls
    assert mine
    assert theirs
    assert mine[0].to_dict()["function"] == theirs[0].to_dict()["function"]
    chunks = sdk(front).chat.completions.create(model="chat", stream=True, **options)
    calls = [c.choices[0].delta.tool_calls for c in chunks if c.choices[0].delta.tool_calls]
    arguments = "".join(call[0].function.arguments or "" for call in calls if call[0].function)
    assert arguments == theirs[0].to_dict()["function"]["arguments"]  # type: ignore[index]


def test_the_other_protocols(front: ServerProcess) -> None:
    response = sdk(front).responses.create(model="chat", input="What is 2+3?")
    assert "5" in response.output_text
    with anthropic.Anthropic(base_url=front.url, api_key="none", max_retries=0) as client:
        message = client.messages.create(model="chat", max_tokens=32, messages=MESSAGES)
    assert any("5" in block.text for block in message.content if block.type == "text")
    completion = sdk(front).completions.create(model="chat", prompt="Hello", max_tokens=3)
    assert completion.usage is not None
    assert completion.usage.completion_tokens <= 3


def test_an_abort_frees_the_seat_in_the_engine(near: ServerProcess, front: ServerProcess) -> None:
    endless = {"ignore_eos": True}
    stream = sdk(front).chat.completions.create(
        model="chat", messages=MESSAGES, stream=True, max_tokens=1900, extra_body=endless
    )
    next(iter(stream))
    assert near.metric("vllm:num_requests_running") == 1
    stream.close()
    near.wait_for(lambda: near.metric("vllm:num_requests_running") == 0, "the seat to be free")
    assert front.metric("gateway_requests_in_flight") == 0
    with pytest.raises(openai.APITimeoutError):
        sdk(front).with_options(timeout=0.1).chat.completions.create(
            model="chat", messages=MESSAGES, max_tokens=1900, extra_body=endless
        )
    near.wait_for(lambda: near.metric("gateway_requests_in_flight") == 0, "nothing in flight")


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_another_gateway_finishes_what_one_broke_off(
    near: ServerProcess, start: Any, cutter: Cutter, api: str
) -> None:
    """The same text to the letter as of a run that nobody disturbed, wherever it breaks off, and
    the same usage."""
    options: Any = {"stream": True, "temperature": 0, "stream_options": {"include_usage": True}}

    def answer(server: ServerProcess, model: str, key: str) -> tuple[str, Any, Any]:
        client = sdk(server, key)
        text, usage, finish = "", None, None
        if api == "chat":
            for chunk in client.chat.completions.create(model=model, messages=LONG, **options):
                for choice in chunk.choices:
                    assert not choice.model_extra
                    text += choice.delta.content or ""
                    finish = choice.finish_reason or finish
                usage = chunk.usage or usage
        else:
            asked = {"prompt": prompt_ids, "max_tokens": 24}
            for part in client.completions.create(model=model, **asked, **options):
                for one in part.choices:
                    text += one.text
                    finish = one.finish_reason or finish
                usage = part.usage or usage
        assert usage is not None
        return text, usage.completion_tokens, finish

    text = PAIR.replace("@first@", cutter.url(near.url)).replace("@second@", near.url)
    front: ServerProcess = start(text, UPSTREAM_KEY=KEY).wait_ready()
    told = HTTP.post(f"{near.url}/tokenize", json={"messages": LONG}, headers={"x-api-key": KEY})
    prompt_ids = told.json()["tokens"]
    whole = answer(near, "tiny-chat", KEY)
    cutter.after = None
    assert whole[0]
    assert answer(front, "chat", "none") == whole
    assert cutter.last > 600
    for cut in range(100, cutter.last, cutter.last // 25):
        cutter.after = cut
        assert answer(front, "chat", "none") == whole, cut
    assert front.metric('gateway_carried_on_requests_total{model_name="chat"}') > 3
    line = next(line for line in front.log_lines() if line.get("carried_on"))
    assert (line["carried_on"], line["completion_tokens"]) == ("pair/1", whole[1])
    assert near.metric("gateway_requests_in_flight") == 0


def test_what_is_carried_on_passes_hooks_as_one_text(
    near: ServerProcess, start: Any, cutter: Cutter
) -> None:
    """What was held back when one server broke off goes on with the other one's text."""
    options: Any = {"messages": LONG, "temperature": 0, "model": "chat"}
    direct = sdk(near, KEY).chat.completions.create(**{**options, "model": "tiny-chat"})
    whole = direct.choices[0].message.content
    assert whole
    rules = {"redact": {"patterns": ["[a-z]{3} [a-z]{2,9}"], "replacement": "#"}}
    wanted = re.sub(rules["redact"]["patterns"][0], "#", whole)
    assert "#" in wanted
    text = PAIR.replace("@first@", cutter.url(near.url)).replace("@second@", near.url)
    front: ServerProcess = start(
        text, UPSTREAM_KEY=KEY, HOOKS="redact", HOOK_OPTIONS=json.dumps(rules)
    ).wait_ready()

    def answer() -> str:
        chunks = sdk(front).chat.completions.create(stream=True, **options)
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    cutter.after = None
    assert answer() == wanted
    for cut in range(400, cutter.last, cutter.last // 6):
        cutter.after = cut
        assert answer() == wanted, cut
    assert front.metric('gateway_carried_on_requests_total{model_name="chat"}') > 1


def test_a_death_within_a_stream_is_told_at_once(near: ServerProcess, front: ServerProcess) -> None:
    """The last one: the upstream is gone then."""
    stream = sdk(front).chat.completions.create(
        model="chat",
        messages=MESSAGES,
        stream=True,
        max_tokens=1900,
        extra_body={"ignore_eos": True},
    )
    chunks = iter(stream)
    next(chunks)
    os.kill(near.process.pid, 9)
    with pytest.raises(openai.APIError) as caught:
        for _ in chunks:
            pass
    assert caught.value.code == "upstream_unavailable"
    with pytest.raises(openai.InternalServerError) as refused:
        sdk(front).chat.completions.create(model="chat", messages=MESSAGES)
    assert refused.value.status_code == 503

    def down() -> bool:
        return front.metric('gateway_target_up{model_name="chat",target="near/0"}') == 0

    front.wait_for(down, "the health check to notice")
