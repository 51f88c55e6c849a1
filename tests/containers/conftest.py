"""The images, dry-built once for all tests of this folder."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dry_build import DOCKER, PATH, REPOSITORY, SITE, VERSION, DryBuild, Image
from dry_container import DryContainer, StartContainer


def stand_in(folder: Path) -> Image:
    """This machine as a base image: its Python as ``python``, with the pip of the tests."""
    tools = folder / "local/bin"
    tools.mkdir(parents=True)
    (folder / "root").mkdir()
    for name in ("python", "python3"):
        (tools / name).symlink_to(f"python{VERSION}")
    shutil.copytree(SITE / "pip", folder / "local/lib/stand-in/pip")
    (tools / "pip").write_text(
        '#!/bin/sh\nPYTHONPATH=/usr/local/lib/stand-in exec python -m pip "$@"\n'
    )
    (tools / "pip").chmod(0o755)
    # Where its own copy of libpython is, which its binary may look for at its old place only.
    return Image([folder], env={"PATH": PATH, "LD_LIBRARY_PATH": "/usr/local/lib"})


def what_is_missing(build: DryBuild, base: Image) -> str:
    """Why nothing can be built with this machine and folder, or nothing."""
    command = build.command(base, ["python", "-V"], env=base.env, binds=[])
    try:
        tried = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return "unshare of util-linux is not installed"
    return tried.stderr.strip() if tried.returncode else ""


@pytest.fixture(scope="session")
def dry_build() -> Iterator[DryBuild]:
    """A builder in a folder of its own, or a skip that says what this machine lacks."""
    reasons = []
    for parent in (None, "/dev/shm"):  # overlays cannot lie on every file system
        scratch = Path(tempfile.mkdtemp(prefix="dry-build-", dir=parent))
        try:
            base = stand_in(scratch / "base")
            build = DryBuild(scratch, base, Path(tempfile.gettempdir()) / "dry-build-pip")
            if reason := what_is_missing(build, base):
                reasons.append(reason)
                continue
            yield build
            return
        finally:
            shutil.rmtree(scratch)
    pytest.skip(f"a dry build needs root and overlay mounts: {'; '.join(reasons)}")


@pytest.fixture(scope="session")
def cpu_image(dry_build: DryBuild) -> Image:
    return dry_build.build(DOCKER / "Dockerfile.cpu", REPOSITORY)


@pytest.fixture
def start_container(dry_build: DryBuild, tmp_path: Path) -> Iterator[StartContainer]:
    """Starts containers, and ends them after the test."""
    started: list[DryContainer] = []

    def start(image: Image, **settings: str) -> DryContainer:
        folder = tmp_path / f"container{len(started)}"
        folder.mkdir()
        started.append(DryContainer(dry_build, image, folder, **settings))
        return started[-1]

    yield start
    for container in started:
        container.kill()
