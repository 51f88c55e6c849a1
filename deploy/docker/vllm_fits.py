"""Whether packages that were added to a Python with vLLM suit what was there before.

    python3 vllm_fits.py FOLDER

FOLDER holds the added packages and is on the path. Checks that vLLM's version is one that the
gateway takes, that every requirement of any installed package on an added one holds, and that the
added ones can be imported. Ends with exit code 1 and one line per fault.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

# Those with compiled parts, which another minor version of Python cannot load, and ours.
IMPORTED = ("gateway.app", "llguidance", "numpy", "onnxruntime", "orjson", "tokenizers", "uvloop")


def faults_of(folder: Path) -> list[str]:
    """One sentence per fault."""
    return [*version_faults(), *requirement_faults(folder), *import_faults()]


def version_faults() -> list[str]:
    from engine.base import EngineStartError
    from engine.vllm.compat import check_version

    try:
        check_version()
    except EngineStartError as error:
        return [str(error)]
    return []


def requirement_faults(folder: Path, path: list[str] | None = None) -> list[str]:
    """Requirements on an added package that its version does not meet; ``path`` is sys.path."""
    found: dict[str, Distribution] = {}
    # In the order of the path: the first of a name is the one that is imported.
    for each in distributions(path=sys.path if path is None else path):
        found.setdefault(canonicalize_name(each.metadata["Name"]), each)
    added = {
        name: each.version
        for name, each in found.items()
        if Path(str(each.locate_file(""))).resolve() == folder.resolve()
    }
    faults = [] if added else [f"{folder} holds no package, or is not on the path"]
    for name, each in sorted(found.items()):
        for text in each.requires or ():
            try:
                needed = Requirement(text)
            except InvalidRequirement:
                continue  # of a package that is not ours to judge
            if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                continue
            version = added.get(canonicalize_name(needed.name))
            if version is not None and not needed.specifier.contains(version, prereleases=True):
                faults.append(
                    f"{name} {each.version} needs {needed.name}{needed.specifier}, and "
                    f"{version} was added: take versions that suit both"
                )
    return faults


def import_faults() -> list[str]:
    faults = []
    for name in IMPORTED:
        try:
            importlib.import_module(name)
        except ImportError as error:
            faults.append(
                f"{name} cannot be imported ({error}): was it added for the minor version of "
                f"Python that is here, {sys.version_info.major}.{sys.version_info.minor}?"
            )
    return faults


def main() -> int:
    faults = faults_of(Path(sys.argv[1]))
    sys.stderr.write("".join(f"vllm_fits: {fault}\n" for fault in faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
