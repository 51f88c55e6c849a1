"""The text of an API key: ``lgw_<public id>_<secret>``.

The public id names the key in logs, lists and settings. The secret has 256 random bits, so a
plain SHA-256 of it is enough to store: there is nothing to guess that a slow hash would slow
down.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from dataclasses import dataclass

PREFIX = "lgw"
ID_PREFIX = "key_"
_ALPHABET = string.ascii_letters + string.digits
# 43 characters of 62 carry 256 bits.
SECRET_LENGTH = 43
_KEY = re.compile(rb"lgw_([0-9a-f]{12})_([A-Za-z0-9]{43})")
_ID = re.compile(r"(?:key_|lgw_)?([0-9a-f]{12})")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret that has just been made.

    Attributes:
        text: the whole key, for its owner's eyes only.
        digest: what is stored of it.
    """

    text: str
    digest: bytes

    def __repr__(self) -> str:
        return "NewSecret(...)"


def new_key_id() -> str:
    """A public id that no other key has: ``key_`` and 48 random bits in hexadecimal."""
    return ID_PREFIX + secrets.token_hex(6)


def new_secret(key_id: str) -> NewSecret:
    """A fresh secret for a key."""
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_LENGTH))
    text = f"{PREFIX}_{key_id.removeprefix(ID_PREFIX)}_{secret}"
    return NewSecret(text, digest_of(secret.encode()))


def digest_of(secret: bytes) -> bytes:
    """SHA-256 of the secret part, 32 bytes."""
    return hashlib.sha256(secret).digest()


def split_key(presented: bytes) -> tuple[str, bytes] | None:
    """The public id and the digest of a presented key; None when it is not of this form."""
    found = _KEY.fullmatch(presented)
    if found is None:
        return None
    return ID_PREFIX + found[1].decode(), digest_of(found[2])


def read_key_id(text: str) -> str | None:
    """The public id that ``key_…``, ``lgw_…`` or the bare digits name; None for anything else.

    A whole key is not taken for its id: secrets have no place in URLs and shell histories.
    """
    found = _ID.fullmatch(text)
    return ID_PREFIX + found[1] if found is not None else None
