"""Vertex AI's container contract, played against the real gateway process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from invoke_front import DEDICATED_BYTES, SHARED_BYTES, VertexFront
from prober_container import (
    ADMIN_KEY,
    ATTEMPTS,
    PREDICT_ROUTE,
    UNHEALTHY_AFTER,
    ContainerProber,
    start_container,
)
from pydantic import ValidationError
from server_process import MESSAGES, PATIENCE_S, SENTENCE, ServerProcess

from gateway.settings import Settings

KEY = "team-key-0123456789"
GOOGLE_TOKEN = {"authorization": "Bearer ya29.of-the-caller"}
CHAT = {"messages": MESSAGES}
GAUGES = ("vllm:num_requests_waiting", "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc")


class Call(threading.Thread):
    """One streamed request through the front, read to its end."""

    def __init__(self, front: VertexFront, tokens: int) -> None:
        super().__init__(daemon=True)
        self._url = f"{front.invoke}/v1/chat/completions"
        self._body = {**CHAT, "stream": True, "max_tokens": tokens, "ignore_eos": True}
        self.first = threading.Event()
        self.status = 0
        self.text = ""
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with httpx.stream("POST", self._url, json=self._body, timeout=PATIENCE_S) as reply:
                self.status = reply.status_code
                for part in reply.iter_text():
                    self.text += part
                    self.first.set()
        except Exception as error:
            self.error = error
        finally:
            self.first.set()

    @property
    def ended(self) -> str:
        """How it ended, as a client sees it."""
        if self.error is not None:
            return f"broken: {self.error!r}"
        if self.status == 200:
            if self.text.rstrip().endswith("data: [DONE]"):
                return "whole"
            return "told" if '"server_draining"' in self.text else f"cut: {self.text[-200:]}"
        error = json.loads(self.text)["error"]
        return f"{self.status} {error['code']}"


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """Whatever a test appends ends with it."""
    started: list[ServerProcess] = []
    yield started
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def front(container: ServerProcess) -> Iterator[VertexFront]:
    running = VertexFront({"501": container.url}, predict_route=PREDICT_ROUTE)
    yield running
    running.close()


def test_prober_finds_the_port_while_a_model_loads(
    tmp_path: Path, containers: list[ServerProcess]
) -> None:
    server = start_container(tmp_path / "slow", options={"hang": "start"})
    containers.append(server)
    prober = ContainerProber(server)
    prober.first_connection()
    for _ in range(ATTEMPTS):
        prober.connect()
    while prober.failures < UNHEALTHY_AFTER:
        assert not prober.check_health()
    assert set(prober.answers) == {503}
    reply = httpx.get(f"{server.url}/health/startup")
    assert (reply.status_code, reply.json()["status"]) == (503, "loading")
    early = httpx.post(f"{server.url}/v1/chat/completions", json=CHAT)
    assert (early.status_code, early.json()["error"]["code"]) == (503, "model_loading")
    assert int(early.headers["retry-after"]) > 0
    server.signal()
    assert server.wait_exit() == 0


def test_prober_routes_once_the_model_has_loaded_and_not_after_its_death(
    tmp_path: Path, containers: list[ServerProcess]
) -> None:
    server = start_container(
        tmp_path / "dying",
        options={"start_s": 0.5, "die_after_tokens": 5},
        RESTART_DELAY_S="86400",
    )
    containers.append(server)
    prober = ContainerProber(server)
    prober.first_connection()
    prober.wait_routed()
    assert set(prober.answers[:-1]) <= {0, 503}
    body = {**CHAT, "ignore_eos": True, "max_tokens": 50}
    died = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)
    assert died.status_code == 503
    before = len(prober.answers)
    while prober.check_health():
        assert len(prober.answers) - before < UNHEALTHY_AFTER
    assert prober.answers[before:] == [503] * UNHEALTHY_AFTER
    prober.connect()  # no restart by Vertex: the gateway starts its engine again itself
    assert httpx.get(f"{server.url}/health/live").status_code == 200


@pytest.mark.parametrize(
    ("health", "predict"),
    [("/", "/predict"), ("/same/for:both", "/same/for:both")],
)
def test_prober_names_the_routes(
    tmp_path: Path, containers: list[ServerProcess], health: str, predict: str
) -> None:
    server = start_container(
        tmp_path / "named",
        options={"text": SENTENCE},
        health_route=health,
        predict_route=predict,
    )
    containers.append(server)
    ContainerProber(server, health).wait_routed()
    for body in ({"instances": [CHAT]}, CHAT, {"prompt": "x"}):
        reply = httpx.post(f"{server.url}{predict}", json=body, timeout=PATIENCE_S)
        assert reply.status_code == 200, reply.text
        assert ("predictions" in reply.json()) == ("instances" in body)
    assert server.metric("gateway_requests_in_flight") == 0
    wrong = httpx.post(f"{server.url}{predict}", json={"inputs": [1]})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "instances")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/models", None),
        ("GET", "/version", None),
        ("GET", "/metrics", None),
        ("GET", "/health/ready", None),
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/v1/completions", {"prompt": "x"}),
        ("POST", "/v1/responses", {"input": "x"}),
        ("POST", "/v1/messages", {**CHAT, "model": "bundled", "max_tokens": 9}),
        ("POST", "/tokenize", {"prompt": "x"}),
    ],
)
def test_prober_invokes_any_route(front: VertexFront, method: str, path: str, body: Any) -> None:
    reply = httpx.request(
        method, f"{front.invoke}{path}", json=body, headers=GOOGLE_TOKEN, timeout=PATIENCE_S
    )
    assert reply.status_code == 200, reply.text


def test_prober_gets_a_clear_404(front: VertexFront) -> None:
    reply = httpx.get(f"{front.invoke}/foo/bar", headers=GOOGLE_TOKEN)
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")


def test_prober_does_not_get_into_the_admin_api(front: VertexFront) -> None:
    for path in ("/admin/keys", "/admin/config", "/admin/usage", "/admin/audit"):
        for headers in ({}, GOOGLE_TOKEN, {"x-api-key": KEY}):
            reply = httpx.get(f"{front.invoke}{path}", headers=headers)
            assert reply.status_code == 403, path
            assert reply.json()["error"]["code"] == "admin_key_required"
        both = {**GOOGLE_TOKEN, "x-api-key": ADMIN_KEY}
        assert httpx.get(f"{front.invoke}{path}", headers=both).status_code == 200


def test_prober_scrapes_the_gauges(front: VertexFront, container: ServerProcess) -> None:
    """AutoMetrics has no key, and reads the port that serves."""
    text = httpx.get(f"{container.url}/metrics").text
    for name in GAUGES:
        assert [line for line in text.splitlines() if line.startswith(f"{name}{{")], name


def test_prober_with_keys_and_a_limit(tmp_path: Path, containers: list[ServerProcess]) -> None:
    """VERTEX_AUTH=key asks for a key beside IAM; Google's token may stand before it."""
    server = start_container(
        tmp_path / "keys", VERTEX_AUTH="key", API_KEYS=KEY, MAX_BODY_BYTES="1000000"
    )
    containers.append(server)
    ContainerProber(server).wait_routed()
    assert httpx.get(f"{server.url}/metrics").status_code == 200
    asked = f"{server.url}/v1/models"
    assert httpx.get(asked, headers=GOOGLE_TOKEN).status_code == 401
    assert httpx.get(asked, headers={**GOOGLE_TOKEN, "x-api-key": KEY}).status_code == 200
    assert httpx.get(asked, headers={**GOOGLE_TOKEN, "x-api-key": KEY + "x"}).status_code == 401
    assert httpx.get(f"{server.url}/metrics", headers=GOOGLE_TOKEN).status_code == 200
    front = VertexFront({"501": server.url})
    try:  # a body that Vertex lets through and this gateway does not
        reply = httpx.post(
            f"{front.invoke}/v1/chat/completions",
            content=padded(SHARED_BYTES),
            headers={**GOOGLE_TOKEN, "x-api-key": KEY, "content-type": "application/json"},
            timeout=PATIENCE_S,
        )
    finally:
        front.close()
    assert reply.status_code == 413
    assert reply.json()["error"]["message"] == "The request body is larger than 1000000 bytes."


