"""From checked fields of the file to the immutable values that the rest of the gateway uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from gateway.routing.config import (
    KINDS,
    BreakerRules,
    Discovery,
    HealthCheck,
    Hedge,
    LocalSpec,
    ModelSpec,
    Policy,
    RemoteSpec,
    Retries,
    Shadow,
    Split,
    Timeouts,
)
from gateway.routing.prefix_rules import PrefixRules, tokenizer_named
from gateway.routing.schema import HealthYaml, ModelYaml, RemoteYaml, reference_of

_SECRET_NAME = re.compile(r"auth|key|token|secret|cookie|password")


class MissingVariable(Exception):
    """``${name}`` in ``field`` names a variable that is not set."""

    def __init__(self, field: str, name: str) -> None:
        super().__init__(name)
        self.field = field
        self.name = name


class LiteralSecret(Exception):
    """The header ``name`` carries a secret that stands in the file itself."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def model_spec(
    model: ModelYaml, targets: tuple[LocalSpec | RemoteSpec, ...], policy: Policy, folder: Path
) -> ModelSpec:
    """The model with its targets; ``policy`` is for one that names none, and relative paths are
    seen from ``folder``. Raises ValueError for a tokenizer that is not there."""
    split = model.split
    shadow = model.shadow
    retries, hedge = model.retries, model.hedge
    if model.wait_for_target is not None:
        targets = tuple(can_be_nobody(target) for target in targets)
    return ModelSpec(
        name=model.name,
        aliases=tuple(model.aliases),
        targets=targets,
        policy=model.policy or policy,
        session_header=model.session_header,
        prefix=prefix_rules(model, folder),
        load_factor=model.load_factor,
        fallbacks=tuple((kind, tuple(names)) for kind, names in model.fallbacks.items()),
        split=None
        if split is None
        else Split(tuple((s.model, s.weight) for s in split.shares), split.sticky),
        shadow=None
        if shadow is None
        else Shadow(shadow.to, shadow.share, shadow.most, shadow.timeout),
        retries=Retries(retries.ratio, retries.burst, retries.most),
        hedge=None if hedge is None else Hedge(hedge.after, hedge.ratio, hedge.burst),
        wait_for_target_s=model.wait_for_target or 0.0,
        upstream_429=model.upstream_429,
    )


def can_be_nobody(target: LocalSpec | RemoteSpec) -> LocalSpec | RemoteSpec:
    """The target, of a model whose requests wait while discovery finds nobody."""
    if isinstance(target, LocalSpec):
        return target
    return replace(target, discovery=replace(target.discovery, may_be_empty=True))


def prefix_rules(model: ModelYaml, folder: Path) -> PrefixRules:
    """What of a prompt's beginning counts. Raises ValueError for a tokenizer that is not there."""
    named = None if model.tokenizer is None else tokenizer_named(model.tokenizer, folder)
    return PrefixRules(model.prefix_tokens, model.prefix_block, named, model.prefix_chars)


def remote_spec(
    target: RemoteYaml, position: int, environ: Mapping[str, str], folder: Path
) -> RemoteSpec:
    """The remote target; relative paths are seen from ``folder``.

    Raises MissingVariable and LiteralSecret.
    """
    defaults = KINDS[target.kind]
    own_name = target.kind if not position else f"{target.kind}-{position + 1}"
    include = defaults.include_usage if target.include_usage is None else target.include_usage
    times, breaker = target.timeouts, target.breaker
    return RemoteSpec(
        name=target.name or own_name,
        kind=target.kind,
        discovery=_discovery(target, folder),
        apis=frozenset(target.apis) if target.apis is not None else defaults.apis,
        health=_health(target.health, defaults.health_path),
        model=target.model,
        api_key=None if target.api_key is None else _resolved(target.api_key, "api_key", environ),
        headers=tuple(
            (name, _header_value(name, value, environ)) for name, value in target.headers.items()
        ),
        forward_headers=tuple(target.forward_headers),
        weight=target.weight,
        timeouts=Timeouts(times.connect, times.first_byte, times.idle),
        breaker=BreakerRules(
            breaker.failures, breaker.open, max(breaker.open, breaker.most_open), breaker.successes
        ),
        most_requests=target.most_requests,
        include_usage=include,
        carry_on=defaults.carry_on if target.carry_on is None else target.carry_on,
        ca_file=None if target.ca_file is None else folder / Path(target.ca_file).expanduser(),
    )


def _discovery(target: RemoteYaml, folder: Path) -> Discovery:
    found = target.discovery
    urls = (target.base_url,) if target.base_url is not None else tuple(target.base_urls or ())
    if found is None:
        return Discovery("static", urls)
    file = None if found.file is None else folder / Path(found.file).expanduser()
    return Discovery(found.kind, urls, file, found.interval)


def _health(health: HealthYaml, default_path: str | None) -> HealthCheck:
    path = default_path if health.path is None else health.path or None
    return HealthCheck(path, health.interval, health.timeout, health.failures)


def _header_value(name: str, value: str, environ: Mapping[str, str]) -> SecretStr:
    if reference_of(value) is None and _SECRET_NAME.search(name):
        raise LiteralSecret(name)
    return _resolved(value, "headers", environ)


def _resolved(value: str, field: str, environ: Mapping[str, str]) -> SecretStr:
    name = reference_of(value)
    if name is None:
        return SecretStr(value)
    found = environ.get(name, "").strip()
    if not found or not found.isascii() or not found.isprintable():
        raise MissingVariable(field, name)
    return SecretStr(found)
