"""What a starting server says, and how it fails to start."""

import json
import shlex
import socket
import subprocess
import sys

import httpx
import pytest
from server_process import MESSAGES, NewServer, info_with

from gateway.banner import Banner
from gateway.server import BindError, bind
from gateway.settings import Settings


def test_health_while_the_model_loads(new_server: NewServer) -> None:
    server = new_server(options={"start_s": 10_000}).wait_bound()
    with httpx.Client(base_url=server.url) as http:
        assert http.get("/health/live").status_code == 200
        startup = http.get("/health/startup")
        assert startup.status_code == 503
        assert set(startup.json()) == {"status", "stage", "fraction", "engines"}
        for path in ("/health", "/health/ready"):
            assert http.get(path).status_code == 503
            assert http.get(path).json()["status"] == "loading"
        assert http.get("/version").json()["model"] is None
        assert http.get("/metrics").status_code == 200
        for reply in (
            http.get("/v1/models"),
            http.post("/v1/chat/completions", json={"messages": MESSAGES}),
        ):
            assert reply.status_code == 503
            assert reply.json()["error"]["code"] == "model_loading"
            assert int(reply.headers["retry-after"]) > 0
    server.signal()
    assert server.wait_exit() == 0


def test_a_slow_start_becomes_ready(new_server: NewServer) -> None:
    server = new_server(options={"start_s": 1.0, "text": "ok"}).wait_bound()
    fractions: set[float | None] = set()

    def started() -> bool:
        reply = httpx.get(f"{server.url}/health/startup")
        fractions.add(reply.json()["fraction"])
        return reply.status_code == 200

    server.wait_for(started, "the start")
    assert len(fractions) > 2, "progress must be visible"
    assert httpx.get(f"{server.url}/health").json() == {"status": "ready"}
    reply = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": MESSAGES})
    assert reply.json()["choices"][0]["message"]["content"] == "ok"


def test_a_failed_start_is_one_sentence(new_server: NewServer) -> None:
    server = new_server(options={"start_error": "no space left: free 3 GB on /data"})
    assert server.wait_exit() == 1
    assert server.err.read_text() == "llm-gateway: no space left: free 3 GB on /data\n"


def test_a_taken_port_is_one_sentence(new_server: NewServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = new_server(PORT=str(taken.getsockname()[1]))
        assert server.wait_exit() == 1
        assert "already in use; set PORT" in server.err.read_text()
        assert server.err.read_text().count("\n") == 1


def test_a_bind_beyond_loopback_needs_a_key(new_server: NewServer) -> None:
    server = new_server(HOST="0.0.0.0")
    assert server.wait_exit() == 1
    assert "API_KEYS" in server.err.read_text()
    assert "Traceback" not in server.err.read_text()


@pytest.mark.parametrize("host", ["203.0.113.9", "no-such-host.invalid", "1.2.3.4x"])
def test_an_address_of_another_machine(host: str) -> None:
    with pytest.raises(BindError, match="not an address of this machine"):
        bind(host, 0)


def test_light_imports() -> None:
    script = (
        # A namespace of Google's packages is there before the first line of any script.
        "import sys; before = set(sys.modules)\n"
        "import gateway.app, gateway.server, gateway.cli\n"
        "heavy = {'torch', 'vllm', 'transformers', 'onnxruntime', 'openai'}\n"
        "new = set(sys.modules) - before\n"
        "print([name for name in new if name in heavy or name.startswith('google.')])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert shown.stdout.strip() == "[]"


def test_banner(new_server: NewServer) -> None:
    server = new_server(API_KEYS="k" * 32).wait_ready()
    shown = server.out.read_text()
    assert "engine   fake (ENGINE=fake asks for it)" in shown
    assert 'Bearer ${API_KEYS%%,*}"' in shown
    assert "k" * 32 not in shown


def test_the_printed_example_asks_what_the_models_do() -> None:
    banner = Banner(Settings(_env_file=None), 8000)
    embedder, chatter = info_with(generation=False, embeddings=True), info_with()
    assert "/v1/chat/completions" in banner.example([embedder, chatter])
    alone = shlex.split(banner.example([embedder]))
    assert alone[:2] == ["curl", "http://127.0.0.1:8000/v1/embeddings"]
    assert json.loads(alone[-1]) == {"model": "m", "input": "Hello!"}
