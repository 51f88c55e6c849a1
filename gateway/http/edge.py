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

from gateway.control.admission.wishes import read_wishes
from gateway.control.identity.access import authorize, group_of
from gateway.control.identity.source import Address, check_source, source_of
from gateway.control.ledger.ledger import Ended
from gateway.control.prices import PriceTable
from gateway.errors import (
    ClientGone,
    DeadlinePassed,
    HostNotAllowed,
    MethodNotAllowed,
    UnknownUrl,
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
        groups: which right each hot path needs.

    Args:
        serves: whether a path is served on this port.
    """

    def __init__(
        self,
        state: GatewayState,
        hot: Mapping[str, HotHandler],
        cold: FastAPI,
        open_paths: frozenset[str] = OPEN_PATHS,
        serves: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._state = state
        self.hot = dict(hot)
        self.cold = cold
        self.open_paths = open_paths
        self._serves = serves
        self._quiet = QUIET_ROUTES | open_paths
        self.groups = {path: group_of(path, "POST") for path in hot}
        if (own := state.settings.aip_predict_route) is not None:
            self.groups[own] = self.groups.get(own) or group_of("/predict", "POST")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface; HTTP only."""
        if scope["type"] != "http":
            raise RuntimeError(f"unexpected scope type {scope['type']}")
        exchange = Exchange(scope, receive, send)
        REQUEST_ID.set(exchange.request_id)
        snapshot = self._state.live.current
        exchange.settings, prices = snapshot.settings, snapshot.prices
        tracing = self._state.tracing
        span = None
        if tracing is not None and exchange.path not in self._quiet:
            span = tracing.begin(exchange)
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
            self._account(exchange, prices)
            if span is not None:
                span.end(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        check_host(exchange.headers.get(b"host"), self._state)
        self._find_vertex_probe(exchange)
        handler = self.hot.get(exchange.path)
        if exchange.path not in self.open_paths:
            exchange.principal = self._state.keyring.identify(exchange.headers)
            if exchange.principal.rights.sources:
                check_source(exchange.principal, source_of_request(exchange, self._state))
        if not self._serves(exchange.path):
            raise UnknownUrl(f"Unknown request URL: {exchange.method} {exchange.path[:256]}.")
        if handler is None:
            exchange.scope["exchange"] = exchange
            try:
                await self.cold(exchange.scope, exchange.receive, exchange.forward)
            finally:
                exchange.route = route_of(exchange)
        elif exchange.method == "POST":
            exchange.route = exchange.path
            authorize(exchange.principal, self.groups.get(exchange.path))
            read_wishes(exchange)
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
        if isinstance(error, DeadlinePassed):
            exchange.outcome = "cancelled"  # by its own wish, as when the client leaves

    def _account(self, exchange: Exchange, prices: PriceTable) -> None:
        """Count the request once, by the prices that it began with, and write its line."""
        outcome: Outcome = exchange.outcome or "failed"
        elapsed = time.perf_counter() - exchange.started
        metrics = self._state.lifecycle.metrics
        metrics.requests[exchange.route, outcome] += 1
        metrics.duration.observe(elapsed)
        metrics.answers.note(exchange.principal.id, exchange.status)
        self._enter(exchange, outcome, elapsed, prices)
        if exchange.route in self._quiet and exchange.status < 500:
            return
        details = exchange.details
        if exchange.status in (401, 403):  # whom to shut out
            details["source"] = str(source_of_request(exchange, self._state))
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
                    **details,
                }
            },
        )

    def _enter(
        self, exchange: Exchange, outcome: Outcome, elapsed_s: float, prices: PriceTable
    ) -> None:
        """Enter a request to the API into the ledger. What goes on in the background is entered
        once that has ended, and what came without a valid key has nobody to be entered for."""
        route, details = exchange.route, exchange.details
        is_api = route in self.hot or route.startswith("/v1/")
        if is_api and not details.get("background"):
            self._state.ledger.record(
                Ended(
                    source="http",
                    principal=exchange.principal,
                    route=route,
                    request_id=exchange.request_id,
                    outcome=outcome,
                    status=exchange.status or None,
                    error_code=exchange.error_code,
                    total_s=elapsed_s,
                    details=details,
                    prices=prices,
                )
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


def source_of_request(exchange: Exchange, state: GatewayState) -> Address | None:
    """The address that a request came from, as far as it can be told."""
    scope = exchange.scope
    return source_of(scope.get("client"), scope["headers"], state.settings.trusted_proxies)


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
    if not state.keyring.open or state.keyring.guests:
        return
    name = match[1].decode().strip("[]").lower()
    if name in ("localhost", state.settings.host.lower()) or name.endswith(".localhost"):
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise HostNotAllowed(
            "This server has no API keys and answers only to localhost and IP addresses. "
            "Make a key with 'llm-gateway keys create', or set API_KEYS, to serve it under a name."
        ) from None
