"""A YAML file read so that every fault can name its line."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Where = tuple[str | int, ...]
_LARGEST = 1024 * 1024


class SpecFileError(Exception):
    """What is wrong with a file, with its place and what to do."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content, and the line (from 1) on which each part of it begins."""

    file: Path
    content: dict[str, Any]
    lines: dict[Where, int] = field(default_factory=dict)

    def place(self, where: Sequence[str | int]) -> str:
        """``file:line`` of the innermost part of ``where`` that the file has."""
        path = tuple(where)
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.file}:{self.lines.get(path, 1)}"


def read_document(file: Path) -> Document:
    """Read one YAML mapping. Raises SpecFileError for anything else."""
    import yaml  # type: ignore[import-untyped]

    try:
        if file.stat().st_size > _LARGEST:
            raise SpecFileError(f"{file} has more than 1 MiB: that is no spec")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecFileError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecFileError(f"{file} is not UTF-8 text") from None
    loader = yaml.SafeLoader(text)
    lines: dict[Where, int] = {}
    try:
        node = loader.get_single_node()
        content = None if node is None else _build(loader, node, (), lines, file, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or str(error)
        raise SpecFileError(f"{file}:{line}: not YAML: {problem}") from None
    finally:
        loader.dispose()
    if not isinstance(content, dict):
        raise SpecFileError(f"{file} holds no mapping: begin with project:, region: and name:")
    return Document(file, content, lines)


def as_text(value: Any) -> str:
    """A value of YAML as the environment holds it; lists and mappings become JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    return "" if value is None else str(value)


def _build(
    loader: Any,
    node: Any,
    where: Where,
    lines: dict[Where, int],
    file: Path,
    above: tuple[int, ...],
) -> Any:
    import yaml

    if id(node) in above:
        raise SpecFileError(f"{file}:{node.start_mark.line + 1}: this alias holds itself")
    within = (*above, id(node))
    lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        _refuse_twice([key for key, _ in node.value], file)
        loader.flatten_mapping(node)
        found: dict[Hashable, Any] = {}
        for key, value in node.value:
            name = loader.construct_object(key, deep=True)
            if not isinstance(name, str):
                line = key.start_mark.line + 1
                raise SpecFileError(f"{file}:{line}: {name!r} is no name: put it in quotes")
            lines[(*where, name)] = key.start_mark.line + 1
            found[name] = _build(loader, value, (*where, name), lines, file, within)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [
            _build(loader, item, (*where, i), lines, file, within)
            for i, item in enumerate(node.value)
        ]
    return loader.construct_object(node, deep=True)


def _refuse_twice(keys: list[Any], file: Path) -> None:
    known: set[Any] = set()
    for key in keys:
        # A merge key (<<) may stand several times.
        if key.value in known and not key.tag.endswith(":merge"):
            line = key.start_mark.line + 1
            raise SpecFileError(f"{file}:{line}: {key.value} is given twice: keep one of them")
        known.add(key.value)
