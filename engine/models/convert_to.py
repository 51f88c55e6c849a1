"""Converts a model into a folder of one's own, and lays the result beside the original."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from engine.base import EngineStartError
from engine.models import accept
from engine.models.compare import PROMPTS
from engine.models.convert import DEFAULT_PRECISION, EXPORT_BYTES, VARIANT_BYTES, run_export
from engine.models.convert_encoder import EXPORTER as ENCODER_EXPORTER
from engine.models.find import (
    FAMILIES,
    BundledModel,
    HubModel,
    check_family,
    inspect,
    locate,
    require_convert_extra,
    require_space,
)
from engine.models.out_folder import check_out, new_folder
from engine.onnx.prepared import MANIFEST_NAME as DECODER_MANIFEST
from engine.onnx.prepared import Precision
from engine.onnx_encoder.families import FAMILIES as ENCODER_FAMILIES
from engine.onnx_encoder.families import is_encoder
from engine.onnx_encoder.layout import MANIFEST_NAME as ENCODER_MANIFEST
from engine.onnx_encoder.layout import ready_graph

REPORT_NAME = "conversion.json"
DECODER_EXPORTER = "engine.models.export"

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What to convert, and how.

    Attributes:
        source: ``bundled``, a folder, a hub id, or an ONNX file.
        precision: None: int8 for a decoder, fp32 for an encoder.
        force: whether a converted model at ``out`` is replaced.
        prompts: to compare with the original; empty: some of our own.
        tokens: greedy tokens per prompt to compare.
    """

    source: str
    out: Path
    precision: Precision | None = None
    force: bool = False
    prompts: Sequence[str] = ()
    tokens: int = 32
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of it; also written as ``conversion.json``, for a graph as its manifest.

    Attributes:
        parameters: stored weights of the original.
        bytes: of the finished folder. seconds: from start to end, downloads included.
        rows: per prompt, ``compare.Agreement`` or ``compare_encoder.Nearness`` as a mapping.
        graph: the summary of a graph that was taken as it is.
    """

    kind: Literal["decoder", "encoder", "graph"]
    source: str
    out: str
    architecture: str
    precision: str
    parameters: int
    bytes: int
    seconds: float
    rows: list[dict[str, Any]]
    graph: dict[str, Any] | None = None


def convert_to(wish: Wish, cache_dir: Path, progress: Progress) -> Conversion:
    """Make ``wish.out``, whole or not at all. Blocks; may take minutes.

    Args:
        cache_dir: where downloads are kept, complete or begun.
        progress: called with a stage for people and a fraction in [0, 1] or None.

    Raises:
        EngineStartError: with the cause and the fix.
    """
    began = time.monotonic()
    wish = replace(wish, out=Path(os.path.abspath(wish.out.expanduser())))
    local = Path(wish.source).expanduser()
    check_out(wish.out, local if local.exists() else None, force=wish.force)
    _refuse_served(local)
    graph = accept.find_graph(local)
    if graph is not None:
        return _take_graph(wish, graph, began, progress)
    folder, label = _checkpoint(wish, cache_dir, progress)
    encoder = is_encoder(folder)
    checkpoint = inspect(folder, families_of(folder))
    precision = wish.precision or ("fp32" if encoder else DEFAULT_PRECISION)
    with new_folder(wish.out, force=wish.force) as scratch:
        needed = int(checkpoint.parameters * (EXPORT_BYTES + VARIANT_BYTES[precision])) + 2**26
        require_space(scratch, needed, f"converting {label}", "give another --out")
        made, questions = scratch / "model", scratch / "questions.json"
        asked = {"prompts": list(wish.prompts or PROMPTS), "tokens": wish.tokens}
        questions.write_text(json.dumps(asked), encoding="utf-8")
        exporter = ENCODER_EXPORTER if encoder else DECODER_EXPORTER
        run_export(folder, made, precision, label, progress, exporter, questions)
        conversion = Conversion(
            kind="encoder" if encoder else "decoder",
            source=label,
            out=str(wish.out),
            architecture=checkpoint.architecture,
            precision=precision,
            parameters=checkpoint.parameters,
            bytes=_size(made),
            seconds=round(time.monotonic() - began, 1),
            rows=json.loads(questions.read_text(encoding="utf-8"))["rows"],
        )
        report = json.dumps(asdict(conversion), indent=2, ensure_ascii=False)
        (made / REPORT_NAME).write_text(report + "\n", encoding="utf-8")
    return conversion


def families_of(folder: Path) -> Mapping[str, str]:
    """Those that the model in ``folder`` must be one of."""
    return ENCODER_FAMILIES if is_encoder(folder) else FAMILIES


def check_covered(folder: Path) -> None:
    """Raise EngineStartError unless the config names a family that can be converted."""
    check_family(folder, families_of(folder))


def _refuse_served(folder: Path) -> None:
    """Raise EngineStartError for a folder that the server takes as it is."""
    if any((folder / name).is_file() for name in (DECODER_MANIFEST, ENCODER_MANIFEST)):
        raise EngineStartError(
            f"{folder} is converted already: serve it with MODEL_NAME, or give the original "
            "checkpoint to make another variant"
        )
    graph = ready_graph(folder)
    if graph is not None and is_encoder(folder) and not any(folder.glob("*.safetensors")):
        raise EngineStartError(
            f"{folder} holds a graph that is served as it is: set MODEL_NAME to the folder, or "
            f"give {graph} to take the graph alone"
        )


def _checkpoint(wish: Wish, cache_dir: Path, progress: Progress) -> tuple[Path, str]:
    """The folder in Hugging Face layout, and what to call the model."""
    place = locate(wish.source, wish.revision)
    require_convert_extra()
    if isinstance(place, BundledModel):
        return place.checkpoint, wish.source
    if isinstance(place, HubModel):
        from engine.models.hub import download

        folder = download(place.id, place.revision, cache_dir, progress, check_covered)
        return folder, wish.source
    return place.path, place.path.name


def _take_graph(wish: Wish, graph: Path, began: float, progress: Progress) -> Conversion:
    if wish.precision is not None or wish.prompts:
        raise EngineStartError(
            f"{graph} is a graph and is taken as it is, without --precision and --prompts: convert "
            "it first, then use llm-gateway model quantize"
        )
    require_convert_extra(accept.NEEDED)
    with new_folder(wish.out, force=wish.force) as scratch:
        progress("checking, copying and loading the graph", None)
        summary = accept.accept(graph, scratch / "model")
    return Conversion(
        kind="graph",
        source=str(graph),
        out=str(wish.out),
        architecture="",
        precision="as it was",
        parameters=summary.parameters,
        bytes=summary.bytes,
        seconds=round(time.monotonic() - began, 1),
        rows=[],
        graph=asdict(summary),
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
