"""A hub id: only the config is fetched, and what goes wrong is said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import capacity_models as known
import pytest

from engine.capacity import CapacityError
from engine.capacity.model import open_model

COMMIT = "c" * 40


class Hub(BaseHTTPRequestHandler):
    """Serves acme/llama's config.json as the hub does; everything else is missing."""

    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        body = json.dumps(known.LLAMA_8B).encode()
        found = self.path == "/acme/llama/resolve/main/config.json"
        self.send_response(200 if found else 404)
        if found:
            self.send_header("ETag", '"abc"')
            self.send_header("X-Repo-Commit", COMMIT)
        elif self.path.startswith("/acme/none"):
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body) if found else 0))
        self.end_headers()
        if found and self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield Hub
    server.shutdown()
    thread.join()
    server.server_close()


def test_only_the_config_is_fetched(hub: type[Hub]) -> None:
    model = open_model("acme/llama")
    assert model.weights.parameters == 8_030_261_248
    assert model.weights.source == "config"
    assert {path for path in hub.asked if "resolve" in path} == {
        "/acme/llama/resolve/main/config.json"
    }


def test_a_model_that_the_hub_does_not_have_is_named(hub: type[Hub]) -> None:
    with pytest.raises(CapacityError, match=r"acme/none.*config\.json alone is enough"):
        open_model("acme/none")
