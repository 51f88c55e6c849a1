"""A real PostgreSQL for the tests: made, started, killed and restarted in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

PATIENCE_S = 60.0


def find_binaries() -> Path | None:
    """Where initdb and postgres are; distributions keep them out of PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Postgres:
    """One server on a unix socket. It refuses to run as root, so root becomes ``postgres``."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        # Not below pytest's own folder, which other users may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        command = [binaries / "initdb", "-D", self._data, "-U", "gateway", "-A", "trust"]
        options = ["-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, **self._as)
        self.start()

    def url(self, database: str, password: str = "") -> str:
        """For USAGE_DATABASE_URL."""
        secret = f":{password}" if password else ""
        return f"postgresql://gateway{secret}@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start and wait until it answers; again where a killed one has not let go yet."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            if self._process is None or self._process.poll() is not None:
                self._process = self._spawn()
            try:
                self.run("SELECT 1")
            except psycopg.Error:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """End it without a chance to do anything."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """End it and remove everything."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        address = f"host={self.folder} user=gateway dbname={database} connect_timeout=5"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description is not None else []

    @contextmanager
    def locked(self, table: str, database: str) -> Iterator[None]:
        """Nobody else gets at the table."""
        address = f"host={self.folder} user=gateway dbname={database} connect_timeout=5"
        with psycopg.connect(address) as connection:
            connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "40",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [self._binaries / "postgres", "-D", self._data, *options],
                stdout=log,
                stderr=log,
                **self._as,
            )
