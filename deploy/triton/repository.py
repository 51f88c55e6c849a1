"""Model repositories as folders: written all or nothing, and read back to be checked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.triton.checks import check_model
from deploy.triton.errors import TritonError
from deploy.triton.parts import Part
from deploy.triton.schema import Config, parse, render
from deploy.triton.wiring import check_ensemble
from engine.models.find import require_space
from engine.models.scratch import scratch_beside

CONFIG = "config.pbtxt"


@dataclass(frozen=True, slots=True)
class Checked:
    """A model that keeps every rule.

    Attributes:
        versions: numbers of its version folders.
        notes: what could not be checked, and why.
    """

    config: Config
    versions: tuple[int, ...]
    notes: tuple[str, ...]


def check_repository(folder: Path, python: Path) -> list[Checked]:
    """Every model of a repository; raises TritonError for the first rule that one breaks.

    Args:
        python: of the ``triton`` environment.
    """
    if not folder.is_dir():
        raise TritonError(f"there is no folder {folder}: give a model repository")
    models = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not models:
        raise TritonError(f"{folder} has no models: give a folder that holds a folder per model")
    texts = {}
    for model in models:
        try:
            texts[model.name] = (model / CONFIG).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise TritonError(f"{model} has no {CONFIG}: give a model repository") from None
        except (OSError, UnicodeDecodeError) as error:
            raise TritonError(f"{model / CONFIG} cannot be read: {error}") from error
    configs = parse(python, texts)
    found = []
    for model in models:
        config = configs[model.name]
        notes = check_model(model, config)
        versions = sorted(int(p.name) for p in model.iterdir() if p.name.isdecimal())
        found.append(Checked(config, tuple(versions), tuple(notes)))
    for checked in found:
        if checked.config.get("platform") == "ensemble":
            check_ensemble(checked.config, configs)
    return found


def write_repository(
    parts: Sequence[Part], out: Path, python: Path, *, version: int = 1, force: bool = False
) -> list[Checked]:
    """Write models into the repository ``out``, which is made if need be, and check them.

    Everything is written and checked beside ``out`` and moved at the end. A model that is there
    already gets one more version when its config stays the same, and is replaced by ``force``.

    Raises:
        EngineStartError: something is in the way, wrong or does not fit on the disk; ``out`` is
            then as it was.
    """
    texts = render(python, {part.name: part.config for part in parts})
    _check_free(out, texts, version, force)
    require_space(out, sum(part.size for part in parts), f"the repository {out}")
    try:
        with scratch_beside(out) as scratch:
            stage = scratch / "repository"
            stage.mkdir()
            for part in parts:
                _write(part, stage / part.name, texts[part.name], version)
            checked = check_repository(stage, python)
            _move(stage, out, [part.name for part in parts], version, force)
    except OSError as error:
        raise TritonError(f"{out} cannot be written: {error}") from error
    return checked


def _check_free(out: Path, texts: dict[str, str], version: int, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise TritonError(f"{out} is a file: give a folder for the repository")
    for name, text in texts.items():
        model = out / name
        if not model.exists() or force:
            continue
        config = model / CONFIG
        same = config.is_file() and config.read_text(encoding="utf-8", errors="replace") == text
        if not same:
            raise TritonError(
                f"{model} is there already with another configuration: add --force to replace it, "
                "or give another --name"
            )
        if (model / str(version)).exists():
            raise TritonError(
                f"{model} has a version {version} already: add --force to replace the model, or "
                "give another --version"
            )


def _write(part: Part, model: Path, text: str, version: int) -> None:
    folder = model / str(version)
    folder.mkdir(parents=True)
    (model / CONFIG).write_text(text, encoding="utf-8")
    for name, what in part.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, Path):
            shutil.copyfile(what, target)
        else:
            target.write_text(what, encoding="utf-8")


def _move(stage: Path, out: Path, names: list[str], version: int, force: bool) -> None:
    """The model that clients call comes last, so that nothing is announced before it works."""
    if not out.exists():
        os.rename(stage, out)
        return
    with scratch_beside(out) as old:
        for name in names:
            target = out / name
            if not target.exists():
                os.rename(stage / name, target)
            elif not force:
                os.rename(stage / name / str(version), target / str(version))
            else:
                os.rename(target, old / name)
                try:
                    os.rename(stage / name, target)
                except OSError:
                    os.rename(old / name, target)
                    raise
