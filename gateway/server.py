"""One server process: bind the port, load the engine behind it, serve, drain, exit.

The port is bound first, so that a taken port is reported before minutes of loading, and so that
probes and clients get an answer, if only 503, from the first second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import uvicorn
import uvloop

from engine.base import EngineStartError, ModelInfo
from gateway.app import admin_side, build_app
from gateway.config.hangups import Hangups
from gateway.config.reloader import Reloader
from gateway.config.snapshot import ENV_FILE, read_snapshot, sources_of
from gateway.control.fleet import BuildEngine
from gateway.control.prices import PricesError
from gateway.http.connection import bounded
from gateway.http.edge import Edge
from gateway.routing.load import ConfigError
from gateway.settings import Settings
from gateway.start_stop import FLUSH_S, close_accounts, end_models, start_models
from gateway.state import GatewayState, new_state
from gateway.telemetry.logging import Logs

log = logging.getLogger("gateway.server")

BACKLOG = 2048

OnReady = Callable[[list[ModelInfo], float], None]


class BindError(Exception):
    """The address cannot be bound. The message says why and what to do."""


def bind(host: str, port: int, prefix: str = "") -> socket.socket:
    """A listening socket; connections wait in its backlog until the server accepts them.

    ``prefix`` is of the settings that messages name: ``ADMIN_`` for ADMIN_HOST.
    """
    not_here = f"{prefix}HOST={host} is not an address of this machine; try 127.0.0.1"
    name = host.strip("[]")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
    except OSError:
        raise BindError(not_here) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except PermissionError:
        listener.close()
        raise BindError(f"{prefix}PORT={port} needs more rights; take one above 1023") from None
    except OSError as error:
        listener.close()
        if error.errno == 98 or "in use" in str(error).lower():
            raise BindError(
                f"port {port} on {host} is already in use; set {prefix}PORT to another one "
                "or stop what listens there"
            ) from None
        raise BindError(not_here) from None
    return listener


class Http(uvicorn.Server):
    """uvicorn without its own handling of signals, which drains in another way."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the Process."""
        yield


class Process:
    """The life of one server process.

    Args:
        admin_listener: for the operators' routes, where they have a port of their own.
        given: settings from the command line, by field name.
        set_log_level: takes a level of LOG_LEVEL.

    Raises ConfigError and PricesError.

    Attributes:
        state: shared with the request handlers.
        failure: why the engine did not start, or None.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        build: BuildEngine,
        on_ready: OnReady,
        *,
        admin_listener: socket.socket | None = None,
        given: Mapping[str, Any] = MappingProxyType({}),
        set_log_level: Callable[[str], None] = lambda level: None,
    ) -> None:
        self._settings = settings
        self._admin_listener = admin_listener
        self._listener = listener
        self._build = build
        self._on_ready = on_ready
        self.state: GatewayState = new_state(settings, sources_of(given, ENV_FILE))
        reloader = Reloader(self.state, lambda: read_snapshot(given), set_log_level)
        self.state.live.reloader = reloader
        self._hangups = Hangups(reloader, self.state.lifecycle, self._on_signal)
        self.failure: EngineStartError | None = None
        self._stopping = asyncio.Event()
        self._admin: Http | None = None

    async def run(self) -> None:
        """Serve until a signal or a failed start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self.state.ledger.start()
        self.state.key_watch.start()
        self.state.lifecycle.closers.append(self.state.key_watch.close)
        self._hangups.start(loop)
        app = build_app(self.state)
        http = Http(self._uvicorn_config(app))
        serving = asyncio.create_task(http.serve(sockets=[self._listener]))
        side = asyncio.create_task(self._serve_admin(app))
        loading = asyncio.create_task(self._load())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await self._drain(loading)
        http.should_exit = True
        await serving
        await self._stop_admin(side)
        await close_accounts(self.state)
        stopping.cancel()

    async def _serve_admin(self, app: Edge) -> None:
        if self._admin_listener is not None:
            self._admin = Http(self._uvicorn_config(admin_side(self.state, app)))
            await self._admin.serve(sockets=[self._admin_listener])

    async def _stop_admin(self, serving: asyncio.Task[None]) -> None:
        """The last to go, so that the drain can be watched."""
        if self._admin is not None:
            self._admin.should_exit = True
        await serving

    def _uvicorn_config(self, app: Edge) -> uvicorn.Config:
        settings = self._settings
        return uvicorn.Config(
            app,
            http=bounded(
                settings.max_header_bytes, settings.head_timeout_s, settings.write_timeout_s
            ),
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(settings.keep_alive_s),
            timeout_graceful_shutdown=int(FLUSH_S),
            backlog=BACKLOG,
        )

    async def _load(self) -> None:
        """Build and start the engine while the port already answers."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            infos = await start_models(self.state, self._build)
        except EngineStartError as error:
            self.failure = error
            self._stopping.set()
            return
        self._on_ready(infos, loop.time() - began)
        self.state.lifecycle.begin()

    def _on_signal(self) -> None:
        if self._stopping.is_set():
            os._exit(1)
        log.info("shutting down: no new requests, running ones may finish")
        self.state.lifecycle.draining = True
        self._stopping.set()

    async def _drain(self, loading: asyncio.Task[None]) -> None:
        """Let running requests finish in time, end the others, and free the engine."""
        loading.cancel()
        await asyncio.wait({loading})
        await end_models(self.state)


def run(
    settings: Settings,
    listener: socket.socket,
    build: BuildEngine,
    on_ready: OnReady,
    *,
    admin_listener: socket.socket | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
    new_process: Callable[..., Process] = Process,
) -> int:
    """Run a server on bound sockets until it ends; returns the exit code.

    ``given`` are the settings from the command line, by field name; ``new_process`` takes what
    Process takes.
    """
    logs = Logs(settings.log_level, settings.log_format)

    async def main() -> EngineStartError | None:
        try:
            process = new_process(
                settings,
                listener,
                build,
                on_ready,
                admin_listener=admin_listener,
                given=given,
                set_log_level=logs.set_level,
            )
        except (ConfigError, PricesError) as error:  # a file has changed since it was checked
            return EngineStartError(str(error))
        process.state.lifecycle.metrics.logs_dropped = logs.dropped
        await process.run()
        return process.failure

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failure = runner.run(main())
    logs.stop()
    if failure is not None:
        sys.stderr.write(f"llm-gateway: {failure}\n")
        return 1
    return 0
