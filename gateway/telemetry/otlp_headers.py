"""OTEL_EXPORTER_OTLP_HEADERS: ``name=value`` pairs, values percent-encoded.

Format: W3C Baggage without properties, as the OpenTelemetry specification has it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


def read_headers(text: str) -> dict[str, str]:
    """Headers by lower-case name. Raises ValueError, which quotes nothing of the text."""
    found: dict[str, str] = {}
    for position, part in enumerate(text.split(","), 1):
        if not part.strip():
            continue
        name, equals, value = part.partition("=")
        name, value = name.strip().lower(), unquote(value.strip())
        if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"entry {position} is not name=value")
        found[name] = value
    return found
