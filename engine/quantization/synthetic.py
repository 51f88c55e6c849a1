"""Inputs of a graph's own names, shapes and types, made of random numbers.

Integers that choose rows of a table (Gather and its relatives) stay inside the table, followed
backwards through the operators that only move values about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.quantization.graph_file import read_graph
from engine.quantization.report import QuantizationError

Feeds = dict[str, npt.NDArray[Any]]

# Each passes values on unchanged; a Gather of an index tensor does so with its first input.
_MOVES = frozenset(
    (
        *("Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    )
)
_LOOKUPS = frozenset(("Gather", "GatherElements", "GatherND", "ScatterElements"))
_EMBED_TABLES = {0: 2, 1: 4}  # EmbedLayerNormalization: input that indexes, its table


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input that has to be fed.

    Attributes:
        shape: a number, a name, or None for an open dimension without one.
        rows: integers must stay below; None where nothing is looked up with them.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...]
    rows: int | None


def graph_inputs(path: Path) -> list[GraphInput]:
    """The inputs of an ``.onnx`` file; weights are not read from external data."""
    import onnx

    model = read_graph(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    sizes = _table_shapes(model)
    found = []
    for value in model.graph.input:
        if value.name in weights:
            continue
        if not value.type.HasField("tensor_type"):
            raise QuantizationError(
                f"{path}: input {value.name} is not a tensor, and only tensors can be made up"
            )
        tensor = value.type.tensor_type
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        shape = tuple(
            dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
            for dim in tensor.shape.dim
        )
        rows = min(_bounds(model.graph, value.name, sizes), default=None)
        found.append(GraphInput(value.name, dtype, shape, rows))
    return found


def sized(
    inputs: list[GraphInput], batch: int, dims: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """The shape of each input.

    Args:
        batch: size of open first dimensions, and of every dimension of the same name.
        dims: sizes by dimension name, or by ``input.axis`` where it has no name.

    Raises:
        QuantizationError: an open dimension has no size, or ``dims`` names none of them.
    """
    known = {
        dim_name(value, 0): batch
        for value in inputs
        if value.shape and not isinstance(value.shape[0], int)
    } | dict(dims)
    every = dimension_names(inputs)
    strange = sorted(dims.keys() - every)
    if strange:
        raise QuantizationError(
            f"no input has a dimension {strange[0]!r}: the open ones are "
            f"{', '.join(sorted(every)) or 'none'}"
        )
    shapes = {}
    for value in inputs:
        sizes = []
        for axis, size in enumerate(value.shape):
            if isinstance(size, int):
                sizes.append(size)
                continue
            name = dim_name(value, axis)
            if name not in known:
                raise QuantizationError(
                    f"input {value.name} has an open dimension {name}: give its size with "
                    f"--dim {name}=128"
                )
            sizes.append(known[name])
        shapes[value.name] = tuple(sizes)
    return shapes


def dimension_names(inputs: list[GraphInput]) -> set[str]:
    """What ``--dim`` calls the open dimensions."""
    every = {dim_name(value, axis) for value in inputs for axis in range(len(value.shape))}
    return {name for name in every if name is not None}


def dim_name(value: GraphInput, axis: int) -> str | None:
    """What ``--dim`` calls a dimension; None for one of fixed size."""
    size = value.shape[axis]
    if isinstance(size, int):
        return None
    return size or f"{value.name}.{axis}"


def synthetic(
    inputs: list[GraphInput], batch: int, dims: Mapping[str, int], rng: np.random.Generator
) -> Feeds:
    """One set of random inputs: floats from a standard normal, masks of ones."""
    shapes = sized(inputs, batch, dims)
    return {value.name: _draw(value, shapes[value.name], rng) for value in inputs}


def _draw(value: GraphInput, shape: tuple[int, ...], rng: np.random.Generator) -> npt.NDArray[Any]:
    if value.dtype.kind == "f":
        return rng.standard_normal(shape).astype(value.dtype)
    if value.dtype.kind == "b" or (value.rows is None and "mask" in value.name.lower()):
        return np.ones(shape, value.dtype)
    if value.dtype.kind in "iu":
        return rng.integers(0, value.rows or 2, shape).astype(value.dtype)
    raise QuantizationError(
        f"input {value.name} is of type {value.dtype}, which cannot be made up: give inputs as .npz"
    )


def _table_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    shapes[node.output[0]] = tuple(attribute.t.dims)
    return shapes


def _bounds(graph: Any, name: str, sizes: Mapping[str, tuple[int, ...]]) -> Iterator[int]:
    """Rows of every table that ``name``, or what is only moved from it, looks up."""
    consumers: dict[str, list[tuple[Any, int]]] = {}
    for node in graph.node:
        for position, entering in enumerate(node.input):
            consumers.setdefault(entering, []).append((node, position))
    seen, stack = {name}, [name]
    while stack:
        for node, position in consumers.get(stack.pop(), []):
            if node.op_type in _LOOKUPS and position == 1:
                table = sizes.get(node.input[0])
                if table:
                    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
                    yield table[axis]
            elif node.op_type == "EmbedLayerNormalization" and position in _EMBED_TABLES:
                yield sizes[node.input[_EMBED_TABLES[position]]][0]
            elif node.op_type in _MOVES and (position == 0 or node.op_type == "Concat"):
                for leaving in node.output:
                    if leaving not in seen:
                        seen.add(leaving)
                        stack.append(leaving)
