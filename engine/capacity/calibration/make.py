"""Writes the calibration graphs. ``python -m engine.capacity.calibration.make``

Weights are ConstantOfShape nodes, which onnxruntime folds when it opens the graph: a file of a
few kilobytes becomes a hundred megabytes in memory. Each has another value, so that equal
subexpressions are not merged. Needs the ``convert`` extra; the results ship.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

WIDTH = 1024
IN_MEMORY = 25  # products of WIDTH x WIDTH; the caches are emptied before each run
IN_CACHE = 2
SMALL_OPERATORS = 400
HEADS, HEAD_DIM = 8, 64


class Graph:
    """A graph under construction, from a float input x to an output y."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output."""
        name = f"v{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [name], domain=domain, **attributes)
        self.nodes.append(node)
        return name

    def constant(self, kind: int, shape: tuple[int, ...], values: list[Any]) -> str:
        """Append an initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(helper.make_tensor(name, kind, shape, values))
        return name

    def filled(self, kind: int, shape: tuple[int, ...], value: float) -> str:
        """A large constant of one value."""
        sizes = self.constant(TensorProto.INT64, (len(shape),), list(shape))
        return self.add("ConstantOfShape", sizes, value=helper.make_tensor("v", kind, [1], [value]))

    def save(self, path: Path, inputs: dict[str, list[Any]], output: str) -> None:
        """Write the graph; all inputs and the output are float32."""
        given = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in inputs.items()
        ]
        last = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "calibration", given, [last], self.constants)
        domains = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=10)
        path.write_bytes(model.SerializeToString())


def products(path: Path, precision: str, count: int) -> None:
    """``count`` products in a row, each as the engine's models have it (engine.models.quantize)."""
    graph = Graph()
    step = graph.constant(TensorProto.FLOAT, (), [1 / 127])
    zero = graph.constant(TensorProto.UINT8, (), [128])
    axis = graph.constant(TensorProto.INT64, (1,), [-1])
    scales = graph.filled(TensorProto.FLOAT, (WIDTH,), 0.01)
    block_scales = graph.filled(TensorProto.FLOAT, (WIDTH, WIDTH // 32), 0.01)
    value = "x"
    zeros = ""
    for index in range(count):
        if precision == "fp32":
            weight = graph.filled(TensorProto.FLOAT, (WIDTH, WIDTH), 1e-4 * (index + 1))
            value = graph.add("MatMul", value, weight)
        elif precision == "int4":
            packed = graph.filled(TensorProto.UINT8, (WIDTH, WIDTH // 32, 16), index + 1)
            value = graph.add(
                "MatMulNBits",
                value,
                packed,
                block_scales,
                domain="com.microsoft",
                K=WIDTH,
                N=WIDTH,
                bits=4,
                block_size=32,
                accuracy_level=4,
            )
        else:
            largest = graph.add("ReduceMax", graph.add("Abs", value), axis, keepdims=1)
            scale = graph.add("Mul", largest, step)
            if not zeros:
                around = helper.make_tensor("v", TensorProto.UINT8, [1], [128])
                zeros = graph.add("ConstantOfShape", graph.add("Shape", scale), value=around)
            codes = graph.add("QuantizeLinear", value, scale, zeros, axis=-1, block_size=WIDTH)
            weight = graph.filled(TensorProto.INT8, (WIDTH, WIDTH), index - 60)
            whole = graph.add("MatMulInteger", codes, weight, zero)
            wide = graph.add("Cast", whole, to=TensorProto.FLOAT)
            value = graph.add("Mul", graph.add("Mul", wide, scales), scale)
    graph.save(path, {"x": [1, "rows", WIDTH]}, value)


def small_operators(path: Path) -> None:
    """Operators that do next to nothing: what starting one costs."""
    graph = Graph()
    value = "x"
    for index in range(SMALL_OPERATORS // 2):
        one = graph.constant(TensorProto.FLOAT, (1,), [1.0 + index])
        value = graph.add("Abs", graph.add("Mul", value, one))
    graph.save(path, {"x": [1, "rows", HEAD_DIM]}, value)


def attention(path: Path) -> None:
    """Scores, softmax and the weighted sum of HEADS heads."""
    graph = Graph()
    scores = graph.add("Softmax", graph.add("MatMul", "x", "keys"), axis=-1)
    value = graph.add("MatMul", scores, "values")
    shapes = {
        "x": [1, HEADS, "rows", HEAD_DIM],
        "keys": [1, HEADS, HEAD_DIM, "length"],
        "values": [1, HEADS, "length", HEAD_DIM],
    }
    graph.save(path, shapes, value)


def main(folder: Path) -> None:
    """Write all graphs into ``folder``."""
    for precision in ("int8", "int4", "fp32"):
        products(folder / f"{precision}-memory.onnx", precision, IN_MEMORY)
        products(folder / f"{precision}-cache.onnx", precision, IN_CACHE)
        products(folder / f"{precision}-rows.onnx", precision, 1)
    small_operators(folder / "operators.onnx")
    attention(folder / "attention.onnx")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
