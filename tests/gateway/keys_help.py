"""A server with keys of every kind, and ways to make stored ones for it."""

import json
from pathlib import Path
from typing import Any

import httpx
import openai
from server_process import PATIENCE_S, NewServer, ServerProcess
from typer.testing import CliRunner

from gateway.cli import app
from gateway.control.identity.audit import Actor
from gateway.control.identity.manage import KeyAdmin
from gateway.control.identity.store import KeyStore

ENV_KEY = "planted-secret-key-of-the-environment"
ADMIN_KEY = "planted-secret-key-of-the-administrator"
OPERATOR = Actor("cli:test")
CANARY = "the-answer-canary-should-stay-private"
PROXY = "127.0.0.1"
SETTINGS = {
    "API_KEYS": ENV_KEY,
    "ADMIN_KEYS": ADMIN_KEY,
    "SERVED_MODEL_NAME": "first,nickname",
    "MODELS": '[{"model_name":"second","served_model_name":["second"],"engine":"fake"}]',
    "MAX_NUM_SEQS": "1",
    "BATCH_MAX_RUNNING": "1",
    "TRUSTED_PROXIES": "127.0.0.0/8",
    "LOG_LEVEL": "debug",
}
# Long enough for a test to look on; each test ends what it begins.
SLOW: dict[str, Any] = {"max_tokens": 4000, "ignore_eos": True}


def key_server(shared_server: NewServer) -> ServerProcess:
    """Shared by every test of keys."""
    return shared_server(options={"text": CANARY, "itl_s": 0.01}, **SETTINGS)


def admin_of(server: ServerProcess) -> KeyAdmin:
    """The server's store, as the command line uses it."""
    return KeyAdmin(KeyStore(server.folder / "data"))


def http(server: ServerProcess, key: str, **headers: str) -> httpx.Client:
    return httpx.Client(
        base_url=server.url,
        headers={"authorization": f"Bearer {key}", **headers},
        timeout=PATIENCE_S,
    )


def sdk(server: ServerProcess, key: str) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE_S
    )


def make(server: ServerProcess, **asked: Any) -> tuple[str, str]:
    """Id and text of a new key that the server knows already: it made it itself."""
    with http(server, ADMIN_KEY) as client:
        reply = client.post("/admin/keys", json=asked)
    assert reply.status_code == 200, reply.text
    made = reply.json()
    return made["id"], made["key"]


def command(folder: Path, *arguments: str) -> Any:
    """What ``llm-gateway keys`` prints with --json."""
    shown = CliRunner().invoke(app, ["keys", *arguments, "--data-dir", str(folder), "--json"])
    assert shown.exit_code == 0, shown.output
    return json.loads(shown.stdout)


def failure(folder: Path, *arguments: str) -> str:
    """What ``llm-gateway keys`` says when it cannot do that."""
    shown = CliRunner().invoke(app, ["keys", *arguments, "--data-dir", str(folder)])
    assert shown.exit_code == 1, shown.output
    assert "Traceback" not in shown.output
    return shown.output


def status(server: ServerProcess, key: str) -> int:
    """How the server answers to a key."""
    with http(server, key) as client:
        return client.get("/v1/models").status_code
