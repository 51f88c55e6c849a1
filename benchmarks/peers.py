"""The engines that are compared and what each needs before it can start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import environments
from benchmarks.environments import PeerUnavailable, say
from benchmarks.machine import cpu_flags
from benchmarks.pool import ROOT
from benchmarks.shapes import Shape, hf_folder
from benchmarks.workers.wire import Job

MAX_STREAMS = 16
MAX_LEN = 1024


@dataclass(frozen=True, slots=True)
class Prepared:
    """How to start one worker."""

    argv: list[str]
    model: Path
    variant: str
    options: dict[str, Any] = field(default_factory=dict)

    def job(self, threads: int) -> Job:
        """The worker's argument."""
        return Job(str(self.model), self.variant, threads, MAX_STREAMS, MAX_LEN, self.options)


@dataclass(frozen=True, slots=True)
class Peer:
    """One row of the table."""

    key: str
    title: str
    prepare: Callable[[Shape, Path], Prepared]


def _run(argv: list[str], log: Path, what: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        try:
            subprocess.run(
                argv, check=True, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise PeerUnavailable(f"{what} failed ({error}); see {log}") from error


def _own(precision: str) -> Callable[[Shape, Path], Prepared]:
    def prepare(shape: Shape, work: Path) -> Prepared:
        options = {
            "matmul_weights": shape.matmul_weights,
            "cache_dir": str(work.parent / "own-cache"),
        }
        argv = [sys.executable, "-m", "benchmarks.workers.own"]
        return Prepared(argv, hf_folder(shape, work), precision, options)

    return prepare


def _llamacpp(kind: str) -> Callable[[Shape, Path], Prepared]:
    def prepare(shape: Shape, work: Path) -> Prepared:
        python = environments.llamacpp_python()
        folder = work / shape.name / "gguf"
        model = folder / f"{kind}.gguf"
        source = hf_folder(shape, work)
        if not model.is_file() or model.stat().st_mtime < (source / "made.json").stat().st_mtime:
            say(f"llama.cpp: writing GGUF files of {shape.title}")
            for old in folder.glob("*.gguf"):
                old.unlink()
            module = [python, "-m", "benchmarks.gguf_files"]
            arguments = [json.dumps(asdict(shape)), str(source), str(folder)]
            _run([*module, *arguments], work / "gguf.log", "writing GGUF files")
        argv = [python, "-m", "benchmarks.workers.llamacpp"]
        return Prepared(argv, model, kind, {"kv_unified": False})

    return prepare


def _genai(precision: str) -> Callable[[Shape, Path], Prepared]:
    def prepare(shape: Shape, work: Path) -> Prepared:
        if not environments.has_module("onnxruntime_genai"):
            raise PeerUnavailable("onnxruntime-genai is missing; install the extra: convert")
        folder = work / shape.name / f"genai-{precision}"
        source = hf_folder(shape, work)
        if not (folder / "done").is_file():
            say(f"onnxruntime-genai: building {shape.title} in {precision}")
            argv = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(source)]
            argv += ["-i", str(source), "-o", str(folder), "-p", precision, "-e", "cpu"]
            argv += ["-c", str(work / "genai-cache")]
            _run(argv, work / f"genai-{precision}.log", "the model builder")
            (folder / "done").touch()
        return Prepared([sys.executable, "-m", "benchmarks.workers.genai"], folder, precision)

    return prepare


def _vllm(dtype: str) -> Callable[[Shape, Path], Prepared]:
    def prepare(shape: Shape, work: Path) -> Prepared:
        python = environments.vllm_python()
        options = {"matmul_weights": shape.matmul_weights}
        argv = [python, "-m", "benchmarks.workers.vllmcpu"]
        return Prepared(argv, hf_folder(shape, work), dtype, options)

    return prepare


OWN = "own"
REFERENCE = "llamacpp-q8_0"

PEERS: dict[str, Peer] = {
    peer.key: peer
    for peer in (
        Peer(OWN, "this engine", _own("auto")),
        Peer("own-int4", "this engine, int4", _own("int4")),
        Peer(REFERENCE, "llama.cpp Q8_0", _llamacpp("q8_0")),
        Peer("llamacpp-q4_0", "llama.cpp Q4_0", _llamacpp("q4_0")),
        Peer("genai-int8", "onnxruntime-genai int8", _genai("int8")),
        Peer("genai-int4", "onnxruntime-genai int4", _genai("int4")),
        Peer("vllm-fp32", "vLLM CPU float32", _vllm("float32")),
        Peer("vllm-bf16", "vLLM CPU bfloat16", _vllm("bfloat16")),
    )
}


def default_peers() -> list[str]:
    """Every peer that makes sense here: emulated bfloat16 is hundreds of times slower."""
    bf16 = {"avx512_bf16", "amx_bf16"} & set(cpu_flags())
    return [key for key in PEERS if key != "vllm-bf16" or bf16]
