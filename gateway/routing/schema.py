"""The fields of ``gateway.yaml``, strictly typed and bounded. ``load.py`` makes values of them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from gateway.routing.config import Api, ErrorClass, Policy, ServerKind

# Hop-by-hop headers (RFC 9110, 7.6.1), credentials, and what the gateway sets itself.
NEVER_FORWARDED = frozenset(
    {
        "accept-encoding",
        "api-key",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-api-key",
    }
)
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _name(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("a printable name without spaces around it is needed")
    return value


def _header(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("not the name of an HTTP header")
    return value.lower()


def _forwarded(value: str) -> str:
    if value in NEVER_FORWARDED:
        raise ValueError(f"'{value}' is never passed on; remove it from the list")
    return value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL such as http://10.0.0.7:8000/v1 is needed")
    if parts.username or parts.password:
        raise ValueError("no password in a URL: use api_key or headers with ${NAME}")
    if parts.query or parts.fragment:
        raise ValueError("a base URL has no '?' and no '#'")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the port is not a number up to 65535") from None
    return value.rstrip("/")


def _secret(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError(
            "write ${NAME} and set NAME in the environment: secrets do not belong in this file"
        )
    return value


def _sticky(value: str) -> str:
    if value in ("key", "none"):
        return value
    kind, _, name = value.partition(":")
    if kind != "header" or not _TOKEN.fullmatch(name):
        raise ValueError("use key, none or header:NAME")
    return f"header:{name.lower()}"


def _seconds(value: Any) -> Any:
    # Strict floats refuse whole numbers written without a point.
    return float(value) if type(value) is int else value


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_name)]
HeaderName = Annotated[str, AfterValidator(_header)]
Url = Annotated[str, AfterValidator(_url)]
Secret = Annotated[str, AfterValidator(_secret)]
HeaderValue = Annotated[str, Field(max_length=4096, pattern=r"^[\x20-\x7e]*$")]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=86_400)]
Positive = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=1_000_000)]
Share = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=1)]


class Strict(BaseModel):
    """No unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class TimeoutsYaml(Strict):
    """``timeouts:`` of a remote target."""

    connect: Seconds = 5.0
    first_byte: Seconds = 600.0
    idle: Seconds = 120.0


class HealthYaml(Strict):
    """``health:`` of a remote target; ``path: ""`` turns checks off."""

    path: Annotated[str, Field(pattern=r"^(/[\x21-\x7e]*)?$")] | None = None
    interval: Seconds = 5.0
    timeout: Seconds = 5.0
    failures: Annotated[int, Field(ge=1, le=100)] = 2


class BreakerYaml(Strict):
    """``breaker:`` of a remote target."""

    failures: Annotated[int, Field(ge=1, le=10_000)] = 5
    open: Seconds = 5.0
    most_open: Seconds = 60.0
    successes: Annotated[int, Field(ge=1, le=100)] = 2


class DiscoveryYaml(Strict):
    """``discovery:`` of a remote target."""

    kind: Literal["dns", "file"]
    file: Annotated[str, Field(min_length=1)] | None = None
    interval: Seconds = 5.0

    @model_validator(mode="after")
    def _has_its_file(self) -> Self:
        if (self.kind == "file") != (self.file is not None):
            raise ValueError("'file' is needed with kind: file, and only there")
        return self


class RemoteYaml(Strict):
    """A target that is another server."""

    name: Name | None = None
    base_url: Url | None = None
    base_urls: Annotated[list[Url], Field(min_length=1, max_length=1000)] | None = None
    kind: ServerKind = "openai"
    apis: Annotated[list[Api], Field(min_length=1)] | None = None
    model: Name | None = None
    api_key: Secret | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    forward_headers: list[Annotated[HeaderName, AfterValidator(_forwarded)]] = []
    weight: Positive = 1.0
    timeouts: TimeoutsYaml = TimeoutsYaml()
    health: HealthYaml = HealthYaml()
    breaker: BreakerYaml = BreakerYaml()
    discovery: DiscoveryYaml | None = None
    most_requests: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    include_usage: bool | None = None
    carry_on: bool | None = None
    ca_file: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _can_carry_on(self) -> Self:
        if self.carry_on and self.kind not in ("gateway", "vllm"):
            raise ValueError("carry_on needs servers of kind gateway or vllm; remove it")
        return self

    @model_validator(mode="after")
    def _has_addresses(self) -> Self:
        ways = [self.base_url is not None, self.base_urls is not None]
        if self.discovery is not None and self.discovery.kind == "file":
            if any(ways):
                raise ValueError("with discovery from a file, the URLs stand in that file only")
        elif sum(ways) != 1:
            raise ValueError("one of 'base_url' and 'base_urls' is needed")
        elif self.discovery is not None and self.base_url is None:
            raise ValueError("discovery by DNS needs 'base_url' with the name to look up")
        return self


class SplitShareYaml(Strict):
    """One share of ``split:``."""

    model: Name
    weight: Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=1_000_000)]


class SplitYaml(Strict):
    """``split:`` of a model."""

    shares: Annotated[list[SplitShareYaml], Field(min_length=1, max_length=100)]
    sticky: Annotated[str, AfterValidator(_sticky)] = "key"

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if not sum(share.weight for share in self.shares):
            raise ValueError("every weight is 0; give one of them more")
        return self


class ShadowYaml(Strict):
    """``shadow:`` of a model."""

    to: Name
    share: Share = 1.0
    most: Annotated[int, Field(ge=1, le=1000)] = 4
    timeout: Seconds = 60.0


class RetriesYaml(Strict):
    """``retries:`` of a model."""

    ratio: Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=1)] = 0.2
    burst: Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=10_000)] = 10.0
    most: Annotated[int, Field(ge=0, le=10)] = 2


class HedgeYaml(Strict):
    """``hedge:`` of a model."""

    after: Seconds
    ratio: Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=0.5)] = 0.05
    burst: Annotated[float, BeforeValidator(_seconds), Field(ge=1, le=10_000)] = 5.0


class ModelYaml(Strict):
    """One entry of ``models:``. Targets stay as they are written: each is read by its own rules."""

    name: Name
    aliases: Annotated[list[Name], Field(max_length=100)] = []
    targets: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)] | None = None
    policy: Policy | None = None
    session_header: HeaderName = "x-session-id"
    prefix_chars: Annotated[int, Field(ge=16, le=1_000_000)] = 1024
    prefix_tokens: Annotated[int, Field(ge=1, le=100_000)] = 256
    prefix_block: Annotated[int, Field(ge=1, le=4096)] = 16
    tokenizer: Annotated[str, Field(min_length=1)] | None = None
    load_factor: Annotated[float, BeforeValidator(_seconds), Field(ge=1, le=100)] = 1.25
    fallbacks: dict[ErrorClass, Annotated[list[Name], Field(min_length=1, max_length=10)]] = {}
    split: SplitYaml | None = None
    shadow: ShadowYaml | None = None
    retries: RetriesYaml = RetriesYaml()
    hedge: HedgeYaml | None = None
    wait_for_target: Seconds | None = None
    upstream_429: Literal[429, 503] = 503

    @model_validator(mode="after")
    def _is_answered_by_somebody(self) -> Self:
        if (self.targets is None) == (self.split is None):
            raise ValueError("a model has either 'targets' or 'split'")
        return self


class FileYaml(Strict):
    """The whole file."""

    models: Annotated[list[ModelYaml], Field(min_length=1, max_length=1000)]


def reference_of(value: str) -> str | None:
    """The environment variable that ``${NAME}`` means, or None for any other text."""
    found = _REFERENCE.fullmatch(value)
    return found[1] if found else None
