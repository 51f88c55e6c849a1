"""The outermost ASGI application: identity, routing of hot paths, errors, and the account.

Everything is refused that is not on the list of open paths and carries no valid key, whether a
route exists for it or not. Decisions use ``scope["path"]``, which is what routes are matched
by, and never the text of a URL (CVE-2026-48710).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI

from gateway.errors import (
    ClientGone,
    HostNotAllowed,
    MethodNotAllowed,
    answer,
    is_expected,
)
from gateway.http.exchange import Exchange, Outcome, Receive, Send
from gateway.protocol.anthropic_errors import OVERLOADED
from gateway.state import GatewayState
from gateway.telemetry.logging import REQUEST_ID

log = logging.getLogger("gateway.access")

# Paths that need no key on any server: a load balancer's probes have none.
OPEN_PATHS = frozenset({"/health", "/health/startup", "/health/live", "/health/ready"})
# Answered without a line in the log unless they fail, as open paths are.
QUIET_ROUTES = OPEN_PATHS | {"/metrics"}

Scope = Any
HotHandler = Callable[[Exchange], Awaitable[None]]

_HOST = re.compile(rb"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")


class Edge:
    """Wraps the application; one Exchange per request.

    Attributes:
        hot: handlers of POST routes that bypass the framework, by path.
        cold: the framework's application, for everything else.
        open_paths: exact paths that need no key.
    """

    def __init__(
        self,
        state: GatewayState,
        hot: Mapping[str, HotHandler],
        cold: FastAPI,
        open_paths: frozenset[str] = OPEN_PATHS,
    ) -> None:
        self._state = state
        self.hot = dict(hot)
        self.cold = cold
        self.open_paths = open_paths
        self._quiet = QUIET_ROUTES | open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface; HTTP only."""
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected scope type {scope['type']}")
        exchange = Exchange(scope, receive, send)
        REQUEST_ID.set(exchange.request_id)
        try:
            await self._serve(exchange)
            exchange.outcome = exchange.outcome or outcome_of(exchange.status)
        except ClientGone:
            exchange.outcome = "cancelled"
        except asyncio.CancelledError:
            exchange.outcome = "cancelled"
            raise
        except Exception as error:
            await self._fail(exchange, error)
        finally:
            self._account(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        check_host(exchange.headers.get(b"host"), self._state)
        self._find_vertex_probe(exchange)
        handler = self.hot.get(exchange.path)
        if exchange.path not in self.open_paths:
            exchange.principal = self._state.keyring.identify(exchange.headers)
        if handler is None:
            exchange.scope["exchange"] = exchange
            await self.cold(exchange.scope, exchange.receive, exchange.forward)
            exchange.route = route_of(exchange)
        elif exchange.method == "POST":
            exchange.route = exchange.path
            await handler(exchange)
        else:
            exchange.route = exchange.path
            raise MethodNotAllowed(f"Use POST for {exchange.path}.", allow="POST")

    def _find_vertex_probe(self, exchange: Exchange) -> None:
        """Vertex AI's probe goes to the path that it chose itself."""
        asked = exchange.path == self._state.settings.aip_health_route
        if asked and exchange.method in ("GET", "HEAD"):
            exchange.path = exchange.scope["path"] = "/health/ready"

    async def _fail(self, exchange: Exchange, error: Exception) -> None:
        """Answer an exception: with its status before headers, else with an error event."""
        if not is_expected(error):
            log.error("unexpected exception", exc_info=error)
        reply = answer(error, exchange.request_id, exchange.path)
        if not exchange.status:
            await exchange.respond_error(reply)
            exchange.outcome = outcome_of(reply.status)
        else:
            exchange.outcome = "failed"
            exchange.error_code = reply.code
            if not exchange.complete:
                await exchange.end(reply.event)

    def _account(self, exchange: Exchange) -> None:
        """Count the request once, and write its line."""
        outcome: Outcome = exchange.outcome or "failed"
        elapsed = time.perf_counter() - exchange.started
        metrics = self._state.lifecycle.metrics
        metrics.requests[exchange.route, outcome] += 1
        metrics.duration.observe(elapsed)
        if exchange.route in self._quiet and exchange.status < 500:
            return
        log.info(
            "request",
            extra={
                "fields": {
                    "method": exchange.method,
                    "route": exchange.route,
                    "status": exchange.status or None,
                    "outcome": outcome,
                    "error_code": exchange.error_code,
                    "key": exchange.principal.id,
                    "duration_ms": round(elapsed * 1000, 2),
                    **exchange.details,
                }
            },
        )


def outcome_of(status: int) -> Outcome:
    """How a response with this status counts."""
    if status < 400:
        return "completed"
    if status in (429, 503, OVERLOADED):
        return "shed"
    return "rejected" if status < 500 else "failed"


def route_of(exchange: Exchange) -> str:
    """The matched route's own path: bounded, unlike what clients put into paths."""
    route = exchange.scope.get("route")
    return str(getattr(route, "path", "unknown"))


def check_host(host: bytes | None, state: GatewayState) -> None:
    """Refuse a malformed Host, and on a server without keys any foreign name.

    A web page can point its own name at 127.0.0.1 (DNS rebinding) and would then reach a
    keyless local server; its requests still carry its name.
    """
    if host is None:
        return
    match = _HOST.fullmatch(host)
    if match is None:
        raise HostNotAllowed("The Host header is malformed.")
    if not state.keyring.open:
        return
    name = match[1].decode().strip("[]").lower()
    if name in ("localhost", state.settings.host.lower()) or name.endswith(".localhost"):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise HostNotAllowed(
            "This server has no API keys and answers only to localhost and IP addresses. "
            "Set API_KEYS to serve it under a name."
        ) from None
