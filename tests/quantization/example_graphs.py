"""Small ONNX graphs with random weights: a recommender and an image classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

USERS, ITEMS, DIMS = 50, 80, 16
SIDE, CLASSES = 16, 10


def recommender(path: Path, opset: int = 17) -> Path:
    """Scores [batch, 1] from a user, a bag of items [batch, 4] and dense features [batch, 8].

    Embedding gathers and an MLP; its first layer is a MatMul and an Add, the others are Gemm,
    one of them transposed.
    """
    rng = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        array = rng.standard_normal(shape) / np.sqrt(shape[-1])
        return numpy_helper.from_array(array.astype(np.float32), name)

    width = DIMS + DIMS + 8
    nodes = [
        helper.make_node("Gather", ["user_table", "user"], ["user_rows"]),
        helper.make_node("Unsqueeze", ["items", "last"], ["items_3d"]),
        helper.make_node("Squeeze", ["items_3d", "last"], ["items_2d"]),
        helper.make_node("Gather", ["item_table", "items_2d"], ["item_rows"]),
        helper.make_node("ReduceMean", ["item_rows"], ["item_mean"], axes=[1], keepdims=0),
        helper.make_node("Concat", ["user_rows", "item_mean", "dense"], ["joined"], axis=1),
        helper.make_node("MatMul", ["joined", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["h1"]),
        helper.make_node("Gemm", ["h1", "w2", "b2"], ["a2"], transB=1),
        helper.make_node("Relu", ["a2"], ["h2"]),
        helper.make_node("Gemm", ["h2", "w3", "b3"], ["score"]),
    ]
    initializers = [
        weight("user_table", USERS, DIMS),
        weight("item_table", ITEMS, DIMS),
        weight("w1", width, 64),
        weight("b1", 64),
        weight("w2", 32, 64),
        weight("b2", 32),
        weight("w3", 32, 4),
        weight("b3", 4),
        numpy_helper.from_array(np.array([2], np.int64), "last"),
    ]
    inputs = [
        helper.make_tensor_value_info("user", T.INT64, ["batch"]),
        helper.make_tensor_value_info("items", T.INT64, ["batch", 4]),
        helper.make_tensor_value_info("dense", T.FLOAT, ["batch", 8]),
    ]
    outputs = [helper.make_tensor_value_info("score", T.FLOAT, ["batch", 4])]
    return _save(path, nodes, inputs, outputs, initializers, opset)


def classifier(path: Path, opset: int = 13) -> Path:
    """Class scores [batch, 10] of images [batch, 3, side, side]: Conv, BatchNorm, pool, Gemm."""
    rng = np.random.default_rng(2)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 4
        return numpy_helper.from_array(
            (rng.standard_normal(shape) / scale).astype(np.float32), name
        )

    def positive(name: str, size: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.uniform(0.5, 1.5, size).astype(np.float32), name)

    nodes = [
        helper.make_node("Conv", ["image", "c1", "cb1"], ["x1"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["x1", "g1", "be1", "mu1", "va1"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "c2", "cb2"], ["x2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["x2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"], transB=1),
    ]
    initializers = [
        weight("c1", 8, 3, 3, 3),
        weight("cb1", 8),
        positive("g1", 8),
        weight("be1", 8),
        weight("mu1", 8),
        positive("va1", 8),
        weight("c2", 32, 8, 3, 3),
        weight("cb2", 32),
        weight("w", CLASSES, 32),
        weight("b", CLASSES),
    ]
    inputs = [helper.make_tensor_value_info("image", T.FLOAT, ["batch", 3, "side", "side"])]
    outputs = [helper.make_tensor_value_info("scores", T.FLOAT, ["batch", CLASSES])]
    return _save(path, nodes, inputs, outputs, initializers, opset)


def users(rows: int, seed: int = 5) -> dict[str, np.ndarray]:
    """Inputs of the recommender."""
    rng = np.random.default_rng(seed)
    return {
        "user": rng.integers(0, USERS, rows),
        "items": rng.integers(0, ITEMS, (rows, 4)),
        "dense": rng.standard_normal((rows, 8)).astype(np.float32),
    }


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto],
    opset: int,
) -> Path:
    graph = helper.make_graph(nodes, path.stem, inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
