"""EngineCore's process, apart from the gateway's.

vLLM runs its scheduler in a child process (EngineCore), which may have worker processes
of its own. Those processes are made to
- live in a process group of their own, so that Ctrl-C or a signal to the gateway's group
  reaches the gateway alone, which drains before it stops them (a session of their own would
  do that as well, but Linux schedules sessions against each other);
- end when the gateway is gone, however it went, so that no GPU memory stays taken;
- write why they failed to a file, because vLLM leaves the cause in the child's log.

The functions named ``run_*`` are the child's side and run there.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

_PARENT_POLL_S = 1.0
_KILL_WAIT_S = 10.0


class CoreProcesses:
    """The EngineCore processes of one engine, seen from the gateway."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """Where the children write; made on first use and removed by ``close``."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="llm-gateway-vllm-"))
        return self._folder

    def cores(self) -> list[int]:
        """Pids of every EngineCore started so far, dead ones included."""
        if self._folder is None:
            return []
        return sorted(int(path.name.removeprefix("core-")) for path in self._folder.glob("core-*"))

    def alive(self) -> list[int]:
        """Pids of all processes of this engine that still run."""
        return [pid for core in self.cores() for pid in group_members(core)]

    def reason(self) -> str | None:
        """What the first failing process said, or None."""
        if self._folder is None:
            return None
        try:
            lines = (self._folder / "errors").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return None
        # A worker's failure comes first; EngineCore then only says that a worker failed.
        return str(json.loads(lines[0])["error"]) if lines else None

    def kill(self) -> None:
        """Kill every process of this engine and wait until it is gone; blocks."""
        deadline = time.monotonic() + _KILL_WAIT_S
        while (left := self.alive()) and time.monotonic() < deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            multiprocessing.active_children()  # reaps
            time.sleep(0.02)

    def close(self) -> None:
        """Kill what is left and remove the folder; blocks. Idempotent."""
        self.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def group_members(group: int) -> list[int]:
    """Pids of the running processes of a process group, resource trackers left out.

    A resource tracker removes the shared memory of killed processes and then ends.
    """
    members = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # Fields after the command in parentheses: state, ppid, pgrp.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) != group or fields[0] == "Z":
                continue
            if b"resource_tracker" not in (entry / "cmdline").read_bytes():
                members.append(int(entry.name))
    return members


def run_core(folder: str, parent: int, *args: Any, **kwargs: Any) -> None:
    """The child's main function in place of ``EngineCoreProc.run_engine_core``."""
    os.setpgrp()
    Path(folder, f"core-{os.getpid()}").touch()
    threading.Thread(target=_end_with, args=(parent, folder), daemon=True).start()
    from engine.vllm import compat

    try:
        compat.run_engine_core(folder, args, kwargs)
    except Exception as error:
        report(folder, error)
        raise


def run_worker(folder: str, *args: Any, **kwargs: Any) -> None:
    """A worker's main function in place of ``WorkerProc.worker_main``."""
    from engine.vllm import compat

    compat.run_worker(folder, args, kwargs)


def report(folder: str, error: BaseException) -> None:
    """Append ``error`` to what ``CoreProcesses.reason`` reads."""
    line = json.dumps({"pid": os.getpid(), "error": f"{type(error).__name__}: {error}"})
    with contextlib.suppress(OSError), open(Path(folder, "errors"), "a", encoding="utf-8") as out:
        out.write(line + "\n")


def _end_with(parent: int, folder: str) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    shutil.rmtree(folder, ignore_errors=True)
    for pid in group_members(os.getpid()):
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
