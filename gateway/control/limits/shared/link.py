"""The connection to Redis."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import orjson

from gateway.control.limits.shared.script import SCRIPT

# [status, now, replicas, windows, groups]; see script.py.
Reply = tuple[int, int, int, list[int], list[int]]


class LinkError(Exception):
    """Redis did not answer, or not as it should."""


class Link(Protocol):
    """Runs the script somewhere."""

    async def call(self, keys: list[str], request: dict[str, Any]) -> Reply:
        """Raises LinkError."""

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""


class RedisLink:
    """One connection, used by one task.

    Args:
        url: as redis-py takes it.
        timeout_s: of connecting, and of waiting for an answer.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            max_connections=1,
            # A call whose answer was lost is not sent again: its grants would count twice.
            retry=Retry(NoBackoff(), 0),
            client_name="llm-gateway",
        )
        self._script = self._redis.register_script(SCRIPT)

    async def call(self, keys: list[str], request: dict[str, Any]) -> Reply:
        """Raises LinkError."""
        from redis.exceptions import RedisError

        try:
            status, now, replicas, windows, groups = await self._script(
                keys=keys, args=[orjson.dumps(request)]
            )
        except (RedisError, OSError, ValueError, TypeError) as error:
            raise LinkError(f"{type(error).__name__}: {error}") from error
        return status, now, replicas, windows, groups

    async def close(self) -> None:
        """Let go of the connection; the next call makes a new one."""
        with contextlib.suppress(Exception):
            await self._redis.aclose()
            await self._redis.connection_pool.disconnect()
