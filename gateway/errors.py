"""What can go wrong with a request, and the one table from exception to response.

    GatewayError                 carries a message that is safe to show
    ├─ InvalidRequest            400  a field is missing, mistyped or out of bounds
    ├─ EndpointNotSupported      400  the model is not served on this endpoint
    ├─ InvalidApiKey             401
    ├─ HostNotAllowed            403
    ├─ NotPermitted              403  a known key that does not allow this
    ├─ ModelNotFound             404
    ├─ ObjectNotFound            404
    ├─ UnknownUrl                404
    ├─ MethodNotAllowed          405
    ├─ BodyTimeout               408
    ├─ Conflict                  409
    ├─ BodyTooLarge              413
    ├─ UnsupportedMediaType      415
    ├─ RateLimited               429
    ├─ ModelLoading              503
    ├─ ServerDraining            503
    ├─ PromptTimeout             503
    ├─ StorageUnavailable        503
    ├─ GenerationAborted         503
    ├─ UpstreamError                  another server is at fault
    │  ├─ UpstreamLimited        429  its limit on the gateway, passed on
    │  ├─ UpstreamRefused        502  it does not take the gateway's credentials
    │  ├─ UpstreamBroken         502  its answer makes no sense
    │  ├─ UpstreamUnavailable    503  no server of the model can be reached
    │  ├─ UpstreamOverloaded     503  every server of the model has too much to do
    │  └─ UpstreamTimeout        504
    ├─ ServerOverloaded          503  also an EngineOverloaded: the gateway's own queue
    └─ DeadlinePassed            504
    ClientGone                   nobody is left to answer

Engine errors join the table below. Anything else is a defect: it is answered with 500,
a fixed text and the request id, and logged. No text of an unexpected exception is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import orjson

from engine.base import EngineDead, EngineError, EngineOverloaded, RequestRejected
from gateway.protocol import anthropic_errors, sse

OVERLOADED_RETRY_S = 1
LOADING_RETRY_S = 2
DRAINING_RETRY_S = 5


class ClientGone(Exception):
    """The client closed the connection; the work was cancelled and nobody listens."""


class GatewayError(Exception):
    """A fault with a message written for the caller.

    Attributes:
        param: the request field at fault, such as ``messages[2].content``, or None.
        code: overrides the code of the table.
        allow: methods that the route takes; for 405 only.
        retry_after: seconds; overrides those of the table.
    """

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        allow: str | None = None,
        retry_after: int | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.allow = allow
        self.retry_after = retry_after


class InvalidRequest(GatewayError):
    """The request can never succeed as it is."""


class InvalidApiKey(GatewayError):
    """No key, or a key that this server does not know."""


class HostNotAllowed(GatewayError):
    """The Host header is malformed, or names this keyless server by a foreign name."""


class NotPermitted(GatewayError):
    """The key is known, and its rights do not allow this."""


class ModelNotFound(GatewayError):
    """The named model is not served here."""


class ObjectNotFound(GatewayError):
    """The caller has no stored object with this id."""


class Conflict(GatewayError):
    """The object is in a state that does not allow this."""


class UnknownUrl(GatewayError):
    """No route has this path."""


class MethodNotAllowed(GatewayError):
    """The route exists for other methods."""


class BodyTimeout(GatewayError):
    """The client did not send its body in time."""


class BodyTooLarge(GatewayError):
    """The body is larger than MAX_BODY_BYTES."""


class UnsupportedMediaType(GatewayError):
    """The body is not declared as plain JSON."""


class RateLimited(GatewayError):
    """A limit or a budget of the key, its tenant or the model is used up.

    Attributes:
        kind: the ``type`` of the answer, in place of the table's.
        retry: whether a retry can help, in place of the table's.
        retry_after_ms: until the request fits if nobody else uses any; None is never.
    """

    def __init__(
        self, message: str, *, kind: str, code: str, retry: bool, retry_after_ms: int | None
    ):
        seconds = None if retry_after_ms is None else -(-retry_after_ms // 1000)
        super().__init__(message, code=code, retry_after=seconds)
        self.kind = kind
        self.retry = retry
        self.retry_after_ms = retry_after_ms


class ModelLoading(GatewayError):
    """The model is not ready yet."""


class ServerDraining(GatewayError):
    """The server is shutting down and takes no new work."""


class PromptTimeout(GatewayError):
    """Rendering or tokenising the prompt took longer than its bound."""


class StorageUnavailable(GatewayError):
    """What the server stores cannot be read or written now."""


class HookFailed(GatewayError):
    """A hook of the server raised what it should not, or took too long; it has been logged."""


class GenerationAborted(GatewayError):
    """The engine ended a running generation, as at the end of a drain."""


class ServerOverloaded(GatewayError, EngineOverloaded):
    """The gateway does not let the request wait, or not any longer; it may succeed later."""


class DeadlinePassed(GatewayError):
    """The time that the request itself allows is over."""


class EndpointNotSupported(GatewayError):
    """The model exists, and none of its targets offers this endpoint."""


class UpstreamError(GatewayError):
    """Another server is at fault, not the caller. One of the kinds below."""


class UpstreamLimited(UpstreamError):
    """The gateway has used up its own limit at another server, and says so."""


class UpstreamRefused(UpstreamError):
    """Another server refuses the gateway itself: a wrong key, or a model it does not know."""


class UpstreamBroken(UpstreamError):
    """Another server answered with what is not an answer."""


class UpstreamUnavailable(UpstreamError):
    """No server of the model answers, or the one that did broke off."""


class UpstreamOverloaded(UpstreamError, EngineOverloaded):
    """Every server of the model has too much to do."""


class UpstreamTimeout(UpstreamError):
    """Another server was silent for too long."""


@dataclass(frozen=True, slots=True)
class Row:
    """How one kind of exception is answered.

    Attributes:
        message: shown instead of the exception's own text; None shows that text.
        retry: the ``x-should-retry`` header; None leaves the choice to the client.
        retry_after: seconds for ``Retry-After``, or None.
        close: whether the connection ends with the answer.
    """

    status: int
    type: str
    code: str | None
    message: str | None = None
    retry: bool | None = None
    retry_after: int | None = None
    close: bool = False


CALLER = "invalid_request_error"
SERVICE = "service_unavailable_error"

TABLE: dict[type[BaseException], Row] = {
    InvalidRequest: Row(400, CALLER, "invalid_value", retry=False),
    RequestRejected: Row(400, CALLER, "invalid_value", retry=False),
    EndpointNotSupported: Row(400, CALLER, "endpoint_not_supported", retry=False),
    InvalidApiKey: Row(401, "authentication_error", "invalid_api_key", retry=False),
    HostNotAllowed: Row(403, "permission_error", "host_not_allowed", retry=False),
    NotPermitted: Row(403, "permission_error", "permission_denied", retry=False),
    ModelNotFound: Row(404, CALLER, "model_not_found", retry=False),
    ObjectNotFound: Row(404, CALLER, "not_found", retry=False),
    UnknownUrl: Row(404, CALLER, "unknown_url", retry=False),
    MethodNotAllowed: Row(405, CALLER, "method_not_supported", retry=False),
    BodyTimeout: Row(408, CALLER, "request_timeout", close=True),
    Conflict: Row(409, CALLER, "conflict", retry=False),
    BodyTooLarge: Row(413, CALLER, "request_too_large", retry=False, close=True),
    UnsupportedMediaType: Row(415, CALLER, "unsupported_media_type", retry=False),
    RateLimited: Row(429, "requests", "rate_limit_exceeded"),
    ModelLoading: Row(503, SERVICE, "model_loading", retry=True, retry_after=LOADING_RETRY_S),
    ServerDraining: Row(
        503, SERVICE, "server_draining", retry=True, retry_after=DRAINING_RETRY_S, close=True
    ),
    StorageUnavailable: Row(
        503, SERVICE, "storage_unavailable", retry=True, retry_after=OVERLOADED_RETRY_S
    ),
    PromptTimeout: Row(503, SERVICE, "prompt_timeout", retry=False),
    HookFailed: Row(
        500,
        "server_error",
        "hook_failed",
        message="A check that this server makes on requests and answers failed. "
        "Please quote request id {request_id} when you report it.",
        retry=False,
    ),
    GenerationAborted: Row(
        503, SERVICE, "server_draining", retry=True, retry_after=DRAINING_RETRY_S, close=True
    ),
    ServerOverloaded: Row(
        503, SERVICE, "server_is_overloaded", retry=True, retry_after=OVERLOADED_RETRY_S
    ),
    DeadlinePassed: Row(504, "timeout_error", "request_timeout", retry=False),
    UpstreamLimited: Row(
        429, "rate_limit_error", "upstream_rate_limited", retry=True, retry_after=OVERLOADED_RETRY_S
    ),
    UpstreamRefused: Row(502, "server_error", "upstream_auth", retry=False),
    UpstreamBroken: Row(502, "server_error", "upstream_bad_response"),
    UpstreamUnavailable: Row(
        503, SERVICE, "upstream_unavailable", retry=True, retry_after=DRAINING_RETRY_S
    ),
    UpstreamOverloaded: Row(
        503, SERVICE, "server_is_overloaded", retry=True, retry_after=OVERLOADED_RETRY_S
    ),
    UpstreamTimeout: Row(504, SERVICE, "upstream_timeout"),
    EngineOverloaded: Row(
        503,
        SERVICE,
        "server_is_overloaded",
        message="The server is overloaded: its waiting queue is full. Please retry shortly.",
        retry=True,
        retry_after=OVERLOADED_RETRY_S,
    ),
    EngineDead: Row(
        503,
        SERVICE,
        "engine_unavailable",
        message="The engine behind this model has stopped working.",
        retry=True,
        retry_after=DRAINING_RETRY_S,
    ),
    EngineError: Row(
        503,
        SERVICE,
        "engine_unavailable",
        message="The engine behind this model is not available.",
        retry=True,
        retry_after=DRAINING_RETRY_S,
    ),
}

DEFECT = Row(
    500,
    "server_error",
    "internal_error",
    message="The server had an error while processing your request. "
    "Please quote request id {request_id} when you report it.",
)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """A complete error response: status, body in the caller's protocol, and own headers.

    ``event`` is the same error as the event that ends a broken stream.
    """

    status: int
    body: bytes
    event: bytes
    headers: list[tuple[bytes, bytes]]
    close: bool
    code: str | None


def find_row(error: BaseException) -> Row:
    """The most specific row of the table for this exception; DEFECT when there is none."""
    for kind in type(error).__mro__:
        row = TABLE.get(kind)
        if row is not None:
            return row
    return DEFECT


def is_expected(error: BaseException) -> bool:
    """Whether the table knows this kind of exception; everything else is a defect."""
    return find_row(error) is not DEFECT


def answer(error: BaseException, request_id: str, path: str = "") -> ErrorAnswer:
    """The response to give for an exception, in the protocol that ``path`` belongs to."""
    row = find_row(error)
    param = code = allow = None
    retry_after = row.retry_after
    if isinstance(error, GatewayError):
        param, code, allow = error.param, error.code, error.allow
        retry_after = retry_after if error.retry_after is None else error.retry_after
    elif isinstance(error, RequestRejected):
        param, code = error.param, error.code
    if isinstance(error, RateLimited):
        row = replace(row, type=error.kind, retry=error.retry, retry_after=error.retry_after)
    text = (row.message or str(error)).replace("{request_id}", request_id)
    code = code or row.code
    headers: list[tuple[bytes, bytes]] = []
    if row.retry is not None:
        headers.append((b"x-should-retry", b"true" if row.retry else b"false"))
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % retry_after))
    if isinstance(error, RateLimited) and error.retry_after_ms is not None:
        headers.append((b"retry-after-ms", b"%d" % error.retry_after_ms))
    if row.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if allow is not None:
        headers.append((b"allow", allow.encode()))
    if row.close:
        headers.append((b"connection", b"close"))
    if anthropic_errors.speaks_anthropic(path):
        overloaded = isinstance(error, EngineOverloaded)
        status = anthropic_errors.OVERLOADED if overloaded else row.status
        body = anthropic_errors.envelope(text, status, request_id)
        named = sse.named_event(b"error", body)
        return ErrorAnswer(status, body, named, headers, row.close, code)
    body = envelope(text, row.type, param, code)
    return ErrorAnswer(row.status, body, sse.event(body), headers, row.close, code)


def envelope(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """OpenAI's error object as JSON."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})
