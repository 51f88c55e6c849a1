"""Secrets are planted wherever one can be given; then everything is looked at that can be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import httpx
import pytest
from planted import SECRETS
from traced_server import Traced

ADMIN = {"authorization": f"Bearer {SECRETS['admin key']}"}


def provoke(http: httpx.Client) -> list[httpx.Response]:
    """Requests that go well, and that fail in every way that quotes something."""
    chat, prompt = "/v1/chat/completions", [{"role": "user", "content": SECRETS["prompt"]}]
    replies = [
        http.post(chat, json={"model": model, "messages": prompt, "stream": stream})
        for model in ("own", "far", "broken", "refusing", "unknown")
        for stream in (False, True)
    ]
    key = SECRETS["api key"]
    return [
        *replies,
        http.post(chat, json={"model": "own", "messages": prompt, "max_tokens": "x"}),
        http.post(chat, content=b'{"messages": [', headers={"content-type": "application/json"}),
        http.post(f"{chat}?api_key={key}", json={}),
        http.get("/v1/models/" + key),
        http.get(f"/{key}"),
        http.get("/metrics", headers={"authorization": f"Bearer {key}x"}),
        http.get("/v1/models", headers={"authorization": f"Basic {key}"}),
        http.post(chat, json={"model": "own"}, headers={"traceparent": key, "x-request-id": "a b"}),
    ]


def readable(http: httpx.Client) -> list[httpx.Response]:
    """Everything that can be read without a name in its path."""
    document = http.get("/openapi.json", headers=ADMIN)
    paths = [path for path, ways in document.json()["paths"].items() if "get" in ways]
    plain = [path for path in paths if "{" not in path]
    assert {"/metrics", "/version", "/admin/keys", "/admin/audit", "/admin/config"} <= set(plain)
    return [document, *(http.get(path, headers=ADMIN) for path in plain)]


def seen_by_the_collector(traced: Traced) -> list[Any]:
    """Everything but the header that the collector is to be sent."""
    heads = [
        {name: value for name, value in head.items() if name != "authorization"}
        for head in traced.collector.requests
    ]
    return [*traced.collector.raw, *heads]


def test_nothing_that_can_be_seen_holds_a_secret(traced: Traced) -> None:
    failed = provoke(traced.http)
    traced.collector.of_request(failed[-1].headers["x-request-id"])
    # Where a path or query held a key, only the client itself may be told of it again.
    own_words = [reply for reply in failed if SECRETS["api key"] in str(reply.request.url)]
    replies = [*(reply for reply in failed if reply not in own_words), *readable(traced.http)]
    seen = {
        f"{reply.request.method} {reply.request.url} {reply.status_code}": reply.text
        + str(reply.headers)
        for reply in replies
    }
    seen["stdout"] = traced.server.out.read_text()
    seen["logs"] = traced.server.err.read_text()
    for number, part in enumerate(seen_by_the_collector(traced)):
        text = part.decode("latin-1") if isinstance(part, bytes) else str(part)
        seen[f"traces {number}"] = text
    assert "planted" not in seen["stdout"]
    found = {
        f"{secret} in {where}"
        for where, text in seen.items()
        for secret, value in SECRETS.items()
        if value in text
    }
    assert not found
    # The test would find nothing if nothing of this had been logged or traced.
    assert sum(line["message"] == "request" for line in traced.server.log_lines()) >= len(failed)


@pytest.mark.parametrize("command", ["show", "check"])
def test_commands_do_not_show_them_either(traced: Traced, command: str) -> None:
    environment = traced.server._environment | {"PATH": os.environ["PATH"]}
    shown = subprocess.run(
        [sys.executable, "-m", "gateway", "config", command],
        cwd=traced.server.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    text = shown.stdout + shown.stderr
    assert shown.returncode == 0, text
    assert command == "check" or "REDIS_URL" in text
    assert not [name for name, value in SECRETS.items() if value in text], text
