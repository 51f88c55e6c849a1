"""What a quantisation or a measurement starts from: an ONNX graph, alone or as a prepared model."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from engine.config import EngineConfig, OnnxPrecision
from engine.models.convert import prepare
from engine.models.convert_encoder import prepare_encoder
from engine.models.find import BUNDLED_NAME, BundledModel
from engine.onnx.prepared import MANIFEST_NAME, MODEL_NAME, Manifest
from engine.onnx_encoder.families import is_encoder
from engine.onnx_encoder.layout import MANIFEST_NAME as ENCODER_MANIFEST_NAME
from engine.onnx_encoder.layout import ready_graph
from engine.quantization.graph_file import graph_bytes
from engine.quantization.report import REPORT_NAME, QuantizationError, Say

PACKAGES = ("onnx", "onnx_ir")
REPORTS = (REPORT_NAME, "conversion.json")
"""Of the folder as it was."""
WEIGHT_SUFFIXES = (".onnx", ".data", ".safetensors", ".bin", ".pt", ".part")

Kind = Literal["decoder", "graph"]


@dataclass(frozen=True, slots=True)
class Source:
    """A model in ONNX form.

    Attributes:
        graph: the ``.onnx`` file.
        kind: ``decoder`` for a prepared folder of the ONNX engine, ``graph`` for all else.
        folder: what the graph belongs to; None for a file by itself.
        label: for people.
    """

    graph: Path
    kind: Kind
    folder: Path | None
    label: str

    @property
    def inside(self) -> Path:
        """Where the graph lies in its folder, and will lie in another."""
        return self.graph.relative_to(self.folder) if self.folder else Path(MODEL_NAME)

    @property
    def size(self) -> int:
        """Bytes of the graph and its weights."""
        return graph_bytes(self.graph)


def require_onnx_packages(purpose: str) -> None:
    """Raise QuantizationError when a package that reads graphs is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise QuantizationError(
            f"{purpose} needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'llm-gateway[convert]'"
        )


def float_source(source: Path, cache_dir: Path | None, say: Say) -> Source:
    """The unquantised ONNX form of a model; a checkpoint is converted once and cached.

    Raises:
        EngineStartError: it is not a model, or is quantised already.
    """
    found = existing_graph(source)
    if found is None:
        named = BUNDLED_NAME if source == BundledModel().checkpoint else str(source)
        config = EngineConfig() if cache_dir is None else EngineConfig(cache_dir=cache_dir)
        return _converted(named, "fp32", config, say)
    held = held_precision(found)
    if held not in ("fp32", "none"):
        raise QuantizationError(
            f"{source} is quantised already ({held}): give the original, or the fp32 variant"
        )
    return found


def measured_sources(
    model: str, precisions: Sequence[str], cache_dir: Path, say: Say
) -> Iterator[Source]:
    """The graphs that ``model`` stands for: itself, or the variants of a checkpoint.

    Raises:
        EngineStartError: there is no such model, or no such precision.
    """
    require_onnx_packages("measuring")
    wrong = [name for name in precisions if name not in get_args(OnnxPrecision)]
    if wrong:
        raise QuantizationError(
            f"there is no precision {wrong[0]!r}: take {', '.join(get_args(OnnxPrecision))}"
        )
    found = None if model == BUNDLED_NAME else existing_graph(place(model))
    if found is not None:
        yield found
        return
    config = EngineConfig(cache_dir=cache_dir)
    for precision in precisions:
        made = _converted(model, cast("OnnxPrecision", precision), config, say)
        name = model if model == BUNDLED_NAME else Path(model).name
        yield replace(made, label=f"{name} {held_precision(made)}")


def _converted(model: str, precision: OnnxPrecision, config: EngineConfig, say: Say) -> Source:
    """A checkpoint's variant out of the cache, made if need be."""
    folder = Path(model).expanduser()
    if not is_encoder(folder):
        made = prepare(model, precision, config, say)
        return Source(made / MODEL_NAME, "decoder", made, model)
    made = prepare_encoder(folder, folder.name, replace(config, precision=precision), say)
    graph = ready_graph(made)
    assert graph is not None
    return Source(graph, "graph", made, folder.name)


def place(model: str) -> Path:
    """``model`` as a path; raises QuantizationError for a path that leads nowhere."""
    path = Path(model).expanduser()
    looks_local = model.startswith((".", "/", "~")) or path.suffix == ".onnx"
    if looks_local and not path.exists():
        raise QuantizationError(
            f"there is no {model}: give bundled, an .onnx file, a folder or a hub id"
        )
    return path


def existing_graph(source: Path) -> Source | None:
    """The graph of a file or folder that has one; None for a checkpoint or a hub id.

    Raises:
        QuantizationError: it is a file of another kind.
    """
    if source.is_file():
        if source.suffix != ".onnx":
            raise QuantizationError(
                f"{source} is not an .onnx file: give one, a folder with model.onnx, a checkpoint "
                "folder, a hub id or bundled"
            )
        return Source(source, "graph", None, source.stem)
    if not source.is_dir():
        return None
    if (source / MANIFEST_NAME).is_file():
        return Source(source / MODEL_NAME, "decoder", source, source.name)
    graph = ready_graph(source)
    if graph is not None:
        return Source(graph, "graph", source, source.name)
    return None


def held_precision(source: Source) -> str:
    """How the weights are stored, as the folder's manifest says; ``none`` without one."""
    if source.folder is None:
        return "none"
    for name in (MANIFEST_NAME, ENCODER_MANIFEST_NAME):
        path = source.folder / name
        if path.is_file():
            return str(read_object(path).get("precision", "none"))
    return "none"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a prepared decoder, of variants too that the engine refuses to serve."""
    raw = read_object(folder / MANIFEST_NAME)
    try:
        return Manifest(**(raw | {"eos_token_ids": tuple(raw["eos_token_ids"])}))
    except (KeyError, TypeError) as error:
        raise QuantizationError(
            f"{folder / MANIFEST_NAME} is not a manifest of this version ({error}): convert the "
            "model again"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; raises QuantizationError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QuantizationError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(value, dict):
        raise QuantizationError(f"{path} does not hold a JSON object: copy it again")
    return value


def copy_companions(source: Source, out: Path, precision: str) -> None:
    """Copy everything of the folder but its weights; manifests get the new precision."""
    if source.folder is None:
        return
    for path in sorted(source.folder.rglob("*")):
        if not path.is_file() or path.name in REPORTS or path.suffix in WEIGHT_SUFFIXES:
            continue
        target = out / path.relative_to(source.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.name in (MANIFEST_NAME, ENCODER_MANIFEST_NAME):
            changed = read_object(path) | {"precision": precision}
            changed.pop("largest_distance", None)  # what conversion measured
            target.write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")
        else:
            shutil.copyfile(path, target)
