"""``llm-gateway serve`` under a sampling profiler: ``python -m benchmarks.frontend.profiled``.

Every millisecond of CPU time the kernel sends SIGPROF, and the function that runs is counted,
once for itself and once for everything below it. Time inside a C function counts for the
Python function that called it. SIGUSR2 starts the counts over, so that the start of the server
is not in them. They are written as JSON to the file that PROFILE_OUT names when the server ends.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

INTERVAL_S = 0.001
ROOT = str(Path(__file__).resolve().parents[2]) + os.sep


class Sampler:
    """Counts functions by their code objects."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._self: Counter[CodeType] = Counter()
        self._total: Counter[CodeType] = Counter()
        self._samples = 0

    def start(self) -> None:
        """Sample from now on."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR2, self._forget)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
        atexit.register(self._write)

    def _forget(self, number: int, frame: FrameType | None) -> None:
        self._self.clear()
        self._total.clear()
        self._samples = 0

    def _sample(self, number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._samples += 1
        self._self[frame.f_code] += 1
        seen = set()
        above: FrameType | None = frame
        while above is not None:
            seen.add(above.f_code)
            above = above.f_back
        self._total.update(seen)

    def _write(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        functions: list[dict[str, Any]] = [
            {
                "function": code.co_qualname,
                "file": short(code.co_filename),
                "self": self._self[code],
                "total": total,
            }
            for code, total in self._total.most_common()
        ]
        self._out.write_text(json.dumps({"samples": self._samples, "functions": functions}))


def short(file: str) -> str:
    """A file's name from its package on."""
    if file.startswith(ROOT) and "site-packages" not in file:
        return file.removeprefix(ROOT)
    head, found, tail = file.rpartition("site-packages" + os.sep)
    if found:
        return tail
    return os.sep.join(Path(file).parts[-2:]) if head or os.sep in file else file


if __name__ == "__main__":
    import sys

    from gateway.cli import main

    Sampler(Path(os.environ["PROFILE_OUT"])).start()
    sys.argv = ["llm-gateway", "serve"]
    main()
