"""Who is asked, what is sent, what comes back: a real gateway in front of a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from chaos_upstream import USAGE, ChaosUpstream, sse, whole_json
from routing_calls import HTTP, MESSAGES, ROUTE, ask, last_line
from server_process import ServerProcess


def test_bytes_are_passed_on_as_they_are(gateway: ServerProcess, upstream: ChaosUpstream) -> None:
    sent = (
        b'{ "temperature" : 0.70 , "model":"gpt-4o", '
        b'"messages": [{"role":"user","content":"\\u00fc \\"model\\":"}],"z":1e2 }'
    )
    reply = HTTP.post(
        f"{gateway.url}{ROUTE}", content=sent, headers={"content-type": "application/json"}
    )
    assert reply.status_code == 200
    seen = upstream.requests("ok")[-1]
    assert seen.body == sent.replace(b'"gpt-4o"', b'"upstream-name"')
    assert reply.content == whole_json(seen)
    assert int(reply.headers["content-length"]) == len(reply.content)


def test_a_stream_is_passed_on_and_its_usage_counted_though_nobody_asked(
    gateway: ServerProcess, upstream: ChaosUpstream
) -> None:
    reply = ask(gateway, "plain", stream=True)
    seen = upstream.requests("ok")[-1]
    assert seen.document["stream_options"] == {"include_usage": True}
    extra = next(e for e in sse(seen).split(b"\n\n") if b'"usage"' in e) + b"\n\n"
    assert reply.content == sse(seen).replace(extra, b"").replace(b": hello\n\n", b"")
    line = last_line(gateway, reply.headers["x-request-id"])
    assert line["prompt_tokens"] == USAGE["prompt_tokens"]
    assert line["completion_tokens"] == USAGE["completion_tokens"]
    assert (line["model"], line["target"], line["route_reason"]) == ("plain", "vllm/0", "only")
    asked = ask(gateway, "plain", stream=True, stream_options={"include_usage": True, "x": 1})
    assert upstream.requests("ok")[-1].document["stream_options"] == {"include_usage": True, "x": 1}
    assert b'"usage"' in asked.content


def test_only_safe_headers_go_on_and_no_key_leaks(
    gateway: ServerProcess, upstream: ChaosUpstream
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    given = {
        "authorization": "Bearer the-callers-own-key",
        "x-api-key": "the-callers-own-key",
        "cookie": "session=the-callers-own-key",
        "x-extra": "goes on",
        "x-other": "stays here",
        "traceparent": trace,
        "x-request-id": "req-7",
    }
    reply = ask(gateway, "plain", headers=given)
    headers = upstream.requests("ok")[-1].headers
    assert headers["authorization"] == "Bearer sk-upstream-secret"
    assert (headers["x-extra"], headers["x-tenant"]) == ("goes on", "7")
    assert (headers["traceparent"], headers["x-request-id"]) == (trace, "req-7")
    assert not {"x-other", "cookie", "x-api-key", "connection", "transfer-encoding"} & set(headers)
    assert "the-callers-own-key" not in json.dumps(headers)
    assert reply.headers["x-request-id"] == "req-7"
    for text in (gateway.logs(), HTTP.get(f"{gateway.url}/metrics").text):
        assert "sk-upstream-secret" not in text
        assert "the-callers-own-key" not in text


def test_connections_are_kept(gateway: ServerProcess, upstream: ChaosUpstream) -> None:
    with httpx.Client() as client:
        for _ in range(5):
            client.post(f"{gateway.url}{ROUTE}", json={"model": "v1", "messages": MESSAGES})
    assert upstream.connections("ok-a") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_taken_back_upstream(
    gateway: ServerProcess, upstream: ChaosUpstream, stream: bool
) -> None:
    count = len(upstream.requests("hang"))
    body = {"model": "hung", "messages": MESSAGES, "stream": stream}
    with httpx.Client() as client:
        thread = threading.Thread(target=lambda: silently(client, gateway.url, body))
        thread.start()
        gateway.wait_for(lambda: len(upstream.requests("hang")) > count, "the request to arrive")
        thread.join(60)
    seen = upstream.requests("hang")[-1]
    assert seen.closed.wait(60)
    gateway.wait_for(lambda: gateway.metric("gateway_requests_in_flight") == 0, "the end")


def silently(client: httpx.Client, url: str, body: Any) -> None:
    with pytest.raises(httpx.TimeoutException):
        client.post(f"{url}{ROUTE}", json=body, timeout=httpx.Timeout(60, read=1.0))


def test_a_deadline_is_kept_and_takes_the_request_back(
    gateway: ServerProcess, upstream: ChaosUpstream
) -> None:
    reply = ask(gateway, "hung", headers={"x-request-timeout": "0.3"})
    assert reply.status_code == 504
    assert upstream.requests("hang")[-1].closed.wait(60)


def test_a_stream_arrives_while_it_is_made(gateway: ServerProcess, upstream: ChaosUpstream) -> None:
    body = {"model": "gated", "messages": MESSAGES, "stream": True}
    with HTTP.stream("POST", f"{gateway.url}{ROUTE}", json=body) as reply:
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        upstream.gate.set()
        assert "data: [DONE]" in list(lines)


def test_sessions_stay_with_one_target(gateway: ServerProcess) -> None:
    def target(**more: Any) -> str:
        return ask(gateway, "sessions", **more).headers["x-gateway-target"]

    by_user = {user: target(user=user) for user in map(str, range(12))}
    assert len(set(by_user.values())) > 1
    assert {user: target(user=user) for user in by_user} == by_user
    assert {user: target(headers={"x-session-id": user}) for user in by_user} == by_user
    found = ask(gateway, "sessions", user="1")
    assert found.headers["x-gateway-route"] == "session"


def test_prompts_that_begin_alike_meet(gateway: ServerProcess) -> None:
    def target(system: str, text: str) -> str:
        messages = [{"role": "system", "content": system * 70}, {"role": "user", "content": text}]
        return ask(gateway, "prefixes", messages=messages).headers["x-gateway-target"]

    first = {system: target(system, "one") for system in "abcdefghij"}
    assert len(set(first.values())) > 1
    assert {system: target(system, "two") for system in first} == first


def test_a_canary_gets_its_share_and_keeps_its_users(gateway: ServerProcess) -> None:
    def model(user: str) -> str:
        reply = ask(gateway, "canary", headers={"x-user": user})
        found = reply.headers["x-gateway-model"]
        assert reply.headers["x-gateway-route"] == f"split:{found}, only"
        return found

    shares = {user: model(user) for user in map(str, range(30))}
    assert 1 <= list(shares.values()).count("v2") <= 14
    assert {user: model(user) for user in list(shares)[:5]} == dict(list(shares.items())[:5])


def test_fallbacks_by_class_of_error(gateway: ServerProcess) -> None:
    long = ask(gateway, "short")
    assert long.headers["x-gateway-model"] == "long"
    assert long.headers["x-gateway-route"] == "fallback:context_too_long:long, only"
    assert "x-gateway-degraded" not in long.headers
    busy = ask(gateway, "busy")
    assert busy.headers["x-gateway-route"] == "fallback:overloaded:long, only"
    assert busy.headers["x-gateway-degraded"] == "busy"
    for stream in (False, True):
        down = ask(gateway, "down", stream=stream)
        assert down.headers["x-gateway-model"] == "own"
        assert down.headers["x-gateway-target"] == "local/0"
        assert down.headers["x-gateway-route"] == "fallback:down:own, only"
        assert down.headers["x-gateway-degraded"] == "down"
    assert last_line(gateway, down.headers["x-request-id"])["degraded"] == "down"


def test_a_model_here_and_elsewhere(gateway: ServerProcess) -> None:
    reply = ask(gateway, "mixed")
    assert reply.json()["choices"][0]["message"]["content"] == "from this process"
    assert reply.headers["x-gateway-target"] == "here/0"
    assert reply.headers["x-gateway-route"] == "retry:1, only"


def test_shadow_copies_change_nothing(gateway: ServerProcess, upstream: ChaosUpstream) -> None:
    reply = ask(gateway, "copied", user="shadow")
    assert reply.headers["x-gateway-model"] == "copied"

    def copied() -> bool:
        label = '{model_name="copied",outcome="completed"}'
        return gateway.metric(f"gateway_shadow_requests_total{label}") == 1

    gateway.wait_for(copied, "the copy")
    seen = upstream.requests("ok-shadow")[-1].document
    assert seen == {"model": "tried", "messages": MESSAGES, "user": "shadow"}
    lines = [line for line in gateway.log_lines() if line.get("model") == "tried"]
    assert lines == []


def test_a_limit_can_be_passed_on(gateway: ServerProcess) -> None:
    reply = ask(gateway, "limited")
    assert reply.status_code == 429
    assert reply.json()["error"]["code"] == "upstream_rate_limited"
    assert reply.headers["retry-after"] == "7"


def test_a_breaker_opens_and_closes(gateway: ServerProcess, upstream: ChaosUpstream) -> None:
    upstream.broken.add("ok-flaky")
    for _ in range(2):
        assert ask(gateway, "flaky").status_code == 503
    label = '{model_name="flaky",target="openai/0"}'
    assert gateway.metric(f"gateway_target_breaker{label}") > 0
    upstream.broken.discard("ok-flaky")
    gateway.wait_for(lambda: ask(gateway, "flaky").status_code == 200, "the breaker to close")
    assert gateway.metric(f"gateway_target_breaker{label}") == 0


def test_other_endpoints(gateway: ServerProcess, upstream: ChaosUpstream) -> None:
    def post(path: str, **body: Any) -> httpx.Response:
        return HTTP.post(f"{gateway.url}{path}", json={"model": "plain"} | body)

    assert post("/v1/completions", prompt="x").status_code == 200
    assert post("/v1/embeddings", input="x").status_code == 200
    assert post("/v1/responses", input="x").status_code == 200
    assert upstream.requests("ok")[-1].document["store"] is False
    refused = post("/v1/responses", input="x", previous_response_id="resp_1")
    assert refused.json()["error"]["param"] == "previous_response_id"
    assert post("/v1/messages", messages=MESSAGES, max_tokens=4).status_code == 200
    assert upstream.requests("ok")[-1].headers["anthropic-version"] == "2023-06-01"
    tokens = post("/tokenize", prompt="x")
    assert (tokens.status_code, tokens.json()["error"]["code"]) == (400, "endpoint_not_supported")
    unknown = HTTP.post(f"{gateway.url}{ROUTE}", json={"model": "nope", "messages": MESSAGES})
    assert unknown.json()["error"]["code"] == "model_not_found"
    listed = HTTP.get(f"{gateway.url}/v1/models").json()["data"]
    assert {"plain", "gpt-4o", "ü/name", "canary", "own"} <= {model["id"] for model in listed}


def test_faults_in_a_body_are_told_here(gateway: ServerProcess, upstream: ChaosUpstream) -> None:
    count = len(upstream.seen)
    for body in (b"{", b'{"model":"plain","model":"v1"}', b'{"model":7}', b"[]", b""):
        reply = HTTP.post(
            f"{gateway.url}{ROUTE}", content=body, headers={"content-type": "application/json"}
        )
        assert reply.status_code == 400, body
    assert len(upstream.seen) == count


def test_servers_come_and_go_with_a_file(
    start: Callable[..., ServerProcess], upstream: ChaosUpstream, tmp_path: Path
) -> None:
    listed = tmp_path / "servers"
    listed.write_text(upstream.url("ok-a"))
    text = f"""
