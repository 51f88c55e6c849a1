"""Which servers run, in a folder that all nodes see: each job has a file in it, and all addresses
together are in one file that a router follows (``discovery: {kind: file}`` in gateway.yaml).

No lock is needed, which shared file systems may not have: whoever changes the folder writes the
list anew until it says what the folder says, so the last one to write has seen every change.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from pathlib import Path

LIST = "servers"
SUFFIX = ".url"
HEADER = "# Written by the servers themselves: one base URL per line.\n"
REFRESH_S = 10.0
STALE_S = 60.0
"""A server that was killed cannot take its file away: the others do, by these seconds."""


class ServersError(Exception):
    """The folder cannot be used. The message says why and what to do."""


class Servers:
    """The folder, as one server uses it.

    Args:
        folder: made if need be, for the user alone.
        name: of this server among all; a job that is requeued keeps its own.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._own = folder / f"{name}{SUFFIX}"
        self._entry = ""
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._refresher: threading.Thread | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        except OSError as error:
            raise ServersError(f"SERVERS_DIR={folder}: {error.strerror}") from None
        if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ServersError(
                f"SERVERS_DIR={folder} can be written by others, who could have your key sent to "
                f"them; it has to be your own: chmod 700 {folder}"
            )

    def publish(self, url: str) -> None:
        """Let routers have ``url`` until ``withdraw``.

        Raises OSError where that fails now; it is tried again every ``REFRESH_S`` seconds.
        """
        self._entry = f"{url}\n"
        self._refresher = threading.Thread(target=self._refresh, daemon=True)
        self._refresher.start()
        self._write()

    def withdraw(self) -> None:
        """Let routers have it no longer; without effect where it is not published."""
        self._ended.set()
        refresher, self._refresher = self._refresher, None
        if refresher is not None:
            refresher.join()
            with contextlib.suppress(OSError):
                self._own.unlink(missing_ok=True)
                self._write_list()

    def _refresh(self) -> None:
        while not self._ended.wait(REFRESH_S):
            with contextlib.suppress(OSError):  # a file system that is away comes back
                self._write()

    def _write(self) -> None:
        """Anew each time, since a job that was suspended has been dropped by the others."""
        with self._writing:
            replace(self._own, self._entry)
            self._drop_stale()
            self._write_list()

    def _drop_stale(self) -> None:
        """By the file server's clock on both sides, so that nodes' clocks may differ."""
        now = self._own.stat().st_mtime
        for entry in self._folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if now - entry.stat().st_mtime > STALE_S:
                    entry.unlink()

    def _write_list(self) -> None:
        target = self._folder / LIST
        while (wanted := self._listed()) != read(target):
            replace(target, wanted)

    def _listed(self) -> str:
        entries = sorted(self._folder.glob(f"*{SUFFIX}"))
        return HEADER + "".join(filter(None, map(read, entries)))


def read(path: Path) -> str | None:
    """The text of a file, or None where there is none."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def replace(path: Path, text: str) -> None:
    """Write a file so that nobody sees half of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.uname().nodename}")
    draft.write_text(text)
    draft.replace(path)
