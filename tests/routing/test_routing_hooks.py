"""Hooks around what servers elsewhere answer: a real gateway behind one with hooks, and servers
that misbehave."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from chaos_upstream import WORDS, ChaosUpstream
from hooked_gateway import (
    CONFIG,
    KEY,
    SHOWN,
    TEXT,
    THOUGHT,
    THOUGHT_SHOWN,
    noted,
    process,
    text_of,
    user,
)
from routing_calls import HTTP, ask
from server_process import ServerProcess


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A gateway without hooks."""
    yield from process(
        tmp_path_factory.mktemp("far"),
        options={"text": f"<think>{THOUGHT}</think>{TEXT}"},
        SERVED_MODEL_NAME="m",
        REASONING_PARSER="qwen3",
        API_KEYS=KEY,
    )


@pytest.fixture(scope="module")
def front(
    far: ServerProcess, upstream: ChaosUpstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """The gateway with hooks."""
    folder = tmp_path_factory.mktemp("hooked")
    shutil.copy(Path(__file__).parents[1] / "telemetry" / "hook_probe.py", folder)
    known = {"far": far.url, "text": TEXT}
    text = re.sub("@(.+?)@", lambda m: known.get(m[1]) or upstream.url(m[1]), CONFIG)
    (folder / "gateway.yaml").write_text(text)
    yield from process(
        folder,
        CONFIG_FILE="gateway.yaml",
        HOOKS="hook_probe:Probe, redact",
        HOOK_OPTIONS=json.dumps({"hook_probe:Probe": {"file": str(folder / "seen.jsonl")}}),
        RESPONSE_CACHE="auto",
        UPSTREAM_KEY=KEY,
        SSE_PING_S="0",
    )


@pytest.fixture(scope="module")
def client(front: ServerProcess) -> openai.OpenAI:
    url = f"{front.url}/v1"
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0, http_client=HTTP)


@pytest.fixture(scope="module")
def claude(front: ServerProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=front.url, api_key="none", max_retries=0) as found:
        yield found


