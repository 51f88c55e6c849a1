"""Asks for the right to a route once the framework has matched it, before its handler runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute, Route

from gateway.control.auth import Keyring
from gateway.control.identity.access import OPEN, authorize, group_of
from gateway.http.exchange import Exchange


class Guarded:
    """A route's application, behind the check of its group."""

    def __init__(self, route: Route, keyring: Keyring, *, is_open: bool) -> None:
        self._app = route.app
        self._path = route.path
        self._keyring = keyring
        self._is_open = is_open

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Raises NotPermitted, which the framework hands to the table of errors."""
        exchange: Exchange = scope["exchange"]
        group = OPEN if self._is_open else group_of(self._path, exchange.method)
        authorize(exchange.principal, group, keyless=self._keyring.open)
        await self._app(scope, receive, send)


def guard_routes(routes: Iterable[BaseRoute], open_paths: frozenset[str], keyring: Keyring) -> None:
    """Put every route behind the check of its group; ``open_paths`` need no key at all."""
    for route in routes:
        if not isinstance(route, Route):
            raise TypeError(f"{route!r} cannot be guarded: only plain routes can")
        route.app = Guarded(route, keyring, is_open=route.path in open_paths)