models:
- name: found
  targets: [{{discovery: {{kind: file, file: {listed}, interval: 0.1}}, name: f, most_requests: 1}}]
- name: named
  targets:
  - base_url: "{upstream.url("ok-b", "localhost")}"
    discovery: {{kind: dns, interval: 0.1}}
"""
    server = start(text).wait_ready()
    assert ask(server, "found").headers["x-gateway-target"] == "f/0"
    assert ask(server, "named").status_code == 200
    listed.write_text(f"{upstream.url('ok-b')}\n{upstream.url('hang')}\n")

    def two() -> bool:
        up = [name for name in server.metrics() if name.startswith("gateway_target_up")]
        return sum("found" in name for name in up) == 2 and not any("f/0" in name for name in up)

    server.wait_for(two, "the new servers")
    listed.write_text("not a url")
    assert ask(server, "found").headers["x-gateway-target"] == "f/1"
    listed.write_text("")
    server.wait_for(lambda: ask(server, "found").status_code == 503, "nobody to be left")


def test_requests_wait_for_a_server_that_is_full(
    start: Callable[..., ServerProcess], upstream: ChaosUpstream
) -> None:
    text = f"""
models:
- name: one
  targets: [{{base_url: "{upstream.url("pace")}", most_requests: 1, name: one}}]
"""
    server = start(text).wait_ready()
    with ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda _: ask(server, "one"), range(6)))
    assert [reply.status_code for reply in replies] == [200] * 6
    assert upstream.most_at_once == 1
