"""YAML with the line of every value, so that a fault can be shown where it stands."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]

Path = tuple[str | int, ...]

MAX_DEPTH = 16
MAX_VALUES = 50_000


class YamlError(Exception):
    """The text is not the YAML that is wanted. The message begins with the line."""


def load_with_lines(text: str) -> tuple[Any, dict[Path, int]]:
    """The document as plain values, and the line of each by its path.

    Safe: no Python objects. Merge keys work; a key that stands twice is refused, because
    readers disagree about which one counts. Raises YamlError.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is None:
            raise YamlError("line 1: the file is empty; it needs at least 'models:'")
        lines: dict[Path, int] = {}
        _walk(node, (), lines)
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        problem = getattr(error, "problem", None) or "this is not YAML"
        raise YamlError(f"{line}not valid YAML: {problem}") from None


def _walk(node: Any, path: Path, lines: dict[Path, int]) -> None:
    # Aliases can make a short text stand for an endless document.
    if len(path) > MAX_DEPTH or len(lines) > MAX_VALUES:
        raise YamlError(f"line {node.start_mark.line + 1}: the file is too large or too deep")
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise YamlError(
                    f"line {key.start_mark.line + 1}: '{name}' stands twice; keep one of them"
                )
            seen.add(name)
            _walk(value, (*path, name), lines)
            lines[*path, name] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            _walk(value, (*path, position), lines)


def line_of(path: Path, lines: dict[Path, int]) -> int:
    """The line of a value, or of what should hold it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)
