"""GET /docs: documentation made from /openapi.json in the browser, without a CDN."""

from __future__ import annotations

from starlette.routing import Route

from gateway.web.assets import Asset, routes_of

PAGE = "/docs"


def docs_routes() -> list[Route]:
    """The page; its assets are the playground's."""
    return routes_of({PAGE: Asset("docs.html")})
