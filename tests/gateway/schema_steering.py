"""Turns made-up requests that fit the schema into ones that the server can also carry out.

A schema cannot say which models and files exist, what a role goes with, or which fields exclude
each other. So a request that is meant to be right names things that exist, says something that
can be answered, and keeps a few of the fields that were made up for it.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from schemathesis import Case
from schemathesis.generation import GenerationMode
from server_process import PATIENCE_S, ServerProcess

from gateway.protocol.anthropic_parameters import COUNT_TOKENS, MESSAGES
from gateway.protocol.batch_parameters import BATCH
from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.completion_parameters import COMPLETION
from gateway.protocol.embedding_request import EMBEDDINGS
from gateway.protocol.parameters import Parameter
from gateway.protocol.predict import PREDICT
from gateway.protocol.response_parameters import RESPONSES
from gateway.protocol.token_requests import DETOKENIZE, TOKENIZE

Json = dict[str, Any]
CHATTER, EMBEDDER = "tiny-chat", "embedder"
TABLES: dict[str, Mapping[str, Parameter]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/responses": RESPONSES,
    "/v1/messages": MESSAGES,
    "/v1/messages/count_tokens": COUNT_TOKENS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/batches": BATCH,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/predict": PREDICT,
}
MOST_FIELDS = 3
SHORT = 6
STREAMED = 0.2


class Steering:
    """Knows one server, and makes there what requests are to be about."""

    def __init__(self, server: ServerProcess, key: str, admin_key: str) -> None:
        self._http = httpx.Client(
            base_url=server.url, headers={"x-api-key": key}, timeout=PATIENCE_S
        )
        self._admin = {"x-api-key": admin_key}
        self._made: dict[str, str] = {}

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def steer(self, case: Case) -> None:
        """Change a request in place; one that is meant to be wrong stays as it is."""
        if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
            return
        draw = random.Random(zlib.crc32(repr((case.body, case.query)).encode()))
        for name in case.path_parameters or {}:
            # What a request changes or takes away is made for it alone.
            fresh = case.method in ("POST", "PATCH", "DELETE")
            case.path_parameters[name] = self._existing(name, fresh)
        if isinstance(case.query, dict) and case.query:
            kept = draw.sample(sorted(case.query), draw.randint(0, 1))
            case.query = {name: case.query[name] for name in kept}
        if case.path in TABLES and isinstance(case.body, dict):
            case.body = self._body(case.path, case.body, draw)

    def _body(self, path: str, given: Json, draw: random.Random) -> Json:
        table = TABLES[path]
        named = (n for n in given if given[n] is not None and n in table)
        usable = sorted(name for name in named if table[name].treatment == "honoured")
        body = {name: given[name] for name in draw.sample(usable, min(MOST_FIELDS, len(usable)))}
        if "stream" in table and draw.random() < STREAMED:
            body["stream"] = True
        return body | self._content(path, given)

    def _content(self, path: str, given: Json) -> Json:
        """The least that makes a request whole, about what the made-up one is about."""
        says = [{"role": "user", "content": first_text(given) or "Hi"}]
        chat: Json = {"model": CHATTER, "messages": says}
        contents: dict[str, Callable[[], Json]] = {
            "/v1/chat/completions": lambda: chat | {"max_tokens": SHORT},
            "/v1/messages": lambda: chat | {"max_tokens": SHORT},
            "/v1/messages/count_tokens": lambda: chat,
            "/v1/completions": lambda: {
                "model": CHATTER,
                "prompt": first_text(given) or "Hi",
                "max_tokens": SHORT,
            },
            "/v1/responses": lambda: {
                "model": CHATTER,
                "input": first_text(given) or "Hi",
                "max_output_tokens": SHORT,
            },
            "/v1/embeddings": lambda: {"model": EMBEDDER, "input": first_text(given) or "Hi"},
            "/v1/batches": lambda: {
                "input_file_id": self._existing("file_id", fresh=False),
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
            "/tokenize": lambda: {"model": CHATTER, "prompt": first_text(given)},
            "/detokenize": lambda: {"model": CHATTER, "tokens": [70, 71, 72]},
            "/predict": lambda: {"instances": [{"messages": says, "max_tokens": SHORT}]},
        }
        return contents[path]()

    def _existing(self, name: str, fresh: bool) -> str:
        """An id of what a parameter of the path names."""
        make: Callable[[], str] = getattr(self, f"_new_{name}")
        if fresh:
            return make()
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _new_model_id(self) -> str:
        return CHATTER

    def _new_key_id(self) -> str:
        return self._post("/admin/keys", headers=self._admin, json={"name": "steered"})

    def _new_response_id(self) -> str:
        asked = {"input": "Hi", "max_output_tokens": 1, "store": True, "background": True}
        return self._post("/v1/responses", json=asked)

    def _new_file_id(self) -> str:
        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
        files = {"file": ("lines.jsonl", json.dumps(line).encode())}
        return self._post("/v1/files", files=files, data={"purpose": "batch"})

    def _new_batch_id(self) -> str:
        return self._post("/v1/batches", json=self._content("/v1/batches", {}))

    def _post(self, path: str, **request: Any) -> str:
        reply = self._http.post(path, **request)
        assert reply.is_success, reply.text
        return str(reply.json()["id"])


def first_text(value: Any) -> str:
    """The first text in a made-up value that a message can hold; at most 30 characters."""
    if isinstance(value, str):
        return value[:30] if value.isprintable() and value.strip() else ""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((text for text in map(first_text, inner) if text), "")
