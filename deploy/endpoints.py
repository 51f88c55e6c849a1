"""Where a cloud's API is: its own address, or the one that a variable names in its place."""

from __future__ import annotations

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.settings import is_loopback


class ApiAddress(NamedTuple):
    """An address of an API.

    Attributes:
        url: without a slash at its end.
        netloc: host, and port where the URL has one.
        emulated: it is this machine, over plain HTTP, where nobody asks for credentials.
    """

    url: str
    netloc: str
    emulated: bool


def api_address(variable: str, usual: str) -> ApiAddress:
    """What the environment's ``variable`` names, else ``usual``.

    Raises ValueError, whose message is for the operator, for what is neither HTTPS nor this
    machine: a token would go there.
    """
    url = os.environ.get(variable) or usual
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # raise ValueError for what is none
    except ValueError:
        host = ""
    else:
        emulated = parts.scheme == "http" and is_loopback(host)
        if emulated or (parts.scheme == "https" and host):
            return ApiAddress(url.rstrip("/"), parts.netloc, emulated)
    raise ValueError(
        f"{variable}={url}: give https://HOST, or http://127.0.0.1:PORT for an emulator"
    )
