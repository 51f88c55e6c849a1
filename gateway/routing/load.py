"""From ``gateway.yaml``, or from the environment alone, to one immutable RoutingConfig."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from gateway.routing.config import LocalSpec, ModelSpec, RemoteSpec, RoutingConfig
from gateway.routing.cross_checks import check_references
from gateway.routing.schema import FileYaml, ModelYaml, RemoteYaml, Strict
from gateway.routing.specs import LiteralSecret, MissingVariable, model_spec, remote_spec
from gateway.routing.yaml_lines import Path as YamlPath
from gateway.routing.yaml_lines import YamlError, line_of, load_with_lines
from gateway.settings import PER_MODEL, Settings

MOST_BYTES = 4 * 1024 * 1024
REMOTE_ONLY = frozenset({"base_url", "base_urls", "discovery"})
LOCAL_FIELDS = (PER_MODEL - {"served_model_name"}) | {"name", "weight"}
# What the environment says about one model cannot go beside a file that says it for all.
ELSEWHERE = ("model_name", "models", "served_model_name", "revision")

S = TypeVar("S", bound=Strict)


class ConfigError(Exception):
    """The configuration is not usable. One line per fault, each with file, line and fix."""


def routing_config(settings: Settings, environ: Mapping[str, str] = os.environ) -> RoutingConfig:
    """What the settings say is to be served. Raises ConfigError."""
    if settings.config_file is None:
        return config_of_environment(settings)
    if both := [name for name in ELSEWHERE if name in settings.model_fields_set]:
        raise ConfigError(
            f"CONFIG_FILE and {both[0].upper()} are both set: move {both[0]} into a target of "
            "the file, or unset CONFIG_FILE"
        )
    path = settings.config_file.expanduser()
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"CONFIG_FILE={path} is larger than {MOST_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(
            f"CONFIG_FILE={path} cannot be read: {why}; give the path of a gateway.yaml"
        ) from None
    return config_of_text(text, settings, environ, str(path))


def config_of_environment(settings: Settings) -> RoutingConfig:
    """MODEL_NAME and MODELS: every model is run in this process."""
    models = []
    for engine, replicas in settings.served_models():
        name, *aliases = engine.names
        target = LocalSpec(name, engine, replicas)
        models.append(ModelSpec(name, tuple(aliases), (target,), policy=settings.routing_policy))
    return RoutingConfig(tuple(models))


def config_of_text(
    text: str, settings: Settings, environ: Mapping[str, str], where: str = "gateway.yaml"
) -> RoutingConfig:
    """The meaning of a file's text. Raises ConfigError with every fault that it finds."""
    return _Reader(settings, environ, where).read(text)


