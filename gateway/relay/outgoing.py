"""The request that another server gets: the client's own bytes, and few headers."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequest
from gateway.relay.body import with_fields
from gateway.routing.config import API_PATHS, Api, RemoteSpec
from gateway.routing.upstream import Upstream
from gateway.telemetry.tracing import TRACE_HEADERS, trace_headers

# What says nothing of the caller, and what protocols need.
SAFE_HEADERS = TRACE_HEADERS
ANTHROPIC_HEADERS = (b"anthropic-version", b"anthropic-beta")
ANTHROPIC_VERSION = b"2023-06-01"
_VALUE = re.compile(rb"[\x20-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A client's request, parsed once.

    Attributes:
        body: as it came. document: its meaning.
        headers: by lower-case name.
        deadline: ``time.perf_counter()`` after which nobody wants the answer, or None.
    """

    api: Api
    body: bytes
    document: dict[str, Any]
    headers: Mapping[bytes, bytes]
    request_id: str
    deadline: float | None

    @property
    def stream(self) -> bool:
        """Whether events are asked for."""
        return self.document.get("stream") is True and self.api != "embeddings"

    @property
    def wants_usage(self) -> bool:
        """Whether the client asks for the chunk with the stream's usage."""
        options = self.document.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What one server is sent.

    Attributes:
        data: head and body.
        adds_usage: the stream has a last chunk that the client did not ask for.
        adds_ids: its events have token ids that the client did not ask for.
    """

    data: bytes
    adds_usage: bool
    adds_ids: bool = False


def check_relayable(incoming: Incoming) -> None:
    """Refuse what would reach another caller's data: a server elsewhere keeps the responses of
    everybody under the gateway's one key. Raises InvalidRequest."""
    if incoming.api != "responses":
        return
    for name in ("previous_response_id", "conversation", "background"):
        if incoming.document.get(name):
            raise InvalidRequest(
                f"'{name}' needs responses that are stored, and those of this model are not: it "
                "runs on another server. Send the whole conversation in 'input'.",
                param=name,
                code="unsupported_parameter",
            )


def outgoing(
    incoming: Incoming, upstream: Upstream, model: str, *, adds_ids: bool = False
) -> Outgoing:
    """The request for this server; ``model`` is the model's name here."""
    spec = upstream.spec
    fields, adds_usage = changes(incoming, spec, model)
    if adds_ids:
        fields["return_token_ids"] = True
    body = with_fields(incoming.body, fields, incoming.document)
    path = upstream.address.path + API_PATHS[incoming.api]
    lines = [
        upstream.head(b"POST", path),
        b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
        b"accept: text/event-stream\r\n" if incoming.stream else b"accept: application/json\r\n",
        b"x-request-id: " + incoming.request_id.encode() + b"\r\n",
        *forwarded(incoming, spec),
        b"\r\n",
        body,
    ]
    return Outgoing(b"".join(lines), adds_usage, adds_ids)


def changes(incoming: Incoming, spec: RemoteSpec, model: str) -> tuple[dict[str, Any], bool]:
    """Fields that must differ from what the client sent, and whether its stream gets a chunk
    more for that."""
    document, api = incoming.document, incoming.api
    fields: dict[str, Any] = {}
    name = spec.model or model
    if document.get("model") != name:
        fields["model"] = name
    counts = api in ("chat", "completions") and incoming.stream and spec.include_usage
    adds_usage = counts and not incoming.wants_usage
    if adds_usage:
        options = document.get("stream_options")
        known = options if isinstance(options, dict) else {}
        fields["stream_options"] = {**known, "include_usage": True}
    if api == "responses" and document.get("store") is not False:
        fields["store"] = False
    return fields, adds_usage


def forwarded(incoming: Incoming, spec: RemoteSpec) -> list[bytes]:
    """Header lines of the client's that go on; of a trace, where it has been brought to by now."""
    names = [*SAFE_HEADERS, *(name.encode() for name in spec.forward_headers)]
    if incoming.api == "messages":
        names += ANTHROPIC_HEADERS
    own = {name.encode() for name, _ in spec.headers}
    lines = []
    traced = trace_headers()
    headers = incoming.headers if traced is None else {**incoming.headers, **traced}
    for name in names:
        value = headers.get(name)
        if value is None and name == b"anthropic-version":
            value = ANTHROPIC_VERSION
        if value is not None and name not in own and _VALUE.fullmatch(value):
            lines.append(name + b": " + value + b"\r\n")
    if spec.kind == "gateway" and incoming.deadline is not None:
        left = max(0.001, incoming.deadline - time.perf_counter())
        lines.append(b"x-request-timeout: %.3f\r\n" % left)
    return lines
