"""One server as a batch job of Slurm: where it is found, how it is told to end, what it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.slurm.servers import Servers
from gateway.server import Process

# Compilers of kernels keep what they make in the home otherwise, which is slow and shared.
CACHES = ("VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
# Sends SIGTERM on, once, and ends with the process that it is for.
RELAY = 'trap "kill -TERM $0; exit 0" TERM; echo; tail --pid=$0 --follow /dev/null & wait'
RELAY_START_S = 20.0
"""Slurm may be busy; a job does without rather than not serve."""

WITHDRAW_S = 5.0


class JobError(Exception):
    """The job cannot serve. The message says why and what to do."""


class JobProcess(Process):
    """A server that routers stop to use before it drains, and that drains on every SIGTERM.

    Elsewhere a second SIGTERM ends a server at once, since somebody lost patience. Slurm sends
    it to processes and to their parents, and has SIGKILL for the end of its own patience.
    """

    def __init__(self, *args: Any, servers: Servers, **options: Any) -> None:
        super().__init__(*args, **options)
        self._servers = servers
        self.state.lifecycle.drainers.insert(0, self._withdraw)

    async def _withdraw(self) -> None:
        # A shared file system that hangs must not hold up the drain.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WITHDRAW_S):
                await asyncio.to_thread(self._servers.withdraw)

    def _on_signal(self) -> None:
        if not self.state.lifecycle.draining:
            super()._on_signal()


def keys_of(path: Path) -> tuple[str, ...]:
    """The keys of a file that only its owner can read, one per line or comma-separated.

    Raises JobError.
    """
    make = f"(umask 077 && openssl rand -hex 32 > {path})"
    try:
        with path.open(errors="replace") as file:
            status = os.fstat(file.fileno())
            found = tuple(file.read().replace(",", "\n").split())
    except OSError as error:
        raise JobError(f"KEY_FILE={path}: {error.strerror}; make one: {make}") from None
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise JobError(f"KEY_FILE={path} is not yours alone: chmod 600 {path}")
    if not found:
        raise JobError(f"KEY_FILE={path} is empty; make one: {make}")
    return found


def reachable_host(environ: Mapping[str, str]) -> str:
    """Where other nodes find this one: ADVERTISE_HOST, or the node's name in Slurm where that
    is known to name services, or the machine's own name."""
    if told := environ.get("ADVERTISE_HOST"):
        return told
    node = environ.get("SLURMD_NODENAME", "")
    try:
        socket.getaddrinfo(node, None)
    except OSError:
        return socket.gethostname()
    return node or socket.gethostname()


@contextmanager
def scratch(environ: dict[str, str] | os._Environ[str], job: str) -> Iterator[Path]:
    """A folder on the node's own disk that ends with the job. Gets DATA_DIR and the caches of
    compilers unless they are set."""
    disk = environ.get("SLURM_TMPDIR") or environ.get("TMPDIR") or "/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(
        prefix=f"llm-gateway-{job}-", dir=disk, ignore_cleanup_errors=True
    ) as made:
        folder = Path(made)
        environ.setdefault("DATA_DIR", str(folder / "data"))
        for name in CACHES:
            environ.setdefault(name, str(folder / name.lower()))
        yield folder


@contextmanager
def relay() -> Iterator[None]:
    """Have SIGTERM to the job's steps reach this process, which is the batch script's.

    ``scancel --signal=TERM`` and the grace time of a preemption signal steps only.
    """
    srun = shutil.which("srun")
    if srun is None:
        yield
        return
    step = [
        *(srun, "--overlap", "--quiet", "--nodes=1", "--ntasks=1", "--mem=0", "--gres=none"),
        *("sh", "-c", RELAY, str(os.getpid())),
    ]
    with subprocess.Popen(step, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            if not select.select([running.stdout], [], [], RELAY_START_S)[0]:
                sys.stderr.write("llm-gateway: srun starts no step: signals to steps get lost\n")
            yield
        finally:
            running.kill()
