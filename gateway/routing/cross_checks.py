"""What has to hold between the models of one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.routing.config import ModelSpec
from gateway.routing.yaml_lines import Path


def check_references(models: Sequence[ModelSpec]) -> Iterator[tuple[Path, str]]:
    """Every fault with the place it stands at."""
    owner: dict[str, int] = {}
    for index, model in enumerate(models):
        for position, name in enumerate(model.names):
            field: Path = ("name",) if not position else ("aliases", position - 1)
            if name in owner:
                yield (
                    ("models", index, *field),
                    f"'{name}' already is a name of models[{owner[name]}]; names are unique",
                )
            owner.setdefault(name, index)
    by_name = {model.name: model for model in models}
    for index, model in enumerate(models):
        at: Path = ("models", index)
        yield from _targets(model, at)
        for kind, names in model.fallbacks:
            for position, name in enumerate(names):
                place: Path = (*at, "fallbacks", kind, position)
                yield from _reference(by_name, model, name, place)
        if model.split is not None:
            for position, (name, _) in enumerate(model.split.shares):
                yield from _reference(
                    by_name, model, name, (*at, "split", "shares", position, "model")
                )
        if model.shadow is not None:
            place = (*at, "shadow", "to")
            yield from _reference(by_name, model, model.shadow.to, place)
            copied = by_name.get(model.shadow.to)
            if copied is not None and copied.locals:
                yield (
                    place,
                    f"'{copied.name}' runs in this process, where copies would slow answers "
                    "down; copy to a model whose targets are all remote",
                )


def _targets(model: ModelSpec, at: Path) -> Iterator[tuple[Path, str]]:
    if model.hedge is not None and not model.remotes:
        yield (*at, "hedge"), "only servers elsewhere are asked twice; this model has none"
    if model.wait_for_target_s and (model.locals or not model.remotes):
        yield (
            (*at, "wait_for_target"),
            "only servers elsewhere are waited for; give it to a model that has no other targets",
        )
    seen: set[str] = set()
    for position, target in enumerate(model.targets):
        if target.name in seen:
            yield (
                (*at, "targets", position, "name"),
                f"two targets are called '{target.name}'; give each its own name",
            )
        seen.add(target.name)


def _reference(
    by_name: dict[str, ModelSpec], model: ModelSpec, name: str, place: Path
) -> Iterator[tuple[Path, str]]:
    found = by_name.get(name)
    if found is None:
        known = ", ".join(sorted(by_name))
        yield place, f"there is no model '{name}'; models are {known} (aliases do not count here)"
    elif found is model:
        yield place, "a model cannot refer to itself"
    elif found.split is not None:
        yield place, f"'{name}' is split itself; name a model with targets"
