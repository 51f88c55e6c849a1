"""Reads the graph of an ``.onnx`` file, without the weights that lie beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.quantization.report import QuantizationError


def read_graph(path: Path) -> Any:
    """The file as an ``onnx.ModelProto``; raises QuantizationError."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's exceptions share no public base
        raise QuantizationError(
            f"{path} is not a readable ONNX model ({' '.join(str(error).split())}): export it again"
        ) from error
    if not model.graph.node:
        raise QuantizationError(f"{path} holds an ONNX model without operators: export it again")
    return model


def graph_bytes(path: Path) -> int:
    """Bytes of an ``.onnx`` file and of the external data files that it names."""
    from onnx.external_data_helper import uses_external_data

    total = path.stat().st_size
    outside = {
        entry.value
        for tensor in read_graph(path).graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for name in outside:
        beside = path.parent / name
        if not beside.is_file():
            raise QuantizationError(f"{path} keeps its weights in {name}, which is not beside it")
        total += beside.stat().st_size
    return total
