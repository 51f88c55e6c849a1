"""Environments of tools whose pins cannot live beside ours, made on first use.

Each is a virtual environment under ``<cache>/environments`` with the packages of a
hash-checked lock (``<name>.txt`` in this folder). ``python -m engine.environments NAME ...``
makes them ahead.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from engine.base import EngineStartError

LOCKS = Path(__file__).parent
CACHE = Path.home() / ".cache" / "llm-gateway"

BEFORE_LOCK = {"llmcompressor": ["torch==2.13.0"]}
"""What is installed first and on its own: which build of torch fits is the machine's choice."""


class EnvironmentMissing(EngineStartError):
    """A tool's environment is not there. The message says how to make it, or why that failed."""


def names() -> list[str]:
    """Every environment that can be made."""
    return sorted(lock.stem for lock in LOCKS.glob("*.txt"))


def interpreter(name: str, cache: Path = CACHE) -> Path:
    """The Python of an environment that was made before; raises EnvironmentMissing."""
    folder = _folder(name, cache)
    if not (folder / "ready").is_file():
        raise EnvironmentMissing(
            f"{name} needs an environment of its own, which is not there yet: "
            f"run 'python -m engine.environments {name}' once (it installs into {folder})"
        )
    return folder / "bin" / "python"


def make(name: str, say: Callable[[str], None], cache: Path = CACHE) -> Path:
    """The Python of an environment, installed now if need be; raises EnvironmentMissing.

    One that was left half made is made anew.
    """
    folder = _folder(name, cache)
    python = folder / "bin" / "python"
    if (folder / "ready").is_file():
        return python
    say(f"{name}: installing into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    steps = [[sys.executable, "-m", "venv", str(folder)]]
    if name in BEFORE_LOCK:
        steps.append([*pip, *BEFORE_LOCK[name]])
    steps.append([*pip, "--no-deps", "--require-hashes", "-r", str(LOCKS / f"{name}.txt")])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, env=_environ())
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise EnvironmentMissing(
                f"installing {name} into {folder} failed: {' '.join(last) or 'no message'}"
            )
    (folder / "ready").touch()
    return python


def _folder(name: str, cache: Path) -> Path:
    """A folder per lock, so that a new lock makes a new environment."""
    if name not in names():
        raise EnvironmentMissing(f"there is no environment {name!r}, only {', '.join(names())}")
    digest = hashlib.sha256((LOCKS / f"{name}.txt").read_bytes()).hexdigest()[:12]
    return cache / "environments" / f"{name}-{digest}"


def _environ() -> dict[str, str]:
    """Ours, less what would lead a child to the packages of this process."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
