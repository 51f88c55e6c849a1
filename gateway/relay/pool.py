"""Connections to one server, kept as long as the gateway runs."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from gateway.relay.connection import Connection
from gateway.relay.errors import Unreachable

MOST_IDLE = 256
# Servers close idle connections after 5 s (uvicorn, Node) to 75 s; a lost race is made good.
IDLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is.

    Attributes:
        host: name or address to connect to.
        server_name: for the Host header and TLS.
        path: what comes before an API's own path, such as ``/v1``; without a slash at its end.
    """

    host: str
    port: int
    tls: bool
    server_name: str
    path: str

    @classmethod
    def of_url(cls, url: str, host: str | None = None) -> Address:
        """The address of a base URL; ``host`` is connected to instead of its name."""
        parts = urlsplit(url)
        name = parts.hostname or ""
        tls = parts.scheme == "https"
        port = parts.port or (443 if tls else 80)
        return cls(host or name, port, tls, name, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        name = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"


class ConnectionPool:
    """Owned by the event loop.

    Args:
        connect_s: most seconds until a new connection stands.
        ca_file: certificates to trust instead of the system's.
    """

    def __init__(self, address: Address, connect_s: float, ca_file: Path | None = None) -> None:
        self.address = address
        self._connect_s = connect_s
        self._tls = ssl.create_default_context(cafile=ca_file) if address.tls else None
        self._idle: list[Connection] = []
        self._closed = False

    def connection(self) -> Lent:
        """A connection for one request, to be entered."""
        return Lent(self)

    async def take(self, *, fresh: bool = False) -> Connection:
        """A connection, to be given back. Raises Unreachable."""
        found = None if fresh else self._take_idle()
        return found or await self._connect()

    def give_back(self, connection: Connection) -> None:
        """Keep it if the response was read to its end; close it otherwise."""
        reusable = connection.reusable
        connection.release()
        if reusable and not self._closed and len(self._idle) < MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close what is idle now, and everything else as soon as it is."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> Connection | None:
        oldest = time.monotonic() - IDLE_S
        while self._idle:
            connection = self._idle.pop()  # the newest: the others may be let go of
            if connection.open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self) -> Connection:
        address = self.address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await loop.create_connection(
                    Connection,
                    address.host,
                    address.port,
                    ssl=self._tls,
                    server_hostname=address.server_name if self._tls else None,
                )
        except TimeoutError:
            raise Unreachable(f"no connection within {self._connect_s:g} s") from None
        except OSError as error:
            raise Unreachable(f"no connection: {error.strerror or error}") from None
        return connection


class Lent:
    """A connection from entering to leaving."""

    __slots__ = ("_connection", "_pool")

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def __aenter__(self) -> Connection:
        self._connection = await self._pool.take()
        return self._connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.give_back(self._connection)
