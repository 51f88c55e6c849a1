"""Requests for a model that nobody serves now wait in the gateway's queue until somebody does."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from chaos_upstream import WORDS, ChaosUpstream
from routing_calls import HTTP, MESSAGES, ROUTE, ask, events, last_line
from server_process import PATIENCE_S, ServerProcess

from gateway.routing.absence import Absence
from gateway.routing.config import Discovery, HealthCheck, RemoteSpec
from gateway.routing.discovery import DiscoveryError, find
from gateway.routing.load import ConfigError, config_of_text
from gateway.routing.remote import RemoteTarget
from gateway.settings import Settings

TEXT = "".join(WORDS)
LONG, SHORT = 60, 0.2
MOST_WAITING = 2


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that tells of servers; empty."""
    path = tmp_path_factory.mktemp("found") / "servers.txt"
    path.write_text("# nobody\n")
    return path


@pytest.fixture(scope="module")
def server(
    start: Callable[..., ServerProcess], upstream: ChaosUpstream, found: Path
) -> ServerProcess:
    def model(name: str, file: Path, wait: float, more: str = "") -> str:
        target = f"{{discovery: {{kind: file, file: {file}, interval: 0.05}}, name: f}}"
        return f"- {{name: {name}, wait_for_target: {wait}, targets: [{target}]{more}}}\n"

    empty = found.with_name("empty.txt")
    empty.write_text("")
    text = (
        "models:\n"
        + model("zero", found, LONG)
        + model("never", empty, SHORT)
        + model("crowded", empty, LONG)
        + model("rescued", empty, SHORT, ", fallbacks: {down: [other]}")
        + f"- {{name: other, targets: [{{base_url: '{upstream.url('ok-other')}'}}]}}\n"
        + f"- {{name: dropped, targets: [{{discovery: {{kind: file, file: {empty}}}}}]}}\n"
    )
    settings = {"MAX_QUEUE": str(MOST_WAITING), "ADMISSION_OVERCOMMIT": "0", "SSE_PING_S": "0.05"}
    return start(text, **settings).wait_ready()


def waiting(server: ServerProcess, model: str) -> float | None:
    return server.metrics().get(f'gateway_queue_depth{{class="default",model_name="{model}"}}')


def wait_for_waiting(server: ServerProcess, model: str, count: int) -> None:
    server.wait_for(lambda: waiting(server, model) == count, f"{count} requests in the queue")


def test_requests_wait_for_the_first_server_in_sight_of_autoscalers(
    server: ServerProcess, upstream: ChaosUpstream, found: Path
) -> None:
    # An autoscaler needs the metric before anybody comes, and a gateway that is ready.
    assert waiting(server, "zero") == 0
    assert waiting(server, "dropped") is None
    ready = HTTP.get(f"{server.url}/health/ready")
    assert (ready.status_code, ready.json()["down"]) == (200, ["dropped"])
    listed = [card["id"] for card in HTTP.get(f"{server.url}/v1/models").json()["data"]]
    assert "zero" in listed
    assert "dropped" not in listed
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(ask, server, "zero", stream=stream) for stream in (False, True)]
        wait_for_waiting(server, "zero", 2)
        found.write_text(upstream.url("ok-first"))
        whole, stream = (answer.result(PATIENCE_S) for answer in answers)
    found.write_text("")
    assert (whole.status_code, stream.status_code) == (200, 200)
    assert whole.json()["choices"][0]["message"]["content"] == TEXT
    said = [event["choices"] for event in events(stream) if event["choices"]]
    assert "".join(choices[0]["delta"].get("content", "") for choices in said) == TEXT
    assert whole.headers["x-gateway-target"] == "f/0"
    assert whole.headers["x-gateway-route"] == "awaited, only"
    assert len(upstream.requests("ok-first")) == 2
    assert waiting(server, "zero") == 0
    line = last_line(server, whole.headers["x-request-id"])
    assert (line["model"], line["target"], line["attempts"]) == ("zero", "f/0", 1)
    assert line["admission_ms"] > 0


def test_the_wait_is_bounded(server: ServerProcess) -> None:
    reply = ask(server, "never")
    assert reply.status_code == 503
    error = reply.json()["error"]
    assert error["code"] == "upstream_unavailable"
    assert error["message"].startswith("No server of 'never' came up within 0.2")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError, match="came up") as raised:
            client.chat.completions.create(model="never", messages=MESSAGES)
        assert raised.value.status_code == 503
        # A stream may have had signs of life by then; then an event tells it.
        with pytest.raises(openai.APIError, match="came up") as broken:
            list(client.chat.completions.create(model="never", messages=MESSAGES, stream=True))
        assert broken.value.code == "upstream_unavailable"
    assert last_line(server, reply.headers["x-request-id"])["model"] == "never"
    assert waiting(server, "never") == 0