def test_chat_and_completions_are_rewritten(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(model="far", messages=user("hi")).choices[0].message
    assert message.content == SHOWN
    assert message.model_extra is not None
    assert message.model_extra["reasoning_content"] == THOUGHT_SHOWN
    chunks = list(
        client.chat.completions.create(
            model="far", messages=user("hi"), stream=True, stream_options={"include_usage": True}
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == SHOWN
    thoughts = [(delta.model_extra or {}).get("reasoning_content") or "" for delta in deltas]
    assert "".join(thoughts) == THOUGHT_SHOWN
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 50
    assert chunks[-2].choices[0].finish_reason == "stop"
    done = client.completions.create(model="far", prompt=["a", "b"], max_tokens=500)
    assert [SHOWN in choice.text for choice in done.choices] == [True, True]
    parts = client.completions.create(model="far", prompt="a", max_tokens=500, stream=True)
    assert "".join(part.choices[0].text for part in parts).endswith(SHOWN)


def test_the_other_protocols_are_rewritten(
    client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    assert client.responses.create(model="far", input="hi").output_text == SHOWN
    with client.responses.stream(model="far", input="hi") as stream:
        for event in stream:
            assert "ann@" not in repr(event)
        assert stream.get_final_response().output_text == SHOWN
    on: Any = {"type": "enabled", "budget_tokens": 1024}
    asked: Any = {"model": "far", "max_tokens": 2000, "messages": user("hi"), "thinking": on}
    message = claude.messages.create(**asked)
    assert [block.to_dict().get(block.type) for block in message.content] == [THOUGHT_SHOWN, SHOWN]
    with claude.messages.stream(**asked) as events:
        final = events.get_final_message()
    assert final.content[0].to_dict()["thinking"] == THOUGHT_SHOWN
    assert final.content[1].to_dict()["text"] == SHOWN
    assert final.stop_reason == "end_turn"


def test_it_is_the_same_here_and_elsewhere(client: openai.OpenAI) -> None:
    for model in ("here", "far"):
        answer = client.chat.completions.create(model=model, messages=user("hi"), n=2)
        assert [choice.message.content for choice in answer.choices] == [SHOWN, SHOWN]
        for field in ("logprobs", "return_token_ids"):
            with pytest.raises(openai.BadRequestError) as refused:
                client.chat.completions.create(
                    model=model, messages=user("hi"), extra_body={field: True}
                )
            assert refused.value.param == field
        with pytest.raises(openai.PermissionDeniedError, match="not talked about"):
            client.chat.completions.create(model=model, messages=user("forbidden"))
    include: Any = ["message.output_text.logprobs"]
    with pytest.raises(openai.BadRequestError, match="rewrites"):
        client.responses.create(model="far", input="hi", include=include)


def test_a_request_is_changed_in_its_own_protocol(
    front: ServerProcess, client: openai.OpenAI, upstream: ChaosUpstream
) -> None:
    image: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
    first: Any = {"role": "user", "content": [{"type": "text", "text": "see"}, image]}
    client.chat.completions.create(model="ok", messages=[first, *user("shorten this")])
    sent = upstream.requests("ok")[-1].document
    assert sent["messages"] == [first, {"role": "user", "content": "x"}]
    assert sent["max_completion_tokens"] == 4
    client.completions.create(model="ok", prompt=["shorten", "b"], max_tokens=9)
    sent = upstream.requests("ok")[-1].document
    assert (sent["prompt"], sent["max_tokens"]) == (["x", "x"], 4)
    cached: Any = [{"type": "text", "text": "be kind", "cache_control": {"type": "ephemeral"}}]
    HTTP.post(
        f"{front.url}/v1/messages",
        json={"model": "ok", "max_tokens": 9, "system": cached, "messages": user("shorten")},
    )
    sent = upstream.requests("ok")[-1].document
    assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    assert (sent["system"], sent["max_tokens"]) == (cached, 4)
    body = {"model": "ok", "input": "shorten", "instructions": "be kind"}
    HTTP.post(f"{front.url}/v1/responses", json=body)
    sent = upstream.requests("ok")[-1].document
    assert (sent["input"], sent["instructions"], sent["max_output_tokens"]) == ("x", "be kind", 4)
    # What no hook touches goes on as it is written.
    odd = b'{"model":"ok",  "messages":[{"role":"user","content":"h\\u0069"}], "x":1.50}'
    HTTP.post(
        f"{front.url}/v1/chat/completions",
        content=odd,
        headers={"content-type": "application/json"},
    )
    assert upstream.requests("ok")[-1].body == odd


def test_a_hook_that_fails_ends_the_stream_and_lets_the_server_go(
    front: ServerProcess, far: ServerProcess
) -> None:
    whole = ask(front, "trips")
    assert (whole.status_code, whole.json()["error"]["code"]) == (500, "hook_failed")
    headers = {"x-request-id": "tripped"}
    stream = ask(front, "trips", stream=True, headers=headers, max_tokens=8000, ignore_eos=True)
    # What the first hook let pass was still held back by the second.
    assert stream.status_code == 200
    assert "hook_failed" in stream.text
    assert "Mail" not in stream.text
    entry = noted(front, lambda entry: entry["request_id"] == "tripped")
    assert entry["reasons"] == [None]
    far.wait_for(lambda: far.metric("vllm:num_requests_running") == 0, "the seat to be free")
    assert ask(front, "far").status_code == 200
    samples = front.metrics()
    assert samples["gateway_requests_in_flight"] == 0
    down = 'gateway_target_up{model_name="far",target="gateway/0"}'
    assert samples[down] == 1, "what hooks do is no fault of the server"


@pytest.mark.parametrize("path", ["chat/completions", "messages", "responses"])
def test_a_failure_after_the_first_words_is_an_event(
    front: ServerProcess, upstream: ChaosUpstream, path: str
) -> None:
    upstream.more.clear()
    body: Any = {"model": "trips-late", "stream": True, "max_tokens": 500}
    body |= {"input": "hi"} if path == "responses" else {"messages": user("hi")}
    with HTTP.stream("POST", f"{front.url}/v1/{path}", json=body) as reply:
        assert reply.status_code == 200
        lines = (line[6:] for line in reply.iter_lines() if line.startswith("data: "))
        assert '"wor' in next(lines), "it is still a stream"
        upstream.more.set()
        *_, last = lines
    assert "check that this server makes" in last
    assert "secret of the hook" not in last
    assert upstream.requests("long")[-1].closed.wait(60), "the server is let go"


def test_answers_are_shown_and_none_is_kept(front: ServerProcess) -> None:
    headers = {"x-request-id": "seen-later", "x-gateway-cache": "on"}
    for stream in (False, True, True):
        reply = ask(front, "far", headers=headers, temperature=0, stream=stream)
        assert "x-gateway-cache" not in reply.headers
    entry = noted(front, lambda entry: entry["request_id"] == "seen-later")
    assert (entry["texts"], entry["reasons"]) == ([SHOWN], ["stop"])
    assert entry["tokens"][1] > 50
    with httpx.stream(
        "POST",
        f"{front.url}/v1/responses",
        json={"model": "far", "input": "hi"},
        headers={"x-request-id": "as-response"},
    ) as reply:
        reply.read()
    entry = noted(front, lambda entry: entry["request_id"] == "as-response")
    assert (entry["texts"], entry["reasons"]) == ([SHOWN], ["stop"])


def test_copies_are_of_what_hooks_let_pass(front: ServerProcess, upstream: ChaosUpstream) -> None:
    assert ask(front, "copied", messages=user("forbidden")).status_code == 403
    assert ask(front, "copied", messages=user("please shorten")).status_code == 200

    def copied() -> bool:
        return bool(upstream.requests("ok-tried"))

    front.wait_for(copied, "the copy")
    (copy,) = upstream.requests("ok-tried")
    assert copy.document["messages"] == user("x")


@pytest.mark.parametrize("fault", ["hangmid", "resetmid", "errormid", "nodone"])
def test_a_fault_within_a_stream_is_told(front: ServerProcess, fault: str) -> None:
    headers = {"x-request-id": f"fault-{fault}"}
    stream = ask(front, fault, stream=True, headers=headers)
    # Nothing had been let out yet, so the caller is told by a status.
    assert (stream.status_code, stream.json()["error"]["code"]) == (503, "upstream_unavailable")
    entry = noted(front, lambda entry: entry["request_id"] == f"fault-{fault}")
    assert entry["reasons"] == [None]


def test_another_server_answers_while_nothing_was_let_out(
    front: ServerProcess, upstream: ChaosUpstream
) -> None:
    reply = ask(front, "retried", stream=True)
    assert text_of(reply) == "".join(WORDS)
    assert reply.headers["x-gateway-target"] == "good/0"
    reply = ask(front, "hedged", stream=True)
    assert text_of(reply) == "".join(WORDS)
    assert reply.headers["x-gateway-target"] == "second/0"
    assert upstream.requests("hang")[-1].closed.wait(60)


def test_nothing_is_left_running(front: ServerProcess) -> None:
    samples = front.metrics()
    left = {k: v for k, v in samples.items() if "requests_outstanding" in k}
    assert left
    assert set(left.values()) == {0}
    assert samples["gateway_requests_in_flight"] == 0
