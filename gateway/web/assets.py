"""The pages' files as responses: read once, sent from memory, checked again by their ETag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
# Nothing but this origin's own files, and no markup that came in another way.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Kept by the browser, and asked for again each time: an upgrade shows at once.
    "cache-control": "no-cache",
}


class Asset:
    """A file of ``static/``, ready to be sent.

    Args:
        name: the file's name; its suffix decides the media type.
    """

    def __init__(self, name: str) -> None:
        self._body = files("gateway.web.static").joinpath(name).read_bytes()
        self._media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        self.etag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'

    async def respond(self, request: Request) -> Response:
        """The file, or 304 to a browser that has it."""
        headers = {**HEADERS, "etag": self.etag}
        if has_current(request.headers.get("if-none-match", ""), self.etag):
            return Response(status_code=304, headers=headers)
        return Response(self._body, headers=headers, media_type=self._media_type)


def has_current(if_none_match: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` header names this tag (RFC 9110, weak comparison)."""
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    return any(tag in ("*", etag) for tag in tags)


def asset_names(*suffixes: str) -> list[str]:
    """The files of ``static/`` with one of these suffixes, sorted."""
    names = (entry.name for entry in files("gateway.web.static").iterdir())
    return sorted(name for name in names if name.rpartition(".")[2] in suffixes)


def routes_of(assets: Mapping[str, Asset]) -> list[Route]:
    """A route of GET and HEAD for each path."""
    return [
        Route(path, asset.respond, methods=["GET"], include_in_schema=False)
        for path, asset in assets.items()
    ]
