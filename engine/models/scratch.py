"""Hidden folders beside what a command makes: on the same disk, and gone with the command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def scratch_beside(out: Path) -> Iterator[Path]:
    """A folder to work in, removed at the end.

    It is locked while its process lives, so what is not was left by runs that were killed, and is
    removed as well. Raises OSError where the place cannot be written to.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch, held = _begin(out)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(held)


def _prefix(out: Path) -> str:
    return f".{out.name}.making-"


def _begin(out: Path) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock, which ends with the process."""
    parent = os.open(out.parent, os.O_RDONLY)
    try:
        fcntl.flock(parent, fcntl.LOCK_EX)  # nobody looks between making and locking
        _remove_abandoned(out)
        scratch = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
        held = os.open(scratch, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        return scratch, held
    finally:
        os.close(parent)


def _remove_abandoned(out: Path) -> None:
    for found in out.parent.iterdir():
        if not found.name.startswith(_prefix(out)) or found.is_symlink() or not found.is_dir():
            continue
        descriptor = os.open(found, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(found, ignore_errors=True)
        finally:
            os.close(descriptor)
