"""The servers under test: started, frozen while another one measures, ended with all below."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import say
from benchmarks.pool import ROOT
from benchmarks.served import ServerFault, free_port, get_status

READY_TIMEOUT_S = 1200.0
END_TIMEOUT_S = 60.0
MODEL = "bench"
# The same for both servers, unless the caller's environment says otherwise. One thread per
# engine leaves a core to the front end, which is what is measured.
VLLM_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """What both vLLM servers are started with."""

    model: str
    dtype: str
    max_model_len: int
    max_num_seqs: int
    eager: bool
    gpu_share: float | None


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves, engine processes below it not counted.

    Attributes:
        health: path that answers 200 once requests are taken.
    """

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path
    health: str

    def cpu_s(self) -> float:
        """CPU seconds of this one process, its threads included, its children not."""
        # Linux numbers the CPU clock of another process this way (clock_getcpuclockid(3)).
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def wait_ready(self) -> None:
        """Wait until it takes requests; raises ServerFault."""
        begin = time.monotonic()
        while get_status(self.port, self.health) != 200:
            if self.process.poll() is not None:
                code = self.process.returncode
                raise ServerFault(f"{self.name} ended with status {code}; log: {self.log}")
            if time.monotonic() - begin > READY_TIMEOUT_S:
                raise ServerFault(f"{self.name} is not ready; log: {self.log}")
            time.sleep(0.2)
        say(f"  {self.name}: ready after {time.monotonic() - begin:.0f} s")

    def freeze(self) -> None:
        """Stop it and everything below: idle engines may spin."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it in its own way, then everything that is left."""
        below = descendants(self.process.pid)
        self.thaw()
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(END_TIMEOUT_S)
        for pid in [self.process.pid, *below]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def descendants(pid: int) -> list[int]:
    """Every process below ``pid``."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = entry.read_text().rpartition(")")[2].split()
            parents[int(entry.parent.name)] = int(fields[1])
    found: list[int] = []
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found += sorted(level)
    return found


@contextmanager
def started(
    name: str, argv: list[str], settings: Mapping[str, str], port: int, log: Path, health: str
) -> Iterator[Server]:
    """A server process; not waited for."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **settings}
    with log.open("w") as file:
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    server = Server(name, process, port, log, health)
    try:
        yield server
    finally:
        server.close()


def gateway(
    name: str, settings: Mapping[str, str], log: Path, profile: Path | None = None
) -> AbstractContextManager[Server]:
    """``llm-gateway serve`` with default settings but for ``settings``."""
    port = free_port()
    ours = {"HOST": "127.0.0.1", "PORT": str(port), "SERVED_MODEL_NAME": MODEL, "MAX_QUEUE": "4096"}
    module = ["gateway", "serve"]
    if profile is not None:
        module = ["benchmarks.frontend.profiled"]
        ours["PROFILE_OUT"] = str(profile)
    argv = [sys.executable, "-m", *module]
    return started(name, argv, ours | dict(settings), port, log, "/health/ready")


def gateway_settings(setup: EngineSetup) -> dict[str, str]:
    """The gateway with vLLM inside."""
    chosen = {
        "ENGINE": "vllm",
        "MODEL_NAME": setup.model,
        "DTYPE": setup.dtype,
        "MAX_MODEL_LEN": str(setup.max_model_len),
        "MAX_NUM_SEQS": str(setup.max_num_seqs),
        "ENFORCE_EAGER": str(setup.eager).lower(),
    }
    if setup.gpu_share is not None:
        chosen["GPU_MEMORY_UTILIZATION"] = str(setup.gpu_share)
    return {**VLLM_ENVIRONMENT, **_given(), **chosen}


def vllm_serve(setup: EngineSetup, log: Path) -> AbstractContextManager[Server]:
    """``vllm serve`` of the installed vLLM."""
    port = free_port()
    argv = [sys.executable, "-m", "benchmarks.frontend.vllm_serve", "serve", setup.model]
    argv += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", MODEL]
    argv += ["--dtype", setup.dtype, "--max-model-len", str(setup.max_model_len)]
    argv += ["--max-num-seqs", str(setup.max_num_seqs)]
    if setup.eager:
        argv.append("--enforce-eager")
    if setup.gpu_share is not None:
        argv += ["--gpu-memory-utilization", str(setup.gpu_share)]
    return started("vllm serve", argv, {**VLLM_ENVIRONMENT, **_given()}, port, log, "/health")


def _given() -> dict[str, str]:
    return {name: os.environ[name] for name in VLLM_ENVIRONMENT if name in os.environ}
