"""Takes an ONNX graph of any kind as it is: checked, loaded, copied, described.

Such a graph is not served; it can be quantised and measured. Needs onnx, not torch.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.base import EngineStartError
from engine.models.find import require_space
from engine.onnx.prepared import MODEL_NAME

MANIFEST_NAME = "gateway_graph.json"
FORMAT = 1
PLACES = (MODEL_NAME, f"onnx/{MODEL_NAME}")
NEEDED = ("onnx",)  # of the extra


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output; a size of the shape is a number, or a name where it varies."""

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True, slots=True)
class GraphSummary:
    """What a graph is made of.

    Attributes:
        parameters: numbers in its initializers. bytes: of the graph and its data files.
        opsets: version by domain; the empty domain is ONNX's own.
        operators: how many nodes of each kind, the most frequent first, subgraphs included.
        outside_standard: why onnx.checker could not judge the graph, which onnxruntime loads.
    """

    source: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    nodes: int
    parameters: int
    bytes: int
    opsets: dict[str, int]
    operators: dict[str, int]
    outside_standard: str | None
    format: int = FORMAT


def find_graph(source: Path) -> Path | None:
    """The ONNX file that ``source`` is or, as a folder without a checkpoint, holds.

    Raises:
        EngineStartError: the folder holds several and none has the usual name.
    """
    if source.is_file() and source.suffix == ".onnx":
        return source
    if not source.is_dir() or any(source.glob("*.safetensors")):
        return None
    for name in PLACES:
        if (source / name).is_file():
            return source / name
    found = sorted(source.glob("*.onnx"))
    if len(found) > 1:
        raise EngineStartError(
            f"{source} holds several graphs ({', '.join(path.name for path in found)}): give the "
            "file itself"
        )
    return found[0] if found else None


def accept(graph: Path, out: Path) -> GraphSummary:
    """Fill the folder ``out`` with the graph and its data files, the manifest last.

    Raises:
        EngineStartError: the graph is damaged, lacks a data file, or does not load.
    """
    import onnx

    try:
        proto = onnx.load(graph, load_external_data=False)
    except Exception as error:  # protobuf's exceptions share no public base
        raise EngineStartError(f"{graph} is not an ONNX graph ({error}): copy it again") from error
    files = [graph, *_data_files(proto, graph)]
    size = sum(path.stat().st_size for path in files)
    require_space(out.parent, size + 2**24, f"copying {graph.name}", "give another --out")
    outside = _check(graph)
    out.mkdir()
    for path in files:
        name = MODEL_NAME if path is graph else path.relative_to(graph.parent)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / name)
    inputs, outputs = _load(out / MODEL_NAME, graph)
    summary = GraphSummary(
        source=graph.name,
        inputs=inputs,
        outputs=outputs,
        nodes=sum(1 for _ in _nodes(proto.graph)),
        parameters=sum(_count(tensor) for tensor in _tensors(proto.graph)),
        bytes=size,
        opsets={entry.domain: entry.version for entry in proto.opset_import},
        operators=dict(Counter(node.op_type for node in _nodes(proto.graph)).most_common()),
        outside_standard=outside,
    )
    (out / MANIFEST_NAME).write_text(json.dumps(asdict(summary), indent=2) + "\n", encoding="utf-8")
    return summary


def _check(graph: Path) -> str | None:
    """Run onnx.checker; returns its words where an operator is not of the standard."""
    import onnx

    try:
        onnx.checker.check_model(str(graph))
    except onnx.checker.ValidationError as error:
        said = str(error).strip().splitlines()[0]
        if "No Op registered for" in said:
            return said
        raise EngineStartError(f"{graph} is not a valid ONNX graph: {said}") from error
    return None


def _load(path: Path, source: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs, by onnxruntime's names for their types."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise EngineStartError(f"onnxruntime cannot load {source} ({error})") from error

    def listed(values: Any) -> list[Tensor]:
        return [Tensor(value.name, value.type, list(value.shape)) for value in values]

    return listed(session.get_inputs()), listed(session.get_outputs())


def _data_files(proto: Any, graph: Path) -> list[Path]:
    """The files beside the graph that its tensors lie in."""
    names = {
        entry.value
        for tensor in _tensors(proto.graph)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    found = []
    for name in sorted(names):
        path = graph.parent / name
        if not path.resolve().is_relative_to(graph.parent.resolve()):
            raise EngineStartError(f"{graph} takes data from {name}, outside its folder: refused")
        if not path.is_file():
            raise EngineStartError(f"{graph} lacks its data file {name}: copy it beside the graph")
        found.append(path)
    return found


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _nodes(inner)


def _tensors(graph: Any) -> Iterator[Any]:
    """Initializers and constants, those of subgraphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors(inner)


def _count(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