def padded(size: int) -> bytes:
    """A chat completion in exactly this many bytes."""
    head, tail = b'{"max_tokens": 4, ', b'"messages": [{"role": "user", "content": "Hi"}]}'
    return head + b" " * (size - len(head) - len(tail)) + tail


@pytest.mark.parametrize("size", [SHARED_BYTES, DEDICATED_BYTES])
def test_prober_sends_bodies_up_to_vertex_limits(front: VertexFront, size: int) -> None:
    headers = {"content-type": "application/json"}
    url = f"{front.invoke}/v1/chat/completions"
    reply = httpx.post(url, content=padded(size), headers=headers, timeout=PATIENCE_S)
    assert reply.status_code == 200, reply.text
    assert reply.json()["usage"]["completion_tokens"] == 4


def test_prober_ends_a_container_and_loses_nothing(
    tmp_path: Path, containers: list[ServerProcess]
) -> None:
    server = start_container(tmp_path / "ending", options={"itl_s": 0.02}, DRAIN_TIMEOUT_S="60")
    containers.append(server)
    prober = ContainerProber(server)
    prober.wait_routed()
    front = VertexFront({"501": server.url})
    try:
        running = [Call(front, 100) for _ in range(4)]
        for call in running:
            call.start()
        for call in running:
            assert call.first.wait(PATIENCE_S)
        server.signal()
        while prober.check_health():
            pass
        late = [Call(front, 5) for _ in range(2)]
        for call in late:
            call.start()
        for call in (*running, *late):
            call.join(PATIENCE_S)
        assert [call.ended for call in running] == ["whole"] * 4
        # While streams still run it says so itself; once it is gone the front does.
        assert {call.status for call in late} == {503}
        assert server.wait_exit() == 0
    finally:
        front.close()


def test_prober_ends_a_container_in_the_least_time_that_is_known(
    tmp_path: Path, containers: list[ServerProcess]
) -> None:
    server = start_container(tmp_path / "short", options={"itl_s": 0.05}, DRAIN_TIMEOUT_S="0.5")
    containers.append(server)
    ContainerProber(server).wait_routed()
    front = VertexFront({"501": server.url})
    try:
        call = Call(front, 8000)
        call.start()
        assert call.first.wait(PATIENCE_S)
        server.signal()
        call.join(PATIENCE_S)
        assert call.ended == "told"
        assert server.wait_exit() == 0
    finally:
        front.close()


def test_prober_has_to_be_there_for_iam() -> None:
    """Without AIP_HTTP_PORT nothing says that IAM stands in front."""
    with pytest.raises(ValidationError, match="VERTEX_AUTH=iam lets everybody in"):
        Settings(_env_file=None, vertex_auth="iam")
    assert Settings(_env_file=None, vertex_auth="iam", aip_http_port=8080, host="0.0.0.0")
