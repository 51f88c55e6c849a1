"""Tensors as Triton names them, and those of an ONNX graph as onnxruntime sees them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.triton.errors import TritonError
from deploy.triton.schema import Config

Shape = tuple[int, ...]
"""Sizes of a whole tensor, the batch included; -1 for one that varies."""

# Types of config.pbtxt, by onnxruntime's names.
TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output.

    Attributes:
        kind: one of Triton's ``TYPE_`` names.
        axes: names of the sizes that vary, where the graph gives them, else "".
    """

    name: str
    kind: str
    shape: Shape
    optional: bool = False
    axes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} {self.kind.removeprefix('TYPE_').lower()}{list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a model takes and gives, in order."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def batches(self) -> bool:
        """Whether every tensor has one and the same varying first dimension."""
        tensors = (*self.inputs, *self.outputs)
        first = {tensor.axes[0] if tensor.axes else "" for tensor in tensors}
        return len(first) == 1 and all(t.shape and t.shape[0] == -1 for t in tensors)


def read_graph(path: Path) -> Signature:
    """The signature of an ONNX file; raises TritonError when onnxruntime cannot load it."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise TritonError(
            f"onnxruntime cannot load {path} ({error}): give an ONNX model, with its external "
            "data files beside it"
        ) from error
    return Signature(
        tuple(_tensor(node) for node in session.get_inputs()),
        tuple(_tensor(node) for node in session.get_outputs()),
    )


def _tensor(node: Any) -> Tensor:
    if node.type not in TYPES:
        raise TritonError(
            f"the graph's {node.name} is a {node.type}, which Triton's tensors cannot hold: "
            "export the model with plain tensors (for scikit-learn models, zipmap=False)"
        )
    sizes = node.shape or []
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in sizes)
    axes = tuple(size if isinstance(size, str) else "" for size in sizes)
    return Tensor(node.name, TYPES[node.type], shape, axes=axes)


def tensor_entry(tensor: Tensor, *, batched: bool) -> Config:
    """The entry of config.pbtxt. Its dims must not be empty, so one value is dims [ 1 ].

    With batches, Triton takes that dimension away again. Without, it knows no scalars, and
    ``served/graph.py`` does it.

    Args:
        batched: whether Triton adds the batch dimension itself.
    """
    dims = list(tensor.shape[1:] if batched else tensor.shape)
    entry: Config = {"name": tensor.name, "data_type": tensor.kind, "dims": dims or [1]}
    if batched and not dims:
        entry["reshape"] = {"shape": []}
    if tensor.optional:
        entry["optional"] = True
    return entry


def signature_of(config: Config, *, reshaped: bool) -> Signature:
    """What a config says its model takes and gives.

    Args:
        reshaped: as the backend sees it, else as requests and ensembles do.
    """
    batch = (-1,) if config.get("max_batch_size", 0) else ()

    def read(entries: Iterable[Config]) -> tuple[Tensor, ...]:
        found = []
        for entry in entries:
            dims = entry.get("dims", [])
            if reshaped and "reshape" in entry:
                dims = entry["reshape"].get("shape", [])
            name, kind = entry.get("name", ""), entry.get("data_type", "")
            shape = (*batch, *dims)
            found.append(Tensor(name, kind, shape, bool(entry.get("optional"))))
        return tuple(found)

    return Signature(read(config.get("input", [])), read(config.get("output", [])))


def fits(one: Shape, other: Shape) -> bool:
    """Whether tensors of the two shapes can be the same tensor."""
    return len(one) == len(other) and all(
        a == b or -1 in (a, b) for a, b in zip(one, other, strict=True)
    )
