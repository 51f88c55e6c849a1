"""Worker processes, of which only one runs at a time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.workers.wire import Job

ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A worker died, stayed silent or reported a fault. The message says where to look."""


class Worker:
    """One engine in a process group of its own, frozen while another one measures."""

    def __init__(self, name: str, argv: list[str], job: Job, log: Path) -> None:
        self.name = name
        self.info: dict[str, Any] = {}
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # The group stays in this session, so the kernel hangs it up if the harness is killed
        # while members are stopped.
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [*argv, json.dumps(asdict(job))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": str(job.threads)},
                process_group=0,
            )
        self._pending = b""

    def wait_ready(self, timeout_s: float) -> None:
        """Wait for the engine to have loaded, then freeze it."""
        message = self._read(timeout_s)
        if not message.get("ready"):
            raise WorkerError(f"{self.name}: unexpected greeting {message}")
        self.info = message["info"]
        self.freeze()

    def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Thaw, carry out one command, freeze."""
        os.killpg(self._process.pid, signal.SIGCONT)
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            message = self._read(timeout_s)
        except BrokenPipeError as error:
            raise WorkerError(f"{self.name} died; {self._tail()}") from error
        finally:
            self.freeze()
        if "error" in message:
            raise WorkerError(f"{self.name}: {message['error']}; full log: {self._log}")
        return message

    def freeze(self) -> None:
        """Stop every process of the group: idle engines may spin."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def close(self) -> None:
        """Ask it to quit, then insist."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGCONT)
                assert self._process.stdin is not None
                self._process.stdin.write(b'{"op": "quit"}\n')
                self._process.stdin.close()
                self._process.wait(timeout=10)
            except (OSError, subprocess.TimeoutExpired):
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WorkerError(f"{self.name} said nothing for {timeout_s:.0f} s; {self._tail()}")
            readable, _, _ = select.select([descriptor], [], [], left)
            if not readable:
                continue
            data = os.read(descriptor, 65536)
            if not data:
                raise WorkerError(f"{self.name} died; {self._tail()}")
            self._pending += data
        line, self._pending = self._pending.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _tail(self) -> str:
        text = self._log.read_text(errors="replace").strip().splitlines()[-6:]
        return f"full log: {self._log}; its end:\n    " + "\n    ".join(text)


class Pool:
    """Workers that are all closed on the way out."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self.workers:
            worker.close()
