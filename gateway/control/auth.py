"""Who is calling: API keys, compared in constant time, and what follows from a key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gateway.errors import InvalidApiKey


@dataclass(frozen=True, slots=True)
class Principal:
    """A known caller.

    Attributes:
        id: safe to log; does not reveal the key.
        cache_salt: separates this caller's cached prefixes from everybody else's.
    """

    id: str
    cache_salt: str


ANONYMOUS = Principal(id="anonymous", cache_salt="")


class Keyring:
    """The keys of API_KEYS. With none, everybody is ANONYMOUS.

    Only SHA-256 digests are kept: keys have enough entropy for a plain hash.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        digests = [hashlib.sha256(key.encode()).digest() for key in keys]
        self._known = [(digest, principal_of(digest)) for digest in digests]

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._known

    def identify(self, headers: Mapping[bytes, bytes]) -> Principal:
        """The caller behind ``Authorization: Bearer`` or ``x-api-key``.

        Compares with every key whatever the outcome, so that time tells nothing.
        Raises InvalidApiKey.
        """
        if not self._known:
            return ANONYMOUS
        presented = read_key(headers)
        if presented is None:
            raise InvalidApiKey(
                "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY' "
                "or as 'x-api-key: YOUR_KEY'."
            )
        digest = hashlib.sha256(presented).digest()
        found: Principal | None = None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is None:
            raise InvalidApiKey("Incorrect API key provided.")
        return found

    def find(self, principal_id: str) -> Principal | None:
        """The caller with this id, or None once its key is gone."""
        if not self._known:
            return ANONYMOUS if principal_id == ANONYMOUS.id else None
        return next((who for _, who in self._known if who.id == principal_id), None)


def read_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The presented key; ``Authorization`` counts before ``x-api-key``."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key") or None


def principal_of(digest: bytes) -> Principal:
    """The caller for a key's digest. Id and salt are hashes of it, so neither gives it away."""
    return Principal(
        id="key_" + hashlib.sha256(b"id" + digest).hexdigest()[:12],
        cache_salt=hashlib.sha256(b"cache-salt" + digest).hexdigest()[:32],
    )


def salt_for(principal: Principal, requested: str | None) -> str | None:
    """The cache salt for a request: the caller's own, refined by what the request asks for."""
    if requested is None:
        return principal.cache_salt or None
    return hashlib.sha256(f"{principal.cache_salt}\0{requested}".encode()).hexdigest()[:32]