def test_a_deadline_ends_the_wait(server: ServerProcess) -> None:
    reply = ask(server, "crowded", headers={"x-request-timeout": "0.1"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "request_timeout")
    assert waiting(server, "crowded") == 0


def test_a_full_queue_refuses_and_clients_that_leave_make_room(server: ServerProcess) -> None:
    leave = threading.Event()

    def come_and_go() -> None:
        body = {"model": "crowded", "messages": MESSAGES, "stream": True}
        with httpx.Client() as client, client.stream("POST", f"{server.url}{ROUTE}", json=body):
            leave.wait(PATIENCE_S)

    with ThreadPoolExecutor() as pool:
        gone = [pool.submit(come_and_go) for _ in range(MOST_WAITING)]
        wait_for_waiting(server, "crowded", MOST_WAITING)
        refused = ask(server, "crowded")
        leave.set()
        for one in gone:
            one.result(PATIENCE_S)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    wait_for_waiting(server, "crowded", 0)


def test_another_model_answers_after_the_wait(server: ServerProcess) -> None:
    reply = ask(server, "rescued")
    assert reply.status_code == 200
    assert reply.headers["x-gateway-degraded"] == "rescued"
    assert reply.headers["x-gateway-route"].startswith("fallback:down:other")


def test_without_the_setting_nobody_waits(server: ServerProcess) -> None:
    reply = ask(server, "dropped")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "upstream_unavailable")


def test_a_reload_keeps_whoever_waits(
    start: Callable[..., ServerProcess], upstream: ChaosUpstream, tmp_path: Path
) -> None:
    listed = tmp_path / "servers.txt"
    listed.write_text("")
    target = f"{{discovery: {{kind: file, file: {listed}, interval: 0.05}}, name: f}}"
    first = f"models:\n- {{name: m, wait_for_target: {LONG}, targets: [{target}]}}\n"
    server = start(first).wait_ready()
    with ThreadPoolExecutor() as pool:
        before = pool.submit(ask, server, "m")
        wait_for_waiting(server, "m", 1)
        more = f"- {{name: new, wait_for_target: {LONG}, targets: [{target}]}}\n"
        text = first.replace(f"target: {LONG}", f"target: {LONG + 1}") + more
        (server.folder / "gateway.yaml").write_text(text)
        server.signal(signal.SIGHUP)
        wait_for_waiting(server, "new", 0)
        after = pool.submit(ask, server, "m")
        wait_for_waiting(server, "m", 2)
        listed.write_text(upstream.url("ok-reloaded"))
        assert [one.result(PATIENCE_S).status_code for one in (before, after)] == [200, 200]
    assert len(upstream.requests("ok-reloaded")) == 2


@pytest.mark.parametrize(
    ("fault", "stay"),
    [
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
        (socket.gaierror(socket.EAI_NODATA, "no address"), False),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), True),
        (TimeoutError(), True),
    ],
)
async def test_a_name_without_addresses_is_nobody_and_a_failed_look_up_is_not(
    monkeypatch: pytest.MonkeyPatch, fault: Exception, stay: bool
) -> None:
    async def look_up(*_: object, **__: object) -> None:
        raise fault

    text = "models: [{name: m, %s targets: [{base_url: 'http://h/v1', discovery: {kind: dns}}]}]"
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", look_up, raising=False)
    for wait, kept in (("wait_for_target: 5,", stay), ("", True)):
        (model,) = config_of_text(text % wait, Settings(), {}).models
        discovery = model.remotes[0].discovery
        if kept:
            with pytest.raises(DiscoveryError, match="does not resolve h"):
                await find(discovery)
        else:
            assert await find(discovery) == []


async def test_servers_that_are_down_count_as_absent() -> None:
    discovery = Discovery("static", ("http://127.0.0.1:9/v1",))
    checks = HealthCheck("/health", interval_s=3600)
    remote = RemoteTarget(
        RemoteSpec("r", "vllm", discovery, frozenset({"chat"}), checks),
    )
    assert not Absence(0, [remote]).lasts
    absence = Absence(30, [remote])
    assert absence.lasts
    await remote.start()
    try:
        assert not absence.lasts
        (server,) = remote.upstreams
        server.well = False
        assert absence.lasts
    finally:
        await remote.stop()


def test_the_time_of_the_last_start_is_told_as_retry_after() -> None:
    first = Absence(600, [])
    first.begin(100)
    first.begin(130)  # the start has been under way for longer than this one has waited
    assert first.retry_after(107.5) == 8  # as long again, before any start has been seen
    assert first.retry_after(1000) == 60
    first.end(140)
    first.end(150)
    after_reload = Absence(600, [], first)
    after_reload.begin(200)
    assert after_reload.retry_after(210) == 30
    assert after_reload.retry_after(239.5) == 1
    assert after_reload.retry_after(300) == 1


@pytest.mark.parametrize(
    ("field", "target", "message"),
    [
        ("60", "model_name: bundled", "only servers elsewhere are waited for"),
        ("0", "base_url: http://a/v1", "Input should be greater than 0"),
        ("100000", "base_url: http://a/v1", "less than or equal to 86400"),
        ("soon", "base_url: http://a/v1", "valid number"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_line(field: str, target: str, message: str) -> None:
    text = f"models:\n- name: m\n  targets: [{{{target}}}]\n  wait_for_target: {field}\n"
    with pytest.raises(ConfigError, match=message) as raised:
        config_of_text(text, Settings(), {})
    assert str(raised.value).startswith("gateway.yaml:4: models[0].wait_for_target: ")


def test_the_setting_is_read_in_seconds() -> None:
    text = "models: [{name: m, wait_for_target: 120, targets: [{base_url: 'http://a/v1'}]}]"
    (model,) = config_of_text(text, Settings(), {}).models
    assert model.wait_for_target_s == 120.0