class _Reader:
    """Gathers faults, so that one start shows them all."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], where: str) -> None:
        self._settings = settings
        self._environ = environ
        self._where = where
        self._lines: dict[YamlPath, int] = {}
        self._faults: list[tuple[int, str]] = []

    def read(self, text: str) -> RoutingConfig:
        try:
            document, self._lines = load_with_lines(text)
        except YamlError as error:
            raise ConfigError(f"{self._where}: {error}") from None
        file = self._validated(FileYaml, document, ())
        self._stop_at_faults()
        if file is None:
            raise ConfigError(f"{self._where}: the file is not usable")
        models = [self._model(model, index) for index, model in enumerate(file.models)]
        self._stop_at_faults()
        for path, message in check_references(models):
            self._note(path, message)
        self._stop_at_faults()
        return RoutingConfig(tuple(models), hashlib.sha256(text.encode()).hexdigest())

    def _model(self, model: ModelYaml, index: int) -> ModelSpec:
        names = (model.name, *model.aliases)
        targets: list[LocalSpec | RemoteSpec] = []
        for position, raw in enumerate(model.targets or ()):
            path: YamlPath = ("models", index, "targets", position)
            is_remote = bool(REMOTE_ONLY.intersection(raw))
            found: LocalSpec | RemoteSpec | None = (
                self._remote(raw, position, path)
                if is_remote
                else self._local(raw, names, position, path)
            )
            if found is not None:
                targets.append(found)
        policy, folder = self._settings.routing_policy, self._folder()
        try:
            return model_spec(model, tuple(targets), policy, folder)
        except ValueError as error:
            self._note(("models", index, "tokenizer"), str(error))
            plain = model.model_copy(update={"tokenizer": None})
            return model_spec(plain, tuple(targets), policy, folder)

    def _remote(self, raw: dict[str, Any], position: int, path: YamlPath) -> RemoteSpec | None:
        target = self._validated(RemoteYaml, raw, path)
        if target is None:
            return None
        try:
            return remote_spec(target, position, self._environ, self._folder())
        except MissingVariable as error:
            self._note((*path, error.field), f"${{{error.name}}} is not set; export {error.name}")
        except LiteralSecret as error:
            self._note(
                (*path, "headers", error.name),
                "this looks like a secret: write ${NAME} and set NAME in the environment",
            )
        return None

    def _local(
        self, raw: dict[str, Any], names: tuple[str, ...], position: int, path: YamlPath
    ) -> LocalSpec | None:
        faults = len(self._faults)
        for field in raw:
            if field not in LOCAL_FIELDS:
                known = [*LOCAL_FIELDS, *RemoteYaml.model_fields]
                self._note((*path, field), unknown_field(str(field), known))
        entry: dict[str, Any] = {"model_name": "bundled", **raw}
        name = entry.pop("name", None) or ("local" if not position else f"local-{position + 1}")
        weight = entry.pop("weight", 1.0)
        if not isinstance(name, str):
            self._note((*path, "name"), "a name in quotes is needed")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
            self._note((*path, "weight"), "a number above 0 is needed")
        if len(self._faults) > faults:
            return None
        try:
            own = self._settings.of_entry({**entry, "served_model_name": names}, "")
        except ValueError as error:
            for line in str(error).removeprefix(": ").splitlines():
                field = line.partition(":")[0].lower()
                self._note((*path, field), line.partition(": ")[2] or line)
            return None
        return LocalSpec(str(name), own.engine_config(), own.replicas, float(weight))

    def _folder(self) -> Path:
        return Path(self._where).parent

    def _validated(self, kind: type[S], document: Any, path: YamlPath) -> S | None:
        try:
            return kind.model_validate(document)
        except ValidationError as error:
            for fault in error.errors(include_input=False, include_url=False):
                self._note((*path, *fault["loc"]), said(fault, kind))
            return None

    def _note(self, path: YamlPath, message: str) -> None:
        line = line_of(path, self._lines)
        self._faults.append((line, f"{self._where}:{line}: {spelled(path)}{message}"))

    def _stop_at_faults(self) -> None:
        if self._faults:
            raise ConfigError("\n".join(text for _, text in sorted(self._faults)))


def said(fault: Any, kind: type[Strict]) -> str:
    """A fault of pydantic's in the words of this file."""
    if fault["type"] == "extra_forbidden":
        return unknown_field(str(fault["loc"][-1]), fields_at(kind, fault["loc"]))
    if fault["type"] == "missing":
        return "this field is missing"
    return str(fault["msg"]).removeprefix("Value error, ")


def fields_at(kind: type[Strict], loc: tuple[str | int, ...]) -> list[str]:
    """The fields of the innermost mapping that holds ``loc``."""
    current: Any = kind
    for part in loc[:-1]:
        if isinstance(part, int) or not hasattr(current, "model_fields"):
            continue
        field = current.model_fields.get(part)
        inner = _kinds_in(field.annotation) if field is not None else []
        current = inner[0] if inner else current
    return list(current.model_fields)


def _kinds_in(annotation: Any) -> list[type[Strict]]:
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [kind for part in getattr(annotation, "__args__", ()) for kind in _kinds_in(part)]


def unknown_field(name: str, known: list[str]) -> str:
    """The message for a field that does not exist here, with the likely one."""
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean '{close[0]}'?" if close else "; see docs/routing.md for the fields"
    return f"there is no such field{hint}"


def spelled(path: YamlPath) -> str:
    """``models[0].targets[1].base_url: ``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return f"{text}: " if text else ""
