"""A folder that a command makes: it is there whole, or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from engine.base import EngineStartError
from engine.models.scratch import scratch_beside

# The last file that a conversion writes, by kind: a folder with one of them may be replaced.
MANIFESTS = ("gateway_model.json", "gateway_encoder.json", "gateway_graph.json")


def check_out(out: Path, source: Path | None, *, force: bool) -> None:
    """Refuse a place that must not be written to; raises EngineStartError.

    Args:
        source: what is read, which must not lie in a folder that is replaced.
        force: whether a folder that a conversion made may be replaced.
    """
    if source is not None and source.resolve().is_relative_to(out.resolve()):
        raise EngineStartError(f"{out} holds the source itself: give another folder as --out")
    if not out.exists() and not out.is_symlink():
        return
    if not out.is_dir() or out.is_symlink():
        raise EngineStartError(f"{out} exists and is not a folder: give another --out")
    if not force:
        raise EngineStartError(f"{out} exists: give another --out, or --force to replace it")
    if any(out.iterdir()) and not any((out / name).is_file() for name in MANIFESTS):
        raise EngineStartError(
            f"{out} is not a converted model, so --force does not replace it: give another --out"
        )


@contextlib.contextmanager
def new_folder(out: Path, *, force: bool) -> Iterator[Path]:
    """A hidden folder beside ``out`` to work in; what it calls ``model`` becomes ``out``.

    When the block raises, or makes no ``model``, ``out`` is as it was and nothing else stays.
    What runs that were killed left beside ``out`` is removed.

    Raises:
        EngineStartError: the place cannot be written to, or ``out`` came to exist meanwhile.
    """
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(scratch_beside(out))
        except OSError as error:
            raise EngineStartError(f"{out} cannot be made ({error}): give another --out") from error
        try:
            yield scratch
            if (scratch / "model").is_dir():
                _put_in_place(scratch, out, force=force)
        except OSError as error:
            raise EngineStartError(
                f"{out} cannot be written ({error}) and was not made: give another --out"
            ) from error


def _put_in_place(scratch: Path, out: Path, *, force: bool) -> None:
    check_out(out, None, force=force)  # it took minutes: another run may have been quicker
    before = scratch / "before"
    if out.exists():
        out.rename(before)
    try:
        (scratch / "model").rename(out)
    except BaseException:
        if before.exists():
            before.rename(out)
        raise
