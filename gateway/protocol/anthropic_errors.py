"""Errors in the shape of Anthropic's API.

Source: ``anthropic.types.shared.ErrorResponse`` and the list of HTTP errors in Anthropic's API
documentation; 529 is what ``anthropic.OverloadedError`` stands for.
"""

from __future__ import annotations

import orjson

PREFIX = "/v1/messages"
OVERLOADED = 529

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    OVERLOADED: "overloaded_error",
}


def speaks_anthropic(path: str) -> bool:
    """Whether requests to this path are of Anthropic's protocol."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def envelope(message: str, status: int, request_id: str) -> bytes:
    """The error object as JSON."""
    kind = TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    body = {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": request_id or None,
    }
    return orjson.dumps(body)
