"""Finds the hooks that HOOKS names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from gateway.hooks.api import HOOK_API, Hook

GROUP = "llm_gateway.hooks"
BUILT_IN = {"redact": "gateway.hooks.redact:Redact"}
METHODS = ("before", "rewriter", "after")


def load_hooks(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, Hook]]:
    """Each hook with its name, in order. Raises ValueError that says which cannot be used, why.

    A name is that of a built-in hook, of an entry point in the group ``llm_gateway.hooks``, or
    ``module:object``. It stands for what makes the hook: it is called with the hook's options.
    """
    return [(name, load_hook(name, options.get(name, {}))) for name in names]


def load_hook(name: str, options: Mapping[str, Any]) -> Hook:
    """One hook. Raises ValueError."""
    where = f"HOOKS: {name[:128]}"
    factory = find_factory(name, where)
    try:
        hook = factory(**options)
    except Exception as error:
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from None
    version = getattr(hook, "api_version", None)
    if version != HOOK_API:
        raise ValueError(
            f"{where}: it is written for version {version} of the interface of hooks, and this "
            f"server has version {HOOK_API}"
        )
    for method in METHODS:
        if not callable(getattr(hook, method, None)):
            raise ValueError(f"{where}: it has no method {method}; inherit from gateway.hooks.Hook")
    return hook


def find_factory(name: str, where: str) -> Callable[..., Hook]:
    """What makes the hook. Raises ValueError."""
    target = BUILT_IN.get(name, name)
    try:
        if ":" in target:
            module, _, path = target.partition(":")
            found: Any = reduce(getattr, path.split("."), import_module(module))
        else:
            plugged = entry_points(group=GROUP, name=target)
            if not plugged:
                raise ValueError(
                    f"{where}: no installed plug-in has this name; use module:object for code on "
                    "PYTHONPATH"
                )
            found = next(iter(plugged)).load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{where}: {error}") from None
    if not callable(found):
        raise ValueError(f"{where}: it must be a class or a function that makes the hook")
    return found  # type: ignore[no-any-return]
