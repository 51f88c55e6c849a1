"""An output folder that appears whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.models.scratch import scratch_beside
from engine.quantization.report import QuantizationError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def whole_folder(out: Path, needed: int) -> Iterator[Path]:
    """A scratch folder beside ``out`` whose ``model`` becomes ``out`` when the block ends well.

    An interrupted run leaves ``out`` as it was; what a killed one left beside it goes away in
    the next run.

    Args:
        needed: bytes that the work takes on that disk at most.

    Raises:
        QuantizationError: the folder cannot be written, or the disk is full.
    """
    try:
        out = out.resolve()
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if free < needed:
            raise QuantizationError(_full(out, f"needs about {_mib(needed)}, has {_mib(free)}"))
        with scratch_beside(out) as scratch, _temporary_files_in(scratch):
            (scratch / "model").mkdir()
            yield scratch
            os.replace(scratch / "model", out)
    except OSError as error:
        if error.errno in _FULL:
            raise QuantizationError(_full(out, error.strerror)) from error
        raise QuantizationError(
            f"{out} cannot be written ({error}): name a folder that this user can write to"
        ) from error


def _full(out: Path, reason: str | None) -> str:
    return (
        f"no space for {out} ({reason}): make room on the disk of {out.parent} or name a folder "
        "on another"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


@contextlib.contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """onnxruntime's tools write copies of the model into the system's temporary folder."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
