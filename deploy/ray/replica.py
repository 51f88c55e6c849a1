"""One gateway without a port of its own: an ASGI application, alive between lifespan events.

Nothing here knows of Ray; what drives it has to speak ASGI with the lifespan protocol.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx

from engine.base import EngineError, EngineStartError
from engine.registry import build_engine
from gateway.app import build_app
from gateway.config.reloader import Reloader
from gateway.config.snapshot import ENV_FILE, read_snapshot, sources_of
from gateway.control.prices import PricesError
from gateway.http.edge import Edge
from gateway.routing.load import ConfigError
from gateway.settings import Settings, SettingsError, load_settings
from gateway.start_stop import close_accounts, end_models, start_models
from gateway.state import GatewayState, new_state
from gateway.telemetry.logging import Logs

log = logging.getLogger("deploy.ray")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

UNSUPPORTED_DATA = 1003
"""WebSocket's close code for what an endpoint does not take (RFC 6455, section 7.4.1)."""


class Replica:
    """An ASGI application that starts a gateway at ``lifespan.startup``, which returns once the
    models have been loaded, and drains and ends it at ``lifespan.shutdown``."""

    def __init__(self) -> None:
        self._edge: Edge | None = None
        self._state: GatewayState | None = None
        self._logs: Logs | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": UNSUPPORTED_DATA})
        elif self._edge is not None:
            await self._edge(scope, receive, without_request_id(send))

    async def check_health(self) -> None:
        """Ask ``/health`` as a probe does. Raises EngineError unless requests are taken."""
        transport = httpx.ASGITransport(app=self)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            reply = await client.get("/health")
        if reply.status_code != 200:
            raise EngineError(f"the gateway takes no requests: {reply.json()['status']}")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._start(read_settings())
        except (SettingsError, ConfigError, PricesError, EngineStartError) as error:
            log.error("the gateway cannot start: %s", error)
            await self._end()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._end()
        await send({"type": "lifespan.shutdown.complete"})

    async def _start(self, settings: Settings) -> None:
        self._logs = logs = Logs(settings.log_level, settings.log_format)
        self._state = state = new_state(settings, sources_of({}, ENV_FILE))
        state.lifecycle.metrics.logs_dropped = logs.dropped
        state.live.reloader = Reloader(state, read_snapshot, logs.set_level)
        state.ledger.start()
        state.key_watch.start()
        state.lifecycle.closers.append(state.key_watch.close)
        self._edge = build_app(state)
        await start_models(state, build_engine)
        state.lifecycle.begin()

    async def _end(self) -> None:
        if self._state is not None:
            await end_models(self._state)
            await close_accounts(self._state)
        if self._logs is not None:
            self._logs.stop()


def without_request_id(send: Send) -> Send:
    """Leaves ``x-request-id`` to the front, which made it or took it from the client, and puts it
    into every response: sent twice, clients read the two as one with a comma."""

    async def send_rest(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [pair for pair in message["headers"] if pair[0] != b"x-request-id"]
            message = {**message, "headers": headers}
        await send(message)

    return send_rest


def read_settings() -> Settings:
    """The settings of the environment and of ``.env``. Raises SettingsError, also where there is
    no key: whether other machines reach the port is Ray's decision, not that of HOST."""
    settings = load_settings()
    if not settings.has_keys():
        raise SettingsError(
            "Ray Serve's proxies may be reachable from other machines and there is no API key: "
            "set API_KEYS (openssl rand -hex 32) in the environment of `ray start` on every node, "
            "or make one with: llm-gateway keys create"
        )
    if settings.admin_port is not None:
        raise SettingsError(
            f"ADMIN_PORT={settings.admin_port}: under Ray Serve a gateway binds no port; take "
            "ADMIN_PORT out and give the operators' keys by ADMIN_KEYS"
        )
    return settings
