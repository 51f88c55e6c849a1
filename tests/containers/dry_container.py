"""A dry-built image, started as an engine would: process 1, its user, a root that is read-only."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dry_build import DryBuild, Image

PATIENCE_S = 120.0
_PORT = re.compile(r"http://[^\s:/]+:(\d+)")


class DryContainer:
    """A running container; its volumes are folders of ``folder``."""

    def __init__(self, build: DryBuild, image: Image, folder: Path, **settings: str):
        self._build, self._image = build, image
        self.out, self.err = folder / "stdout.txt", folder / "stderr.txt"
        self._env = {**image.env, "PORT": "0", **settings}
        self.volumes = {}
        for volume in image.volumes:
            self.volumes[volume] = place = folder / volume.strip("/")
            place.mkdir(mode=0o750)
            os.chown(place, *map(int, image.user.split(":")))
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                self._command(image.entrypoint + image.cmd, self._env),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def _command(self, argv: list[str], env: Mapping[str, str]) -> list[str]:
        binds = [(str(place), volume) for volume, place in self.volumes.items()]
        return self._build.command(self._image, argv, env=env, binds=binds)

    def logs(self) -> str:
        return f"{self.out.read_text()}\n{self.err.read_text()}"

    @property
    def port(self) -> int:
        """The port that was announced; waits for it."""
        until = time.monotonic() + PATIENCE_S
        while (found := _PORT.search(self.out.read_text())) is None:
            assert self.process.poll() is None, self.logs()
            assert time.monotonic() < until, self.logs()
            time.sleep(0.02)
        return int(found[1])

    def run(self, argv: list[str], **env: str) -> subprocess.CompletedProcess[str]:
        """Run another command in the same image with the same volumes, as ``docker exec``."""
        command = self._command(argv, {**self._env, **env})
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)

    def healthcheck(self) -> int:
        """The exit code of the image's own HEALTHCHECK."""
        return self.run(self._image.healthcheck, PORT=str(self.port)).returncode

    def wait_healthy(self, within_s: float = PATIENCE_S) -> None:
        until = time.monotonic() + within_s
        while self.healthcheck():
            assert self.process.poll() is None, self.logs()
            assert time.monotonic() < until, self.logs()
            time.sleep(0.2)

    def first_process(self) -> int:
        """Process 1 of the container, by its number on this machine."""
        pid = self.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(child)

    def stop(self) -> int:
        """Send the image's stop signal to process 1; returns its exit code."""
        os.kill(self.first_process(), getattr(signal, self._image.stop_signal))
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """Kill it; ``--kill-child`` takes the container's processes along."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


StartContainer = Callable[..., DryContainer]
"""Starts one of an image with these settings: what the fixture gives."""
