"""A server under load: its address, and requests in its own words."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any
from urllib.parse import urlsplit

import orjson

from gateway.bench.errors import BenchError
from gateway.bench.exchange import ask
from gateway.bench.options import Endpoint, Server
from gateway.bench.outcome import Outcome
from gateway.bench.words import Vocabulary
from gateway.relay.errors import UpstreamFault
from gateway.relay.pool import Address, ConnectionPool

CONNECT_S = 10.0
LOOKUP_S = 30.0
_VERSION = re.compile(r"/v\d+[a-z0-9]*$")


class Target:
    """Owns the connections to one server.

    Args:
        extra: fields of every request's body.

    Attributes:
        model: empty until it is known.
        fields: of every body too, unless the server turns out not to take them.
        limit: the field that bounds the answer.
        vocabulary: None until it is known.
        notes: what the user should know of this server.
    """

    def __init__(
        self,
        server: Server,
        endpoint: Endpoint,
        extra: dict[str, Any],
        *,
        ignore_eos: bool,
        timeout_s: float,
    ) -> None:
        self.server = server
        self.endpoint = endpoint
        self.model = server.model or ""
        self.fields: dict[str, Any] = {"stream_options": {"include_usage": True}}
        if ignore_eos:
            self.fields["ignore_eos"] = True
        self.limit = "max_tokens"
        self.vocabulary: Vocabulary | None = None
        self.notes: list[str] = []
        self.url = base_url(server.base_url)
        self._extra = extra
        self._timeout_s = timeout_s
        try:
            self._pool = ConnectionPool(Address.of_url(self.url), CONNECT_S, server.ca_file)
        except OSError as error:
            raise BenchError(f"{server.ca_file} holds no certificates: {error}") from None
        self._head = self._common_head()

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    async def ask(self, data: bytes, due: float | None = None) -> Outcome:
        """Send a request that ``request`` made, due now unless a time is given."""
        return await ask(
            self._pool, data, time.perf_counter() if due is None else due, self._timeout_s
        )

    def request(self, content: str | list[dict[str, Any]], output_len: int | None) -> bytes:
        """A whole HTTP request. Raises BenchError when the endpoint cannot take ``content``."""
        body: dict[str, Any] = {"model": self.model, "stream": True, **self.fields}
        if output_len is not None:
            body[self.limit] = output_len
        if self.endpoint == "chat":
            text = isinstance(content, str)
            body["messages"] = [{"role": "user", "content": content}] if text else content
            return self._http("POST", self._path("/chat/completions"), body | self._extra)
        if not isinstance(content, str):
            raise BenchError("messages need --endpoint chat; completions take a 'prompt'")
        return self._http(
            "POST", self._path("/completions"), body | {"prompt": content} | self._extra
        )

    async def models(self) -> tuple[int, Any]:
        """Status and document of the list of models. Raises BenchError."""
        return await self._call("GET", self._path("/models"), None)

    async def tokenize(self, document: dict[str, Any]) -> tuple[int, Any]:
        """Status and document of vLLM's /tokenize, which lies beside the version's folder.
        Raises BenchError."""
        root = _VERSION.sub("", self._pool.address.path)
        return await self._call("POST", f"{root}/tokenize", {"model": self.model, **document})

    def unreachable(self, reason: str) -> BenchError:
        """Nobody answers."""
        return BenchError(
            f"no server answers at {self.url}: {reason}; check the URL, or start a server with:"
            " llm-gateway serve"
        )

    def _path(self, path: str) -> str:
        return self._pool.address.path + path

    def _common_head(self) -> str:
        lines = [f"Host: {self._pool.address.authority}", "Accept: text/event-stream, */*"]
        if self.server.api_key is not None:
            lines.append(f"Authorization: Bearer {self.server.api_key}")
        lines += [f"{name}: {value}" for name, value in self.server.headers]
        if any("\r" in line or "\n" in line or not line.isascii() for line in lines):
            raise BenchError("the key, headers and URL must be of ASCII characters, in one line")
        return "\r\n".join(lines)

    def _http(self, method: str, path: str, document: dict[str, Any] | None) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\n{self._head}\r\n"
        if document is None:
            return f"{head}\r\n".encode()
        payload = orjson.dumps(document)
        kind = f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        return (head + kind).encode() + payload

    async def _call(
        self, method: str, path: str, document: dict[str, Any] | None
    ) -> tuple[int, Any]:
        """Status and JSON of a short answer, None for what is no JSON."""
        try:
            async with asyncio.timeout(LOOKUP_S), self._pool.connection() as connection:
                await connection.request(self._http(method, path, document), LOOKUP_S)
                parts = []
                while part := await connection.read(LOOKUP_S):
                    parts.append(part)
                status = connection.status
        except (UpstreamFault, TimeoutError) as fault:
            raise self.unreachable(str(fault) or f"no answer within {LOOKUP_S:g} s") from None
        try:
            return status, orjson.loads(b"".join(parts))
        except orjson.JSONDecodeError:
            return status, None


def base_url(text: str) -> str:
    """With a scheme and a version. Raises BenchError for what is no http(s) URL."""
    url = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise BenchError(f"{text!r} is no base URL; write one like http://127.0.0.1:8000/v1")
    url = url.rstrip("/")
    return url if _VERSION.search(url) else f"{url}/v1"
