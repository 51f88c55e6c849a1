"""GET / and GET /playground/*: the chat page and its assets, open to everybody.

The page holds nothing of this server. It asks for a key where one is needed and sends it with
each call, so the API behind it stays closed.
"""

from __future__ import annotations

from starlette.routing import Route

from gateway.web.assets import Asset, asset_names, routes_of

PAGE = "/"
ASSETS = "/playground/"


def playground_routes() -> list[Route]:
    """The page and each file it, or the documentation page, loads."""
    files = {ASSETS + name: Asset(name) for name in asset_names("css", "js")}
    return routes_of({PAGE: Asset("index.html"), **files})
