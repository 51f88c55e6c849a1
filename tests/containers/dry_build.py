"""Builds a Dockerfile without a container engine, by its own steps.

Each stage is a folder of changes (an overlay) over this machine, which stands in for the base
image: RUN is executed as it is written by ``sh`` in that root, COPY obeys .dockerignore, and ENV,
WORKDIR, USER, VOLUME, CMD and the rest end up in an ``Image``, as with an engine. What this does
not show: what is in the real base image.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

from build_context import Context
from dockerfile_steps import Stage, Step, expand, mount_of, pairs, read_dockerfile

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
DOCKER = REPOSITORY / "deploy/docker"
# Of the Python that runs the tests, which is also the one in the images.
SITE = Path(sysconfig.get_path("purelib"))
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
# Of the Python images; the interpreter that runs the tests stands in at /usr/local.
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
# Docker hands proxies to RUN; the package index of this machine is no part of a Dockerfile either.
FROM_HOST = ("PIP_", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT", "REQUESTS_CA")


@dataclass
class Image:
    """What a stage leaves: folders of changes, topmost first, and its configuration."""

    layers: list[Path]
    binds: list[tuple[str, str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    labels: dict[str, str] = field(default_factory=dict)
    cwd: str = "/"
    user: str = "0:0"
    cmd: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    health_flags: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    stop_signal: str = ""

    def copy(self, layers: list[Path]) -> Image:
        return replace(deepcopy(self), layers=layers)

    def find(self, path: str) -> Path:
        """A file or folder of the image on this machine, whichever layer made it; ``*`` stands
        for any part of a name."""
        for layer in self.layers:
            if found := glob.glob(str(within(layer, path))):
                (only,) = found
                return Path(only)
        raise AssertionError(f"COPY --from: {path} was made by no step")


def within(layer: Path, path: str) -> Path:
    """Where ``path`` of an image lies in a folder of changes; /usr/local has its own part."""
    if path == "/usr/local" or path.startswith("/usr/local/"):
        return layer / "local" / path.removeprefix("/usr/local").lstrip("/")
    return layer / "root" / path.lstrip("/")


class DryBuild:
    """Builds of one scratch folder.

    Args:
        scratch: an empty folder on a file system that overlays can be on.
        base: what stands in for base images that are not named.
        pip_cache: for ``RUN --mount=type=cache``.
    """

    def __init__(self, scratch: Path, base: Image, pip_cache: Path):
        self.scratch, self.base, self.pip_cache = scratch, base, pip_cache
        self._count = 0

    def build(
        self,
        dockerfile: Path,
        context: Path,
        *,
        args: Mapping[str, str] | None = None,
        images: Mapping[str, Image] | None = None,
    ) -> Image:
        """The image of the last stage.

        ``images`` are base images by name, and by their names stages that need not be built.
        """
        args, stages = dict(args or {}), dict(images or {})
        image = Image([])
        for stage in read_dockerfile(dockerfile, args):
            if stage.name in stages:
                continue
            base = stages.get(stage.base) or self.base
            image = self._stage(stage, base, stages, Context(context), args)
            stages[stage.name] = image
        return image

    def _stage(
        self,
        stage: Stage,
        base: Image,
        stages: Mapping[str, Image],
        context: Context,
        args: Mapping[str, str],
    ) -> Image:
        layer = self._folder(stage.name)
        (layer / "root").mkdir()
        (layer / "local").mkdir()
        image = base.copy([layer, *base.layers])
        known: dict[str, str] = {}
        for step in stage.steps:
            values = {**known, **image.env}
            if step.op == "ARG":
                name, _, default = step.rest.partition("=")
                known[name] = args.get(name, expand(default, values))
            elif step.op == "RUN":
                self._run(image, step, known, context)
            elif step.op == "COPY":
                copy(image, step, values, stages, context)
            else:
                configure(image, step, values)
        return image

    def _run(self, image: Image, step: Step, known: Mapping[str, str], context: Context) -> None:
        binds = []
        for name, value in step.flags:
            assert name == "mount"
            options = mount_of(value)
            target = within(image.layers[0], options["target"])
            if options["type"] == "cache":
                self.pip_cache.mkdir(parents=True, exist_ok=True)
                target.mkdir(parents=True, exist_ok=True)
                binds.append((str(self.pip_cache), options["target"]))
            else:
                assert options["type"] == "bind"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
                binds.append((str(context.file(options["source"])), options["target"]))
        env = {"HOME": "/root", **from_host(), **known, **image.env}
        done = subprocess.run(
            self.command(image, ["/bin/sh", "-c", step.rest], env=env, binds=binds, writable=True),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"line {step.line}: {step.rest}\n{done.stdout}{done.stderr}"

    def command(
        self,
        image: Image,
        argv: list[str],
        *,
        env: Mapping[str, str],
        binds: list[tuple[str, str]],
        writable: bool = False,
    ) -> list[str]:
        """A command line that runs ``argv`` in an image, as process 1. The root is read-only
        unless it is ``writable``, where changes go to the topmost layer."""
        uid, _, gid = image.user.partition(":")
        layers = image.layers[1:] if writable else image.layers
        if writable:
            # Neither what lies in this machine's, nor what is left there, belongs to an image.
            binds = [*binds, (str(self._folder("tmp")), "/tmp")]
        spec = {
            "root": str(self._folder("mount")),
            "layers": [str(layer) for layer in layers],
            "prefix": sys.base_prefix,
            "writable": str(image.layers[0]) if writable else None,
            "binds": [*image.binds, *binds],
            "hidden": [str(REPOSITORY)],
            "uid": int(uid),
            "gid": int(gid or uid),
            "cwd": image.cwd,
            "env": dict(env),
            "argv": argv,
        }
        init = [sys.executable, "-I", str(HERE / "container_init.py"), json.dumps(spec)]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *init]

    def _folder(self, name: str) -> Path:
        self._count += 1
        folder = self.scratch / f"{self._count:02}-{name}"
        folder.mkdir()
        return folder


def copy(
    image: Image, step: Step, values: Mapping[str, str], stages: Mapping[str, Image], root: Context
) -> None:
    """COPY of files and folders; owned by root unless --chown says otherwise."""
    *sources, target = expand(step.rest, values).split()
    folder = target.endswith("/") or len(sources) > 1
    absolute = os.path.normpath(os.path.join(image.cwd, target))
    uid, _, gid = step.flag("chown", "0:0").partition(":")
    for source in sources:
        if step.flag("from"):
            found = stages[step.flag("from")].find(source)
            place = within(image.layers[0], absolute)
            if found.is_dir():
                link_tree(found, place)
            else:
                shutil.copy2(found, place / found.name if folder else place)
            own(place, int(uid), int(gid))
            continue
        files = root.files(source)
        assert files, f"line {step.line}: COPY {source}: nothing is there"
        for file in files:
            below = file.relative_to(source) if (root.root / source).is_dir() else Path(file.name)
            within_target = below if folder or (root.root / source).is_dir() else Path()
            place = within(image.layers[0], os.path.join(absolute, within_target))
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root.root / file, place)
            own(place, int(uid), int(gid))


def link_tree(source: Path, target: Path) -> None:
    """A folder without copying its files: those of a finished stage are never changed in place,
    since an overlay copies them up first."""

    def link(file: str, place: str) -> None:
        os.link(file, place, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, copy_function=link)


def own(place: Path, uid: int, gid: int) -> None:
    for each in (place, *(place.rglob("*") if place.is_dir() else ())):
        os.chown(each, uid, gid, follow_symlinks=False)


def configure(image: Image, step: Step, values: Mapping[str, str]) -> None:
    """The instructions that change no file, and WORKDIR."""
    if step.op == "ENV":
        image.env.update(pairs(step.rest, values))
    elif step.op == "LABEL":
        image.labels.update(pairs(step.rest, values))
    elif step.op == "WORKDIR":
        image.cwd = os.path.normpath(os.path.join(image.cwd, expand(step.rest, values)))
        within(image.layers[0], image.cwd).mkdir(parents=True, exist_ok=True)
    elif step.op == "USER":
        image.user = expand(step.rest, values)
    elif step.op == "EXPOSE":
        image.ports += expand(step.rest, values).split()
    elif step.op == "VOLUME":
        image.volumes += step.argv()
    elif step.op == "STOPSIGNAL":
        image.stop_signal = step.rest
    elif step.op == "ENTRYPOINT":
        image.entrypoint, image.cmd = step.argv(), []
    elif step.op == "CMD":
        image.cmd = step.argv()
    elif step.op == "HEALTHCHECK":
        kind, _, argv = step.rest.partition(" ")
        assert kind == "CMD"
        image.healthcheck, image.health_flags = json.loads(argv), dict(step.flags)
    else:
        raise AssertionError(f"line {step.line}: {step.op}")


def from_host() -> dict[str, str]:
    """What pip needs to reach this machine's package index."""
    return {
        k: v for k, v in os.environ.items() if k.startswith(FROM_HOST) or k.lower() in FROM_HOST
    }
