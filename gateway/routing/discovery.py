"""The addresses of a remote target: fixed, by DNS, or from a file that others write."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from gateway.relay.pool import Address
from gateway.routing.config import Discovery

log = logging.getLogger("gateway.routing")

MOST_FILE_BYTES = 1024 * 1024
MOST_ADDRESSES = 1000
# Answers, unlike EAI_AGAIN and its kind: the name does not exist, or has no address (RFC 3493).
NO_ADDRESS = (socket.EAI_NONAME, socket.EAI_NODATA)

Found = Callable[[list[Address]], None]


class DiscoveryError(Exception):
    """The addresses cannot be read now; those known so far go on."""


async def find(discovery: Discovery) -> list[Address]:
    """The addresses as of now, in a stable order. Raises DiscoveryError."""
    if discovery.kind == "dns":
        return await by_dns(discovery.urls[0], may_be_empty=discovery.may_be_empty)
    if discovery.kind == "file" and discovery.file is not None:
        return await asyncio.to_thread(from_file, discovery.file)
    return [Address.of_url(url) for url in discovery.urls]


async def by_dns(url: str, *, may_be_empty: bool = False) -> list[Address]:
    """One address per A or AAAA record: a headless Service of Kubernetes has one per pod."""
    parts = urlsplit(url)
    name = parts.hostname or ""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(5.0):
            records = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        if may_be_empty and isinstance(error, socket.gaierror) and error.errno in NO_ADDRESS:
            return []
        raise DiscoveryError(f"DNS does not resolve {name}: {error}") from None
    hosts = sorted({str(record[4][0]) for record in records})
    return [Address.of_url(url, host) for host in hosts[:MOST_ADDRESSES]]


def from_file(path: Path) -> list[Address]:
    """One base URL per line; empty lines and ``#`` comments do not count."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_FILE_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DiscoveryError(f"{path} cannot be read: {error}") from None
    if len(text) > MOST_FILE_BYTES:
        raise DiscoveryError(f"{path} is larger than {MOST_FILE_BYTES} bytes")
    found: dict[Address, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        url = line.partition("#")[0].strip()
        if not url:
            continue
        parts = urlsplit(url)
        try:
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.username or parts.query:
            raise DiscoveryError(f"{path}:{number}: not a base URL such as http://10.0.0.7:8000/v1")
        found[Address.of_url(url)] = None
    return list(found)[:MOST_ADDRESSES]


async def follow(discovery: Discovery, found: Found) -> None:
    """Look again and again; tells what it finds whenever that has changed."""
    told: list[Address] | None = None
    failing = False
    while True:
        await asyncio.sleep(discovery.interval_s)
        try:
            addresses = await find(discovery)
        except DiscoveryError as error:
            if not failing:
                log.warning("discovery failed", extra={"fields": {"cause": str(error)}})
            failing = True
            continue
        failing = False
        if addresses != told:
            told = addresses
            found(addresses)
