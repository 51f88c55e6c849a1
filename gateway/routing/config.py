"""What is served and by whom, as immutable values: one snapshot that can be swapped whole.

Made from ``gateway.yaml`` or from the environment alone; nothing here knows which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from engine.config import EngineConfig
from gateway.routing.prefix_rules import USUAL_PREFIX, PrefixRules

Policy = Literal["least_tokens", "two_choices", "weighted", "session", "prefix"]
# What may be answered by another model instead.
ErrorClass = Literal["context_too_long", "overloaded", "down"]
Api = Literal["chat", "completions", "embeddings", "responses", "messages"]
ServerKind = Literal["vllm", "sglang", "gateway", "openai", "anthropic", "trtllm", "triton", "nim"]

API_PATHS: dict[Api, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "messages": "/messages",
}
_OPENAI: frozenset[Api] = frozenset({"chat", "completions", "embeddings"})


@dataclass(frozen=True, slots=True)
class KindDefaults:
    """What servers of one kind offer unless the file says otherwise.

    Attributes:
        apis: what they speak.
        health_path: from the server's root; None: no active checks.
        include_usage: they take ``stream_options.include_usage``.
        carry_on: another one of them finishes a stream that one broke off.
    """

    apis: frozenset[Api]
    health_path: str | None
    include_usage: bool = True
    carry_on: bool = False


KINDS: dict[ServerKind, KindDefaults] = {
    "vllm": KindDefaults(_OPENAI | {"responses", "messages"}, "/health", carry_on=True),
    "sglang": KindDefaults(_OPENAI, "/health"),
    "gateway": KindDefaults(_OPENAI | {"responses", "messages"}, "/health/ready", carry_on=True),
    "openai": KindDefaults(_OPENAI | {"responses"}, None),
    "anthropic": KindDefaults(frozenset({"messages"}), None, include_usage=False),
    "trtllm": KindDefaults(frozenset({"chat", "completions"}), "/health"),
    "triton": KindDefaults(_OPENAI, "/health/ready"),
    "nim": KindDefaults(_OPENAI, "/v1/health/ready"),
}


@dataclass(frozen=True, slots=True)
class LocalSpec:
    """A model run in this process.

    Attributes:
        weight: its share relative to the model's other targets.
    """

    name: str
    engine: EngineConfig
    replicas: int = 1
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """In seconds.

    Attributes:
        connect: until the connection stands, TLS included.
        first_byte: from the request to the response's head; of an answer in one piece that is
            nearly all of it.
        idle: longest silence within a response.
    """

    connect: float = 5.0
    first_byte: float = 600.0
    idle: float = 120.0


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Active checks of one server: GET, 2xx is well.

    Attributes:
        path: from the server's root; None turns checks off.
        failures: this many in a row take the server out; one success brings it back.
    """

    path: str | None = None
    interval_s: float = 5.0
    timeout_s: float = 5.0
    failures: int = 2


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When requests stop going to a server that fails them.

    Attributes:
        failures: in a row, that open the breaker.
        open_s: how long it stays open the first time; doubles with each failed trial.
        most_open_s: and at most.
        successes: trials in a row that close it again.
    """

    failures: int = 5
    open_s: float = 5.0
    most_open_s: float = 60.0
    successes: int = 2


@dataclass(frozen=True, slots=True)
class Discovery:
    """Where the addresses of a target come from.

    Attributes:
        kind: ``static``: they are ``urls``; ``dns``: every A and AAAA record of the host in the
            one URL; ``file``: one URL per line of ``file``.
        interval_s: how often DNS or the file is looked at.
        may_be_empty: a name that DNS has no address for means that no server is there, as that of
            a headless Service without pods does; otherwise it is a look-up that failed.
    """

    kind: Literal["static", "dns", "file"] = "static"
    urls: tuple[str, ...] = ()
    file: Path | None = None
    interval_s: float = 5.0
    may_be_empty: bool = False


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """Servers that speak OpenAI's or Anthropic's protocol, all of the same model.

    Attributes:
        model: its name there; None: the name the client used.
        headers: sent with every request, such as a tenant for a hosted API.
        forward_headers: further request headers of the client that are passed on, lower case.
        most_requests: on one server at a time; None is unbounded.
        include_usage: ask streams for their usage, for limits and the ledger.
        carry_on: have another server finish a stream that one broke off, exactly or not at all.
        ca_file: certificates to trust instead of the system's.
    """

    name: str
    kind: ServerKind
    discovery: Discovery
    apis: frozenset[Api]
    health: HealthCheck = HealthCheck()
    model: str | None = None
    api_key: SecretStr | None = None
    headers: tuple[tuple[str, SecretStr], ...] = ()
    forward_headers: tuple[str, ...] = ()
    weight: float = 1.0
    timeouts: Timeouts = Timeouts()
    breaker: BreakerRules = BreakerRules()
    most_requests: int | None = None
    include_usage: bool = True
    carry_on: bool = False
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of a model's requests that other models of the file answer.

    Attributes:
        shares: model name and weight, in the file's order.
        sticky: ``key``: one API key stays with one share; ``header:NAME``: one value of this
            header does; ``none``: every request is drawn anew.
    """

    shares: tuple[tuple[str, float], ...]
    sticky: str = "key"


