"""A server whose engine has one place, and more clients than that."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from queued_calls import KEYS, TOKEN_S, Call, Ends, depth, is_free, occupied, queue_up
from server_process import PATIENCE_S, NewServer, ServerProcess

from gateway.control.admission.ticket import cost_of

# One place and nothing beyond it, so that the gateway alone decides about the order.
ONE_PLACE = {"MAX_NUM_SEQS": "1", "ADMISSION_OVERCOMMIT": "0", "API_KEYS": ",".join(KEYS)}
QUEUE = 14
FREED_WITHIN_S = 1.0
# The bound holds on an idle machine; a shared one delays processes by more than that.
SLACK_S = 9.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    settings = {**ONE_PLACE, "MAX_QUEUE": str(QUEUE), "QUEUE_PROMOTE_S": "3600"}
    folder: Path = tmp_path_factory.mktemp("server")
    started = ServerProcess(folder, options={"itl_s": TOKEN_S}, **settings)
    yield started.wait_ready()
    started.kill()


@pytest.fixture(autouse=True)
def _leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "server" in request.fixturenames:
        server: ServerProcess = request.getfixturevalue("server")
        server.wait_for(lambda: is_free(server), "nothing to be left", FREED_WITHIN_S + SLACK_S)


def test_classes_are_served_in_order(server: ServerProcess) -> None:
    asked = ["batch", "default", "interactive", "batch", "default", "interactive"]
    completed = Ends(server, "completed")
    with occupied(server) as first:
        calls = queue_up(server, *({"headers": {"x-priority": name}} for name in asked))
        samples = server.metrics()
        assert samples["vllm:num_requests_waiting"] == 6
        of_batches = 'gateway_queue_depth{class="batch"'
        assert [n for name, n in samples.items() if name.startswith(of_batches)] == [2]
        first.drop()
        assert [call.answer()[0] for call in calls] == [200] * 6
    lines = completed.lines(6)
    served = [line.get("class", "default") for line in lines]
    assert served == sorted(asked, key=["interactive", "default", "batch"].index)
    assert all(line["admission_ms"] > 0 for line in lines)


def test_tiers_are_classes_in_the_words_of_openai(server: ServerProcess) -> None:
    """Of a stream as of an answer in one piece, the answer says which tier it was."""
    asked = ["flex", "auto", "priority", "flex", "default", "fast"]
    served = ["flex", "default", "priority", "flex", "default", "priority"]
    completed = Ends(server, "completed")
    with occupied(server) as first:
        calls = queue_up(
            server,
            *({"service_tier": name, "stream": n > 2} for n, name in enumerate(asked)),
            {"service_tier": "priority", "headers": {"x-priority": "batch"}},
        )
        first.drop()
        answers = [call.answer() for call in calls]
    assert [status for status, _, _ in answers] == [200] * 7
    for (_, _, body), tier in zip(answers, [*served, "flex"], strict=True):
        assert f'"service_tier":"{tier}"' in body
    classes = [line.get("class", "default") for line in completed.lines(7)]
    assert classes == ["interactive"] * 2 + ["default"] * 2 + ["batch"] * 3
    status, _, body = Call(server, service_tier="gold").answer()
    assert (status, json.loads(body)["error"]["param"]) == (400, "service_tier")
    assert "service_tier" not in Call(server).answer()[2]


def test_background_work_waits_in_its_class(server: ServerProcess) -> None:
    body = {"model": "bundled", "input": "hi", "background": True, "service_tier": "flex"}
    url, headers = f"{server.url}/v1/responses", {"x-api-key": KEYS[0]}
    with occupied(server), httpx.Client(headers=headers, timeout=PATIENCE_S) as http:
        started = http.post(url, json=body).json()
        assert started["service_tier"] == "flex"
        server.wait_for(lambda: depth(server) == 1, "the response to wait")
        queues = {k: v for k, v in server.metrics().items() if k.startswith("gateway_queue_depth")}
        ended = http.post(f"{url}/{started['id']}/cancel").json()
    assert ended["status"] == "cancelled"
    assert [n for name, n in queues.items() if 'class="batch"' in name] == [1]


def test_two_keys_share_by_tokens(server: ServerProcess) -> None:
    many, few = {"key": KEYS[0], "max_tokens": 24}, {"key": KEYS[1], "max_tokens": 4}
    completed = Ends(server, "completed")
    with occupied(server) as first:
        calls = queue_up(server, *[many] * 5, *[few] * 7)
        first.drop()
        assert [call.answer()[0] for call in calls] == [200] * 12
    lines = completed.lines(12)
    costs = [cost_of(line["prompt_tokens"], line["completion_tokens"]) for line in lines]
    one, other = sorted({line["key"] for line in lines})
    left = {key: sum(line["key"] == key for line in lines) for key in (one, other)}
    assert sorted(left.values()) == [5, 7]
    tokens = {one: 0.0, other: 0.0}
    for line, cost in zip(lines, costs, strict=True):
        tokens[line["key"]] += cost
        left[line["key"]] -= 1
        if all(left.values()):
            assert abs(tokens[one] - tokens[other]) <= max(costs)
    # Whoever asked later and for less is not behind all that was there before.
    assert lines.index(next(x for x in lines if x["completion_tokens"] == 4)) <= 2


def test_overload_is_answered_at_once(server: ServerProcess) -> None:
    refused = Ends(server, "shed")
    with occupied(server):
        calls = queue_up(server, *[{"max_tokens": 5}] * QUEUE)
        for _ in range(60):
            status, headers, body = Call(server).answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "server_is_overloaded")
            assert headers["x-should-retry"] == "true"
            assert 1 <= int(headers["retry-after"]) <= 60
        times = [line["duration_ms"] for line in refused.lines(60)]
        assert statistics.median(times) < 50
        assert depth(server) == QUEUE
        # Somebody else, and somebody more important, are let in for the youngest of the flood.
        other, person = (
            Call(server, key=KEYS[1]),
            Call(server, headers={"x-priority": "interactive"}),
        )
        assert {calls.pop().answer()[0], calls.pop().answer()[0]} == {503}
        for call in (*calls, other, person):
            call.drop()
    labels = 'class="default",reason="{}"'
    assert server.metric(f"gateway_shed_total{{{labels.format('queue_full')}}}") == 60
    assert server.metric(f"gateway_shed_total{{{labels.format('displaced')}}}") == 2


def test_a_wait_that_would_be_too_long_is_not_begun(server: ServerProcess) -> None:
    for call in [Call(server, max_tokens=10) for _ in range(5)]:
        assert call.answer()[0] == 200
    with occupied(server):
        calls = queue_up(server, *[{"max_tokens": 5}] * 12)
        # What has run so far took ten tokens' time each, or more.
        status, headers, body = Call(server, headers={"x-request-timeout": "1"}).answer()
        assert (status, json.loads(body)["error"]["code"]) == (503, "server_is_overloaded")
        assert "would wait longer" in json.loads(body)["error"]["message"]
        assert int(headers["retry-after"]) >= 2
        for call in calls:
            call.drop()


def test_who_has_left_is_not_served(server: ServerProcess) -> None:
    before = server.metrics()
    with occupied(server) as first:
        calls = queue_up(server, *[{"stream": number % 2 == 0} for number in range(8)])
        for call in calls:
            call.drop()
        server.wait_for(lambda: depth(server) == 0, "the queue", FREED_WITHIN_S + SLACK_S)
        first.drop()
    server.wait_for(lambda: is_free(server), "the engine")
    after = server.metrics()
    name = "vllm:request_queue_time_seconds_count"
    assert after[name] - before[name] == 1, "the engine saw only the first"
    cancelled = 'gateway_requests_total{outcome="cancelled",route="/v1/chat/completions"}'
    server.wait_for(
        lambda: server.metric(cancelled) - before.get(cancelled, 0) == 9, "all to be counted"
    )


def test_a_waiting_stream_shows_signs_of_life(new_server: NewServer) -> None:
    server = new_server(
        options={"itl_s": TOKEN_S}, SSE_PING_S="0.1", QUEUE_TIMEOUT_BATCH_S="0.5", **ONE_PLACE
    )
    with occupied(server) as first:
        (call,) = queue_up(server, {"stream": True})
        begin = call.read_some()
        assert begin.startswith(b"HTTP/1.1 200")
        while b": ping" not in begin:
            begin += call.read_some()
        late = Call(server, stream=True, headers={"x-priority": "batch"})
        assert '"code":"server_is_overloaded"' in late.answer()[2]
        first.drop()
        end = b""
        while part := call.read_some():
            end += part
        assert b"data: [DONE]" in end
        call.drop()
    server.wait_for(lambda: is_free(server), "nothing to be left", FREED_WITHIN_S + SLACK_S)


def test_deadlines_and_the_end(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": TOKEN_S}, DRAIN_TIMEOUT_S="1", **ONE_PLACE)
    patient = {"headers": {"x-request-timeout": "0.5"}}
    # While it runs: whole, and as a stream.
    status, headers, body = Call(server, max_tokens=8000, **patient).answer()
    assert (status, json.loads(body)["error"]["code"]) == (504, "request_timeout")
    assert headers["x-should-retry"] == "false"
    longer = {"x-request-timeout": "1.5"}
    status, _, body = Call(server, max_tokens=8000, stream=True, headers=longer).answer()
    assert status == 200
    events = [line for line in body.splitlines() if line.startswith("data: ")]
    assert '"delta":{"content"' in events[1]
    assert json.loads(events[-1][6:])["error"]["code"] == "request_timeout"
    server.wait_for(lambda: is_free(server), "the places", FREED_WITHIN_S + SLACK_S)
    # While it waits.
    with occupied(server):
        status, _, body = Call(server, **patient).answer()
        assert (status, json.loads(body)["error"]["code"]) == (504, "request_timeout")
        assert "before the model could begin" in body
        assert server.metric('gateway_shed_total{class="default",reason="deadline"}') == 1
        assert depth(server) == 0
    server.wait_for(lambda: is_free(server), "the places", FREED_WITHIN_S + SLACK_S)
    # At the end of a drain, nobody is left waiting.
    with occupied(server):
        calls = queue_up(server, {}, {"stream": True})
        server.signal()
        for call in calls:
            status, headers, body = call.answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "server_draining")
        assert server.wait_exit() == 0
    assert "Traceback" not in server.logs()


def test_waiting_ends_when_the_engine_dies(new_server: NewServer) -> None:
    server = new_server(
        options={"itl_s": TOKEN_S, "die_after_tokens": 100},
        RESTART_DELAY_S="3600",
        **{**ONE_PLACE, "ADMISSION_OVERCOMMIT": "1"},
    )
    with contextlib.closing(Call(server, stream=True, max_tokens=8000).socket):
        server.wait_for(lambda: server.metric("vllm:num_requests_running") == 1, "the first")
        calls = [Call(server) for _ in range(5)]
        for call in calls:
            status, _, body = call.answer()
            assert (status, json.loads(body)["error"]["code"]) == (503, "engine_unavailable")
    server.wait_for(lambda: is_free(server), "nothing to be left", FREED_WITHIN_S + SLACK_S)


def test_classes_on_the_onnx_engine(new_server: NewServer) -> None:
    server = new_server(ENGINE="onnx", MAX_MODEL_LEN="2048", **ONE_PLACE)
    asked = ["batch", "default", "interactive"]
    completed = Ends(server, "completed")
    with contextlib.closing(Call(server, stream=True, max_tokens=1900, n=16).socket) as first:
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        calls = queue_up(server, *({"headers": {"x-priority": name}} for name in asked))
        first.close()
        assert [call.answer()[0] for call in calls] == [200] * 3
    served = [line.get("class", "default") for line in completed.lines(3)]
    assert served == ["interactive", "default", "batch"]
    server.wait_for(lambda: is_free(server), "nothing to be left", FREED_WITHIN_S + SLACK_S)
