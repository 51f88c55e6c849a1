"""All that a server goes by, read and checked as one immutable value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from gateway.config.flat import Flat, digest_of, flat_prices, flat_routing, flat_settings
from gateway.control.prices import PriceTable, load_prices
from gateway.routing.config import RoutingConfig
from gateway.routing.load import ConfigError, routing_config
from gateway.settings import EntrySettings, Settings, SettingsError, explain, load_settings

ENV_FILE = Path(".env")


class ConfigInvalid(Exception):
    """The configuration is not usable. One line per fault, each with its fix."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the configuration.

    Attributes:
        sources: where each setting comes from, by field name: ``default``, ``environment``, the
            name of the .env file, or ``command line``.
        digest: 16 hexadecimal digits of the SHA-256 over everything but secrets, so that it can
            be shown; the same on every replica with the same configuration.
    """

    settings: Settings
    routing: RoutingConfig
    prices: PriceTable
    sources: Mapping[str, str]
    digest: str

    def flat(self) -> Flat:
        """Every value by its name, secrets as they are: ``PORT``, ``LIMITS.default_key...``,
        ``models.NAME.targets...``, ``prices.NAME``."""
        return flat_of(self.settings, self.routing, self.prices)


def snapshot_of(settings: Settings, sources: Mapping[str, str] = MappingProxyType({})) -> Snapshot:
    """The snapshot that settings lead to. Raises ConfigError and PricesError."""
    return new_snapshot(
        settings, routing_config(settings), load_prices(settings.prices_file), sources
    )


def new_snapshot(
    settings: Settings, routing: RoutingConfig, prices: PriceTable, sources: Mapping[str, str]
) -> Snapshot:
    """These parts as one value."""
    digest = digest_of(flat_of(settings, routing, prices))
    return Snapshot(settings, routing, prices, sources, digest)


def flat_of(settings: Settings, routing: RoutingConfig, prices: PriceTable) -> Flat:
    """Every value by its name; without a file the settings themselves say what is served."""
    served = flat_routing(routing) if settings.config_file is not None else {}
    return {**flat_settings(settings), **served, **flat_prices(prices)}


def read_snapshot(
    given: Mapping[str, Any] = MappingProxyType({}), env_file: Path = ENV_FILE
) -> Snapshot:
    """Environment, .env and the files that they name, checked as a start checks them.

    Args:
        given: settings from the command line, by field name.

    Raises ConfigInvalid with every fault that can be told.
    """
    try:
        settings = load_settings(**given, _env_file=env_file)
    except SettingsError as error:
        raise ConfigInvalid("\n".join([str(error), *faults_of_file(env_file, given)])) from None
    try:
        return snapshot_of(settings, sources_of(given, env_file))
    except (ConfigError, ValueError) as error:
        raise ConfigInvalid(str(error)) from None


def faults_of_file(env_file: Path, given: Mapping[str, Any]) -> list[str]:
    """Faults of gateway.yaml beside settings that are not usable, by the default settings."""
    found: dict[str, Any] = {
        "config_file": given.get("config_file") or named_in("config_file", env_file)
    }
    if not found["config_file"]:
        return []
    try:
        routing_config(EntrySettings(**found))
    except (ConfigError, ValueError) as error:
        return [str(error)]
    return []


def named_in(name: str, env_file: Path) -> str | None:
    """A setting as it is written, in the environment or else in .env."""
    for values in (os.environ, dotenv_values(env_file)):
        for key, value in values.items():
            if key.lower() == name:
                return value
    return None


def sources_of(given: Mapping[str, Any], env_file: Path) -> dict[str, str]:
    """Where each setting comes from; the first of these counts, as for the values."""
    environment = {name.lower() for name in os.environ}
    in_file = {name.lower() for name in dotenv_values(env_file)} if env_file.is_file() else set()

    def source(name: str) -> str:
        if name in given:
            return "command line"
        if name in environment:
            return "environment"
        return str(env_file) if name in in_file else "default"

    return {name: source(name) for name in Settings.model_fields}


def keep(old: Settings, new: Settings, names: frozenset[str]) -> Settings:
    """The new settings, but for these as they were, checked together.

    Raises ConfigInvalid where the two do not go together.
    """
    kept = {name: getattr(old, name) for name in names}
    try:
        EntrySettings(**{name: getattr(new, name) for name in Settings.model_fields} | kept)
    except ValidationError as error:
        raise ConfigInvalid(
            "what can be reloaded does not go with what stays until a restart; restart instead:\n"
            + explain(error)
        ) from None
    return new.model_copy(update=kept)
