"""Load from ``llm-gateway bench``, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.autoscaling.processes import LoopError


class Bench:
    """A running benchmark: so many callers per stage, each with one request at a time.

    Args:
        length: options of the command that end a stage.
    """

    def __init__(
        self, folder: Path, url: str, callers: Sequence[int], output_tokens: int, *length: str
    ) -> None:
        folder.mkdir(parents=True)
        self._out, self._err = folder / "result.json", folder / "stderr.txt"
        argv = [
            *(sys.executable, "-m", "gateway", "bench", "--json", "--num-warmups", "0"),
            *("--base-url", f"{url}/v1", "--model", "chat", "--input-len", "32"),
            *("--output-len", str(output_tokens), "--concurrency", ",".join(map(str, callers))),
            *length,
        ]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )

    @property
    def over(self) -> bool:
        """Whether every request has been answered."""
        return self.process.poll() is not None

    def result(self) -> dict[str, Any]:
        """What it measured. Raises LoopError when it failed."""
        if self.process.wait() != 0:
            raise LoopError(f"the benchmark failed\n{self._err.read_text()}")
        document: dict[str, Any] = json.loads(self._out.read_text())
        return document

    def kill(self) -> None:
        """End it now, whatever it has done."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
