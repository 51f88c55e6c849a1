"""A real Prometheus of one's own: on a free port, with its data in a given folder."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

PATIENCE_S = 60.0
ANSWER_S = 30.0
# Its shutdown writes the head block; one that hangs is killed.
STOP_S = 20.0
_LISTENS = re.compile(r'msg="Listening on".*?address="?([\w.:]+)')


class PrometheusError(Exception):
    """It did not start, ended, or refused a query. The message says what it said itself."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value at the time that was asked for.

    Attributes:
        labels: with ``__name__`` where the query kept it.
    """

    labels: dict[str, str]
    value: float


def program() -> str | None:
    """Where the prometheus of this machine is; None without one."""
    return shutil.which("prometheus")


class Prometheus:
    """A running server; ``with`` ends it.

    Args:
        folder: for its configuration, data and log; made where it is missing.
        config: text of prometheus.yml. File names in it are relative to ``folder``.

    Raises PrometheusError where the machine has none.
    """

    def __init__(self, folder: Path, config: str, *further: str) -> None:
        found = program()
        if found is None:
            raise PrometheusError("there is no prometheus; on Debian: apt-get install prometheus")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.log = folder / "prometheus.log"
        self.config = folder / "prometheus.yml"
        self.config.write_text(config)
        self.url = ""
        # Port 0 leaves the choice to the kernel; its log tells what it was.
        argv = [
            found,
            f"--config.file={self.config}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
            "--web.enable-lifecycle",
            *further,
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def wait_ready(self) -> Self:
        """Wait until it answers queries. Raises PrometheusError with its log."""

        def ready() -> bool:
            if not self.url:
                found = _LISTENS.search(self.log.read_text())
                if found is None:
                    return False
                self.url = f"http://{found[1]}"
            try:
                with urlopen(f"{self.url}/-/ready", timeout=ANSWER_S) as reply:
                    return bool(reply.status == 200)
            except (URLError, OSError):
                return False

        self.wait_for(ready, "Prometheus to be ready")
        return self

    def wait_for(
        self, condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S
    ) -> None:
        """Poll until ``condition`` holds. Raises PrometheusError when it does not in time."""
        until = time.monotonic() + within_s
        while not condition():
            if self.process.poll() is not None:
                raise PrometheusError(f"Prometheus ended, waiting for {what}\n{self._said()}")
            if time.monotonic() > until:
                raise PrometheusError(f"waited {within_s} s for {what}\n{self._said()}")
            time.sleep(0.02)

    def api(self, path: str, **parameters: str) -> Any:
        """``data`` of an answer of its HTTP API, such as ``api("query", query="up")``.

        Raises PrometheusError with its own words, for a query that it does not understand.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        try:
            with urlopen(f"{self.url}/api/v1/{path}{query}", timeout=ANSWER_S) as reply:
                document = json.load(reply)
        except HTTPError as refused:
            with refused:
                told = refused.read().decode(errors="replace")
            raise PrometheusError(f"{path} {parameters}: {told}") from None
        except OSError as error:
            raise PrometheusError(f"{path}: {error}\n{self._said()}") from None
        return document["data"]

    def query(self, expression: str) -> list[Sample]:
        """The samples of an instant query; of a scalar, one without labels."""
        data = self.api("query", query=expression)
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        if data["resultType"] != "vector":
            raise PrometheusError(f"{expression} is a {data['resultType']}, no instant vector")
        return [Sample(one["metric"], float(one["value"][1])) for one in data["result"]]

    def scraped(self) -> dict[str, str]:
        """What it scrapes, by address: ``up``, ``down`` or ``unknown``."""
        return {one["scrapeUrl"]: one["health"] for one in self.api("targets")["activeTargets"]}

    def reload(self) -> None:
        """Read the configuration and its rule files again. Raises PrometheusError."""
        try:
            with urlopen(f"{self.url}/-/reload", data=b"", timeout=ANSWER_S):
                return
        except HTTPError as refused:
            with refused:
                raise PrometheusError(refused.read().decode(errors="replace")) from None

    def stop(self) -> None:
        """End it, however it takes that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]
