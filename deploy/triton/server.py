"""A real tritonserver on CPU, from the ``triton`` environment (the nvidia-pytriton package).

The package's server carries the Python backend alone: no onnxruntime and no GPU backends.
Its shared libraries are found over ``LD_LIBRARY_PATH``; the Python backend starts one process
per model with a stub that is linked to one Python version and runs the environment's packages.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.triton.errors import ServerUnavailable, TritonError

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 32_000
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
# Found without importing pytriton, which would bring gRPC and more along.
_ASK = """
import ctypes.util, importlib.util, json, pathlib, sys, sysconfig
version = f"{sys.version_info.major}.{sys.version_info.minor}"
folder = pathlib.Path(importlib.util.find_spec("pytriton").origin).parent
place = pathlib.Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
shared = (place / f"libpython{version}.so.1.0").exists()
shared = shared or ctypes.util.find_library(f"python{version}")
print(json.dumps({
    "root": str(folder / "tritonserver"),
    "libraries": str(folder.parent / "nvidia_pytriton.libs"),
    "libpython": str(place),
    "shared": "yes" if shared else "",
    "version": version,
}))
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one server listens, on loopback."""

    http: int
    grpc: int
    metrics: int

    @classmethod
    def free(cls) -> Ports:
        """Three that are free, and likely stay so until the server has loaded its models.

        It binds them only then, so they are none that the system hands out meanwhile (from 32768
        on, by Linux's default).
        """
        found: list[int] = []
        while len(found) < 3:
            port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT)
            with socket.socket() as probe:
                try:
                    probe.bind((HOST, port))
                except OSError:
                    continue
            if port not in found:
                found.append(port)
        return cls(*found)


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs.

    Attributes:
        log: the file that its output goes to, that of the models included.
    """

    process: subprocess.Popen[bytes]
    ports: Ports
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.ports.http}"

    def wait_ready(self, timeout_s: float) -> None:
        """Until every model is loaded; raises TritonError with the server's reason if not."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise TritonError(f"tritonserver does not take the repository: {self.reason()}")
            if self._answers("/v2/health/ready"):
                return
            time.sleep(0.1)
        raise TritonError(f"tritonserver was not ready after {timeout_s:.0f} s: {self.reason()}")

    def reason(self) -> str:
        """What its log says went wrong first."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("E") and "failed to load" in line]
        first = (errors or lines[-1:] or ["it said nothing"])[0]
        return first.partition("] ")[2].strip('"') or first

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as response:  # noqa: S310
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def run_server(
    python: Path, repository: Path, ports: Ports, *, quiet: bool = True
) -> Iterator[Server]:
    """A tritonserver over ``repository``, ended with its models when the block is left.

    Args:
        python: of the ``triton`` environment.
        quiet: keep the output in a file; else it goes to the terminal.

    Raises ServerUnavailable when it cannot be started on this machine.
    """
    where = _installation(python)
    root, libraries = Path(where["root"]), where["libraries"]
    stub = root / "python_backend_stubs" / where["version"] / "triton_python_backend_stub"
    with tempfile.TemporaryDirectory(prefix="triton-") as scratch:
        backend = Path(scratch) / "backends" / "python"
        # Copied, not linked: Triton refuses some files that lead out of the backend's folder.
        shutil.copytree(root / "backends" / "python", backend)
        shutil.copy2(stub, backend)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        paths = [libraries, where["libpython"], inherited.get("LD_LIBRARY_PATH", "")]
        environ = inherited | {
            "LD_LIBRARY_PATH": ":".join(path for path in paths if path),
            # The stub takes the first python3 of the PATH for its own.
            "PATH": f"{python.parent}:{inherited.get('PATH', os.defpath)}",
        }
        log = Path(scratch) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(root, repository, Path(scratch), ports),
                env=environ,
                stdout=output if quiet else None,
                stderr=subprocess.STDOUT if quiet else None,
                start_new_session=quiet,
            )
        try:
            yield Server(process, ports, log)
        finally:
            _end(process, group=quiet)
            for path in SHARED_MEMORY.glob(f"{Path(scratch).name}*"):
                path.unlink(missing_ok=True)


def _command(root: Path, repository: Path, scratch: Path, ports: Ports) -> list[str]:
    options = {
        "model-repository": repository.resolve(),
        "backend-directory": scratch / "backends",
        # So that what a crash leaves behind can be told from other servers' memory.
        "backend-config": f"python,shm-region-prefix-name={scratch.name}",
        "http-address": HOST,
        "grpc-address": HOST,
        "metrics-address": HOST,
        "http-port": ports.http,
        "grpc-port": ports.grpc,
        "metrics-port": ports.metrics,
        "allow-gpu-metrics": "false",
        "exit-timeout-secs": 10,
    }
    binary = str(root / "bin" / "tritonserver")
    return [binary, *(f"--{name}={value}" for name, value in options.items())]


def _installation(python: Path) -> dict[str, str]:
    done = subprocess.run([str(python), "-I", "-c", _ASK], capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise ServerUnavailable(f"nvidia-pytriton cannot be used: {' '.join(last) or 'no message'}")
    found: dict[str, str] = json.loads(done.stdout)
    version = found["version"]
    stubs = Path(found["root"]) / "python_backend_stubs"
    if not (stubs / version).is_dir():
        raise ServerUnavailable(
            f"nvidia-pytriton has no Python backend for Python {version}: make the environment "
            f"with one of {', '.join(sorted(path.name for path in stubs.iterdir()))}"
        )
    if not found["shared"]:
        raise ServerUnavailable(
            f"Triton's Python backend loads libpython{version}.so.1.0, which this Python does not "
            f"bring along: install it (on Debian and Ubuntu, apt-get install libpython{version})"
        )
    return found


def _end(process: subprocess.Popen[bytes], *, group: bool) -> None:
    """First politely, so that the models' processes end too."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if group:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
