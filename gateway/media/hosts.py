"""Which hosts images may be fetched from, and which addresses those may lie at.

A host is named by the operator. Where its name leads is up to whoever runs its DNS, so an
address is looked at as well: without a word of the operator it has to be a public one, or a
listed name could be pointed at the inside of the operator's own network (CVE-2025-6242 and
CVE-2026-24779 in vLLM).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")
_PORT = re.compile(r":([0-9]{1,5})$")
DEFAULT_PORTS = {"http": 80, "https": 443}
# Azure's metadata and agent service has an address that registries call public.
NEVER_PUBLIC = frozenset({ipaddress.ip_address("168.63.129.16")})
# NAT64 (RFC 6052): the last four bytes are an IPv4 address.
NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry of MEDIA_ALLOWED_HOSTS.

    Attributes:
        name: in lower case; an IPv6 address without brackets.
        port: the only port, or None for the default ports of http and https.
        address: set when the entry is an address itself, which is allowed then wherever it lies.
    """

    name: str
    port: int | None
    address: IpAddress | None

    def fits(self, host: str, port: int | None) -> bool:
        """Whether a URL with this host, and this port unless None, may be fetched."""
        return host == self.name and port == self.port


class MediaHosts:
    """The operator's rules.

    Args:
        hosts: entries such as ``images.example.com``, ``cdn.example.com:8443``, ``10.0.0.5``.
        networks: networks beyond the public ones that listed names may lead to.

    Raises ValueError for an entry that is neither.
    """

    def __init__(self, hosts: Iterable[str], networks: Iterable[str] = ()) -> None:
        self._hosts = tuple(parse_host(entry) for entry in hosts)
        self._networks = tuple(parse_network(entry) for entry in networks)

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def find(self, host: str, port: int | None) -> AllowedHost | None:
        """The entry that allows this host; ``port`` is None where the URL has none."""
        host = host.lower().rstrip(".")
        return next((entry for entry in self._hosts if entry.fits(host, port)), None)

    def may_connect(self, entry: AllowedHost, address: IpAddress) -> bool:
        """Whether this address, to which the entry's name has led, may be connected to."""
        if address == entry.address or any(address in network for network in self._networks):
            return True
        return all(is_public(form) for form in forms_of(address))


def parse_host(entry: str) -> AllowedHost:
    """An entry of MEDIA_ALLOWED_HOSTS. Raises ValueError saying what is wrong."""
    text = entry.strip().lower()
    if any(sign in text for sign in "/@*?#"):
        raise ValueError(
            f"{entry!r} is not a host: name each host by itself, without scheme, path or wildcard"
        )
    bare = _address(text)
    port = None
    if bare is None and (found := _PORT.search(text)):
        port, text = int(found[1]), text[: found.start()]
        if not 0 < port < 65536:
            raise ValueError(f"{entry!r} has no port between 1 and 65535")
    name = text.removeprefix("[").removesuffix("]").rstrip(".")
    address = _address(name)
    if address is None and not _NAME.fullmatch(name):
        raise ValueError(f"{entry!r} is not a host name or an address")
    return AllowedHost(str(address) if address is not None else name, port, address)


def parse_network(entry: str) -> IpNetwork:
    """An entry of MEDIA_PRIVATE_NETWORKS. Raises ValueError saying what is wrong."""
    try:
        return ipaddress.ip_network(entry.strip())
    except ValueError:
        raise ValueError(f"{entry!r} is not a network such as 10.1.0.0/16") from None


def forms_of(address: IpAddress) -> list[IpAddress]:
    """The addresses that have to be judged for one: itself, and the IPv4 ones it tunnels to.

    An IPv4 address in IPv6 spelling, or behind a NAT64 translator, is that IPv4 address.
    """
    if not isinstance(address, ipaddress.IPv6Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address in NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    tunnelled = (address.sixtofour, *(address.teredo or ()))
    return [address, *(inner for inner in tunnelled if inner is not None)]


def is_public(address: IpAddress) -> bool:
    """Whether the whole internet means the same machine by this address."""
    return (
        address.is_global
        and not address.is_private
        and not address.is_multicast
        and not address.is_reserved
        and address not in NEVER_PUBLIC
    )


def _address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
