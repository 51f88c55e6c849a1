"""Runs ``llm-gateway model convert`` as a user does, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE_S = 240.0


class Command:
    """A running command; both streams go to files in ``folder``."""

    def __init__(self, folder: Path, *arguments: str, **environment: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "model", "convert", *arguments],
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(folder),
                    "PYTHONPATH": os.pathsep.join(sys.path),
                    "OMP_NUM_THREADS": "1",
                    "MODEL_CACHE_DIR": str(folder / "cache"),
                    **environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # a process group that can be interrupted as a whole
            )

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def said(self) -> str:
        """Both streams so far."""
        return f"{self.out.read_text()}\n{self.err.read_text()}"

    def wait_for(self, stage: str) -> None:
        """Wait until it has told of ``stage``."""
        deadline = time.monotonic() + PATIENCE_S
        while stage not in self.err.read_text():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    def interrupt(self) -> int:
        """What Ctrl-C does; returns the exit status."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)
