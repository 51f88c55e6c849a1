"""A hook of the gateways that are watched: it fails when the request says so."""

from __future__ import annotations

from gateway.hooks import About, Hook, RequestView


class Failing(Hook):
    async def before(self, request: RequestView, about: About) -> None:
        if "break the hook" in str(request.messages):
            raise RuntimeError("as asked")
