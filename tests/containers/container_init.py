"""First program of a dry-built container: makes its root, becomes its user, and runs its command.

Started by ``unshare --mount --pid --fork``, with a JSON object as its only argument:

    root      an empty folder, where the new root is mounted
    layers    folders with ``root`` and ``local`` (of /usr/local) each, topmost first
    prefix    of the Python that stands in for that of the base image
    writable  a folder for changes, or null: the root cannot be written to
    binds     [source, target] pairs, mounted as they are
    hidden    folders that have to look empty
    uid, gid, cwd, env, argv
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def mount_overlay(target: str, lower: list[str], upper: Path | None) -> None:
    options = f"lowerdir={':'.join(lower)}"
    if upper is not None:
        work = upper.parent / f"{upper.name}.work"
        for folder in (upper, work):
            folder.mkdir(parents=True, exist_ok=True)
        options += f",upperdir={upper},workdir={work}"
    mount("-t", "overlay", "overlay", "-o", options, target)


def host_root(root: str) -> str:
    """This machine's root as a lower layer. Layers may not lie within one another on one file
    system, so it becomes a file system of its own where it holds them."""
    if os.stat("/").st_dev != os.stat(root).st_dev:
        return "/"
    host = Path(f"{root}.host")
    host.mkdir()
    mount_overlay(str(host), ["/"], Path(f"{root}.unused"))
    return str(host)


def main() -> None:
    spec = json.loads(sys.argv[1])
    root, layers = spec["root"], spec["layers"]
    upper = Path(spec["writable"]) if spec["writable"] else None
    host = host_root(root)
    mount_overlay(root, [*(f"{x}/root" for x in layers), host], upper and upper / "root")
    mount_overlay(
        f"{root}/usr/local",
        [*(f"{x}/local" for x in layers), spec["prefix"]],
        upper and upper / "local",
    )
    mount("-t", "proc", "proc", f"{root}/proc")
    for folder in ("/dev", "/sys"):
        mount("--rbind", folder, f"{root}{folder}")
    for folder in spec["hidden"]:
        mount("-t", "tmpfs", "-o", "size=64k,mode=755", "none", f"{root}{folder}")
    for source, target in spec["binds"]:
        point = Path(f"{root}{target}")
        if not point.exists():
            point.mkdir(parents=True)
        mount("--bind", source, str(point))
    os.chroot(root)
    os.chdir(spec["cwd"])
    os.setgroups([])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    os.execvpe(spec["argv"][0], spec["argv"], spec["env"])


main()
