"""Who is calling: API keys, compared in constant time, and what follows from a key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping

from gateway.control.identity.snapshot import INCORRECT, NO_KEYS, Snapshot
from gateway.control.rights import ALL_RIGHTS, Principal, Rights
from gateway.errors import InvalidApiKey

ANONYMOUS = Principal(id="anonymous", cache_salt="")
ADMIN_RIGHTS = Rights(admin=True, manages="server")


class Keyring:
    """Every key that opens the server. With none, everybody is ANONYMOUS.

    Of the keys of the environment only SHA-256 digests are kept: they have enough entropy for
    a plain hash.

    Args:
        keys: of API_KEYS; they may do everything but manage the server.
        admin_keys: of ADMIN_KEYS; they may do that too.
        guests: whoever shows no valid key is ANONYMOUS, since the platform has asked already.

    Attributes:
        stored: the stored keys as they are known now; replaced as a whole, from any thread.
    """

    def __init__(
        self,
        keys: Iterable[str],
        admin_keys: Iterable[str] = (),
        stored: Snapshot = NO_KEYS,
        *,
        guests: bool = False,
    ) -> None:
        self._known = [*entries(keys, ALL_RIGHTS), *entries(admin_keys, ADMIN_RIGHTS)]
        self.stored = stored
        self.guests = guests

    def replace(self, keys: Iterable[str], admin_keys: Iterable[str]) -> None:
        """Go by these keys of the environment from now on."""
        self._known = [*entries(keys, ALL_RIGHTS), *entries(admin_keys, ADMIN_RIGHTS)]

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._known and not self.stored.closed

    def publish(self, stored: Snapshot) -> None:
        """Serve with these stored keys from now on."""
        self.stored = stored

    def identify(self, headers: Mapping[bytes, bytes]) -> Principal:
        """The caller behind ``Authorization: Bearer`` or ``x-api-key``; the first that is a key
        counts, since a platform's front may leave its own token in ``Authorization``.

        Raises InvalidApiKey, and StorageUnavailable when stored keys could never be read.
        """
        if not self._known and not self.stored.closed:
            return ANONYMOUS
        refused: InvalidApiKey | None = None
        for presented in read_keys(headers):
            try:
                return self._identify(presented)
            except InvalidApiKey as error:
                refused = error
        if self.guests:
            return ANONYMOUS
        raise refused or InvalidApiKey(
            "You didn't provide an API key. Send it as 'Authorization: Bearer YOUR_KEY' "
            "or as 'x-api-key: YOUR_KEY'."
        )

    def _identify(self, presented: bytes) -> Principal:
        """Compares with every key of the environment whatever the outcome, and stored keys as
        Snapshot.identify does, so that time tells nothing."""
        stored = self.stored
        digest = hashlib.sha256(presented).digest()
        found: Principal | None = None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        if found is not None:
            return found
        if not stored.closed:
            raise InvalidApiKey(INCORRECT)
        return stored.identify(presented)

    def find(self, principal_id: str) -> Principal | None:
        """The caller with this id and the rights it has now, or None once its key has ended."""
        if principal_id == ANONYMOUS.id:
            return ANONYMOUS if self.open or self.guests else None
        for _, principal in self._known:
            if principal.id == principal_id:
                return principal
        return self.stored.find(principal_id)

    def renew(self, principal: Principal) -> Principal:
        """The same caller with the rights it has now, for work that begins after its request
        has been answered. Raises InvalidApiKey once its key has ended."""
        found = self.find(principal.id)
        if found is None:
            raise InvalidApiKey("The API key that asked for this is not valid any more.")
        return found


def entries(keys: Iterable[str], rights: Rights) -> Iterable[tuple[bytes, Principal]]:
    """Digest and caller of each key of the environment."""
    for key in keys:
        digest = hashlib.sha256(key.encode()).digest()
        yield digest, principal_of(digest, rights)


def read_keys(headers: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """What is presented as a key, ``Authorization`` before ``x-api-key``."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        yield token.strip()
    if key := headers.get(b"x-api-key"):
        yield key


def principal_of(digest: bytes, rights: Rights = ALL_RIGHTS) -> Principal:
    """The caller for a key's digest. Id and salt are hashes of it, so neither gives it away."""
    return Principal(
        id="key_" + hashlib.sha256(b"id" + digest).hexdigest()[:12],
        cache_salt=hashlib.sha256(b"cache-salt" + digest).hexdigest()[:32],
        rights=rights,
    )


def salt_for(principal: Principal, requested: str | None) -> str | None:
    """The cache salt for a request: the caller's own, refined by what the request asks for."""
    if requested is None:
        return principal.cache_salt or None
    return hashlib.sha256(f"{principal.cache_salt}\0{requested}".encode()).hexdigest()[:32]
