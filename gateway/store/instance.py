"""Which server process works on what, told apart by locks that end with the process.

Several gateways may share DATA_DIR. Work that one of them began and did not finish is orphaned
once that process is gone, however it went; a lock on a file says so, even between containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path


class Instance:
    """This process among those that share a folder. Its methods do file I/O: call in a thread.

    Args:
        folder: where the lock files are; None when nothing is shared.

    Attributes:
        id: written beside work in progress as its owner.
    """

    def __init__(self, folder: Path | None) -> None:
        self.id = secrets.token_hex(8)
        self._folder = folder
        self._lock: int | None = None

    def hold(self) -> None:
        """Begin to count as alive for the others. Raises OSError."""
        if self._folder is None or self._lock is not None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._path(self.id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._lock = lock

    def alive(self, owner: str) -> bool:
        """Whether the process that wrote this id still runs; its lock file goes when not."""
        if owner == self.id:
            return True
        if self._folder is None or not owner.isalnum():
            return False
        path = self._path(owner)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            with contextlib.suppress(OSError):
                path.unlink()
            return False
        finally:
            os.close(lock)

    def release(self) -> None:
        """Count as gone from now on."""
        if self._lock is None or self._folder is None:
            return
        with contextlib.suppress(OSError):
            self._path(self.id).unlink()
        os.close(self._lock)
        self._lock = None

    def _path(self, owner: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{owner}.lock"
