"""Gateways in processes of their own, and the replicas of a Deployment made of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from benchmarks.autoscaling.hpa import PodPhase

NAMESPACE = "llm-gateway"
ANSWER_S = 5.0
PATIENCE_S = 60.0
_URL = re.compile(r"http://127\.0\.0\.1:(\d+)")


class LoopError(Exception):
    """A part of the closed loop did not do its work. The message has its log."""


class Gateway:
    """One ``llm-gateway serve`` on a free port; stdout and stderr go to files in ``folder``."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        passed = ("PATH", "HOME", "PYTHONPATH", "LANG")
        environment = {name: os.environ[name] for name in passed if name in os.environ}
        environment |= {"PORT": "0", "DATA_DIR": str(folder / "data"), **settings}
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self._port = 0

    @property
    def port(self) -> int:
        """0 until it is bound."""
        if not self._port:
            found = _URL.search(self.out.read_text())
            self._port = int(found[1]) if found else 0
        return self._port

    @property
    def url(self) -> str:
        """Without a path; only once its port is bound."""
        return f"http://127.0.0.1:{self.port}"

    def ready(self) -> bool:
        """What the readiness probe says."""
        if not self.port:
            return False
        try:
            with urlopen(f"{self.url}/health/ready", timeout=ANSWER_S) as reply:
                return bool(reply.status == 200)
        except HTTPError as unready:
            unready.close()
        except (URLError, OSError):
            pass
        return False

    def wait_ready(self) -> Gateway:
        """Raises LoopError when it ends, or is not ready in time."""
        until = time.monotonic() + PATIENCE_S
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > until:
                raise LoopError(f"the gateway is not ready\n{self.logs()}")
            time.sleep(0.05)
        return self

    def logs(self) -> str:
        """What it said."""
        return self.out.read_text() + self.err.read_text()[-4000:]

    def requests(self) -> list[dict[str, Any]]:
        """Its access log."""
        lines = self.err.read_text().splitlines(keepends=True)
        records = [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "\n"]
        return [record for record in records if record["message"] == "request"]

    def kill(self) -> None:
        """End it now."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclass(slots=True)
class Pod:
    """One replica.

    Attributes:
        listed: it is among the endpoints that requests go to.
        deleted: when it was told to go; None: it stays.
        told: it has got SIGTERM.
    """

    name: str
    gateway: Gateway
    listed: bool = False
    deleted: float | None = None
    told: bool = False


@dataclass(slots=True)
class Replicas:
    """What a Deployment, its headless Service and Prometheus' discovery do for pods.

    A new one is an endpoint once its readiness probe succeeds. One that goes leaves the endpoints
    at once, gets SIGTERM after ``pre_stop_s`` and ends by itself, however long that takes.

    Attributes:
        endpoints: the file with a base URL per line that the router discovers them by.
        scraped: Prometheus' file_sd file.
        count: what was asked for.
        exits: exit codes of those that have ended.
        gone: those.
    """

    folder: Path
    settings: Mapping[str, str]
    endpoints: Path
    scraped: Path
    pre_stop_s: float
    count: int = 0
    exits: list[int] = field(default_factory=list)
    gone: list[Pod] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    _made: int = 0

    def __post_init__(self) -> None:
        self._publish()

    @property
    def ready(self) -> int:
        """Those that requests go to."""
        return sum(pod.listed for pod in self.pods)

    def phases(self) -> dict[str, PodPhase]:
        """Every pod as the controller sees it."""
        return {
            pod.name: "leaving"
            if pod.deleted is not None
            else "running"
            if pod.gateway.port
            else "pending"
            for pod in self.pods
        }

    def scale(self, count: int) -> None:
        """Have as many; those that go first are the ones that are not ready, then the youngest."""
        self.count = count
        staying = [pod for pod in self.pods if pod.deleted is None]
        for _ in range(count - len(staying)):
            self._made += 1
            name = f"engine-{self._made}"
            self.pods.append(Pod(name, Gateway(self.folder / name, self.settings)))
        staying.sort(key=lambda pod: pod.listed, reverse=True)
        for pod in staying[count:]:
            pod.deleted = time.monotonic()
            pod.listed = False
        self._publish()

    def step(self) -> None:
        """Take every pod as far as it can go now. Raises LoopError for one that fell over."""
        for pod in list(self.pods):
            code = pod.gateway.process.poll()
            if code is not None:
                if not pod.told:
                    raise LoopError(f"{pod.name} ended by itself\n{pod.gateway.logs()}")
                self.pods.remove(pod)
                self.gone.append(pod)
                self.exits.append(code)
            elif pod.deleted is not None:
                if not pod.told and time.monotonic() - pod.deleted >= self.pre_stop_s:
                    pod.told = True
                    pod.gateway.process.send_signal(signal.SIGTERM)
            elif not pod.listed and pod.gateway.ready():
                pod.listed = True
        self._publish()

    def every(self) -> list[Pod]:
        """Those that are there and those that were."""
        return [*self.gone, *self.pods]

    def kill(self) -> None:
        """End all of them now."""
        for pod in self.pods:
            pod.gateway.kill()

    def _publish(self) -> None:
        listed = [f"{pod.gateway.url}/v1\n" for pod in self.pods if pod.listed]
        write_whole(self.endpoints, "".join(listed))
        bound = {pod.name: pod.gateway.port for pod in self.pods if pod.gateway.port}
        write_whole(self.scraped, scrape_targets(bound))


def scrape_targets(ports: Mapping[str, int]) -> str:
    """A file_sd file with the labels that a ServiceMonitor gives to pods."""
    groups: Sequence[dict[str, Any]] = [
        {"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE, "pod": name}}
        for name, port in ports.items()
    ]
    return json.dumps(groups)


def write_whole(path: Path, text: str) -> None:
    """Write the file where that changes it, so that no reader sees half of it."""
    if path.exists() and path.read_text() == text:
        return
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.rename(path)
