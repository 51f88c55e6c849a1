"""Requests to a gateway, over connections that are kept."""

from __future__ import annotations

import json
from typing import Any

import httpx
from server_process import ServerProcess

ROUTE = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
HTTP = httpx.Client(timeout=60)


def ask(server: ServerProcess, model: str, **more: Any) -> httpx.Response:
    """A chat completion; ``headers`` are the request's."""
    headers = more.pop("headers", {})
    body = {"model": model, "messages": MESSAGES} | more
    return HTTP.post(f"{server.url}{ROUTE}", json=body, headers=headers)


def events(reply: httpx.Response) -> list[Any]:
    """The data of a stream's events, but for its end."""
    lines = [line[6:] for line in reply.text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def last_line(server: ServerProcess, request_id: str) -> dict[str, Any]:
    """The request's line of the access log."""
    found: list[dict[str, Any]] = []

    def logged() -> bool:
        lines = server.log_lines()
        found[:] = [
            line
            for line in lines
            if line["message"] == "request" and line["request_id"] == request_id
        ]
        return bool(found)

    server.wait_for(logged, "the access log")
    return found[0]
