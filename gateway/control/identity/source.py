"""Where a request comes from: the peer, or what a trusted proxy says of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from gateway.control.rights import Principal
from gateway.errors import NotPermitted

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Client = tuple[str, int] | Sequence[object] | None

FORWARDED_FOR = b"x-forwarded-for"
# A longer chain of proxies is none that anybody runs.
MOST_HOPS = 32


def source_of(
    client: Client, headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[Network]
) -> Address | None:
    """The address that a request came from; None when that cannot be told, as on a Unix socket.

    ``X-Forwarded-For`` counts only as far as trusted proxies wrote it: read from its right end,
    the first address that is no trusted proxy's is the client. Whatever stands to the left of
    that, the client may have made up.
    """
    address = parse(str(client[0])) if client else None
    if address is None or not is_in(address, trusted):
        return address
    hops = [part for name, value in headers if name == FORWARDED_FOR for part in value.split(b",")]
    for hop in reversed(hops[-MOST_HOPS:]):
        address = parse(hop.decode("latin-1").strip())
        if address is None or not is_in(address, trusted):
            return address
    return address


def parse(text: str) -> Address | None:
    """An address with or without a port, IPv4 inside IPv6 as IPv4; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks."""
    return any(address in network for network in networks)


def check_source(principal: Principal, source: Address | None) -> None:
    """Raise NotPermitted unless the key may be used from here."""
    allowed = principal.rights.sources
    if allowed and (source is None or not is_in(source, allowed)):
        shown = "an unknown address" if source is None else str(source)
        raise NotPermitted(f"This API key may not be used from {shown}.", code="source_not_allowed")