@dataclass(frozen=True, slots=True)
class Shadow:
    """Copies of requests that another model gets as well; nobody reads its answers.

    Attributes:
        share: of the requests, in (0, 1].
        most: copies that run at a time; further ones are not made.
        timeout_s: how long one may run.
    """

    to: str
    share: float = 1.0
    most: int = 4
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Retries:
    """Budget of further attempts, before the first byte only.

    Attributes:
        ratio: retries per request in the long run.
        burst: retries that may be saved up.
        most: per request.
    """

    ratio: float = 0.2
    burst: float = 10.0
    most: int = 2


@dataclass(frozen=True, slots=True)
class Hedge:
    """Second attempts at answers that are late to begin.

    Attributes:
        after_s: how late.
        ratio: of them per request in the long run.
        burst: that may be saved up.
    """

    after_s: float
    ratio: float = 0.05
    burst: float = 5.0


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One served model.

    Attributes:
        name, aliases: what clients may ask for; the first is told in headers, logs and metrics.
        targets: who can answer; empty with ``split``.
        policy: how one of them is chosen.
        session_header: for ``session``; the body's ``user`` where it is absent.
        prefix: what of the prompt's beginning ``prefix`` looks at.
        load_factor: ``session`` and ``prefix`` leave a target that has more than this many
            times the average load.
        fallbacks: for each class of error the models that answer instead, in order.
        hedge: when a second server is asked as well; None: never.
        wait_for_target_s: how long requests wait while no server is there; 0: not at all.
        upstream_429: how a refusal by the upstream's own limit is told: as the service's
            overload (503), or passed on (429).
    """

    name: str
    aliases: tuple[str, ...] = ()
    targets: tuple[LocalSpec | RemoteSpec, ...] = ()
    policy: Policy = "least_tokens"
    session_header: str = "x-session-id"
    prefix: PrefixRules = USUAL_PREFIX
    load_factor: float = 1.25
    fallbacks: tuple[tuple[ErrorClass, tuple[str, ...]], ...] = ()
    split: Split | None = None
    shadow: Shadow | None = None
    retries: Retries = Retries()
    hedge: Hedge | None = None
    wait_for_target_s: float = 0.0
    upstream_429: Literal[429, 503] = 503

    @property
    def names(self) -> tuple[str, ...]:
        """Every name, the first one first."""
        return (self.name, *self.aliases)

    @property
    def locals(self) -> tuple[LocalSpec, ...]:
        """Targets in this process."""
        return tuple(target for target in self.targets if isinstance(target, LocalSpec))

    @property
    def remotes(self) -> tuple[RemoteSpec, ...]:
        """Targets elsewhere."""
        return tuple(target for target in self.targets if isinstance(target, RemoteSpec))

    def fallback_names(self, kind: ErrorClass) -> tuple[str, ...]:
        """Who answers instead, in order."""
        return next((names for of, names in self.fallbacks if of == kind), ())


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """Everything that is served. The first model is the one for requests that name none.

    Attributes:
        digest: SHA-256 of the file's text, in which no secret stands; empty without a file.
    """

    models: tuple[ModelSpec, ...]
    digest: str = field(default="")
