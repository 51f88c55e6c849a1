"""A Ray cluster of one node that serves the gateway, as ``serve run`` starts it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml
from server_process import end_with_the_tests

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
KEY = "key-of-the-ray-tests"
PATIENCE_S = 180.0
# Gives the first token of an answer and never another one.
STUCK = {
    "model_name": "bundled",
    "served_model_name": ["stuck"],
    "engine": "fake",
    "engine_options": {"hang": "decode"},
}


def small_config(port: int) -> dict[str, Any]:
    """The config that we ship, for a machine with two cores and for people in a hurry."""
    config: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    config["proxy_location"] = "HeadOnly"
    config["http_options"] |= {"host": "127.0.0.1", "port": port}
    (gateway,) = config["applications"][0]["deployments"]
    gateway["graceful_shutdown_wait_loop_s"] = 0.2
    gateway["health_check_period_s"] = 1
    gateway["autoscaling_config"] |= {
        "max_replicas": 2,
        "target_ongoing_requests": 3,
        "upscale_delay_s": 0,
        "metrics_interval_s": 0.5,
        "look_back_period_s": 1,
    }
    gateway["ray_actor_options"]["num_cpus"] = 0.5
    environment = gateway["ray_actor_options"]["runtime_env"]["env_vars"]
    environment |= {"ONNX_THREADS": "1", "MODELS": json.dumps([STUCK])}
    return config


class Cluster:
    """Every process of it has ``marker`` in its environment, which is how they are found."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.headers = {"authorization": f"Bearer {KEY}"}
        # Sockets lie below it, and their paths may have 107 bytes (sun_path of unix(7)).
        self._temp = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        self.marker = f"RAY_TEST={self._temp}"
        self.config = small_config(self.port)
        self._file = folder / "serve.yaml"
        self._file.write_text(yaml.safe_dump(self.config))
        self.log = folder / "driver.log"
        home = folder / "home"
        home.mkdir()
        name, _, value = self.marker.partition("=")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, Path(__file__).with_name("ray_serve_driver.py"), self._file, self._temp],
                cwd=folder,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(ROOT),
                    "HOME": str(home),
                    "RAY_USAGE_STATS_ENABLED": "0",
                    # It kills workers when others fill the memory of the machine.
                    "RAY_memory_monitor_refresh_ms": "0",
                    "API_KEYS": KEY,
                    "DATA_DIR": str(folder / "data"),
                    name: value,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_the_tests,
            )

    def wait_ready(self) -> Cluster:
        """Wait until a replica answers."""
        self.wait_for(self.is_ready, "the first replica")
        return self

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=10).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        """Poll until ``condition`` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"waited for {what}\n{self.log.read_text()[-6000:]}")
            time.sleep(0.1)

    def understood(self) -> dict[str, Any]:
        """The first config, as Ray Serve reads it."""
        found: dict[str, Any] = json.loads(self._file.with_suffix(".json").read_text())
        return found

    def deploy(self) -> None:
        """Have the cluster be as ``config`` says."""
        self._file.write_text(yaml.safe_dump(self.config))
        self.process.send_signal(signal.SIGUSR1)

    def models(self) -> list[str]:
        """What is served; nothing while nobody answers."""
        reply = httpx.get(f"{self.url}/v1/models", headers=self.headers, timeout=60)
        return [model["id"] for model in reply.json()["data"]] if reply.is_success else []

    def metrics(self) -> dict[str, float]:
        """Samples of the replica that answers, by name and labels."""
        found: dict[str, float] = {}
        text = httpx.get(f"{self.url}/metrics", headers=self.headers, timeout=60).text
        for line in text.splitlines():
            name, _, value = line.rpartition(" ")
            if not line.startswith("#"):
                found[name] = float(value)
        return found

    def processes(self) -> dict[int, str]:
        """Command lines of everything that belongs to it, by process id."""
        found = {}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if self.marker.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:
                continue  # it has ended
        return found

    def replicas(self) -> list[int]:
        """Process ids of the replicas, the oldest first."""
        pids = [pid for pid, line in self.processes().items() if "ServeReplica" in line]
        return sorted(pids, key=started)

    def end(self) -> None:
        """Nothing of it is left, however far it came."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + 30
        while left := self.processes():
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if time.monotonic() > deadline:
                raise AssertionError(f"these do not end: {left}")
            time.sleep(0.05)
        shutil.rmtree(self._temp, ignore_errors=True)


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot (proc(5)); 0 where it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def free_port() -> int:
    """One below those that the kernel gives to others who ask for any."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no free port")
