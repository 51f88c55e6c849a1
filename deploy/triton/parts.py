"""What a repository is made of: models, each a config and the files of its version."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import engine.models.kernel
from deploy.triton.external_data import external_files
from deploy.triton.schema import Config

SERVED = Path(__file__).parent / "served"
GRAPH = "model.onnx"


@dataclass(frozen=True, slots=True)
class Part:
    """One model.

    Attributes:
        files: by path in the version's folder: a file to copy, or a text to write.
    """

    config: Config
    files: dict[str, Path | str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config["name"])

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(
            what.stat().st_size if isinstance(what, Path) else len(what.encode())
            for what in self.files.values()
        )


def served(name: str, *helpers: str) -> dict[str, Path | str]:
    """The files of a Python model: ``name`` as model.py, and those it imports."""
    files: dict[str, Path | str] = {"model.py": SERVED / f"{name}.py"}
    return files | {f"{helper}.py": SERVED / f"{helper}.py" for helper in helpers}


def graph_files(path: Path) -> dict[str, Path | str]:
    """An ONNX model as the onnxruntime backend wants it: with weights beside it, in a folder."""
    beside = external_files(path)
    if not beside:
        return {GRAPH: path}
    names = {path.name: GRAPH} | {name: name for name in beside}
    return {f"{GRAPH}/{new}": path.parent / name for name, new in names.items()}


def int8_rule() -> dict[str, Path | str]:
    """The module that chooses exact 8-bit products for the CPU that the model runs on."""
    return {"kernel.py": Path(engine.models.kernel.__file__)}
