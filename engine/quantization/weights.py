"""Per-token int8 and MatMulNBits for any graph: products with constant matrices, rewritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from engine.models.export import save
from engine.models.graph import CONTRIB, add_constant, constant_array
from engine.models.quantize import (
    OPSET,
    PerToken,
    is_weight_product,
    quantize,
    replace_with_blocks,
    substitute,
)
from engine.onnx.prepared import Precision
from engine.quantization.compare import one_line
from engine.quantization.report import QuantizationError, Say
from engine.quantization.sources import Source


def rewrite(found: Source, made: Path, scratch: Path, method: str, say: Say) -> None:
    """Write ``found`` with its products in the form that ``method`` names; see models.quantize.

    Raises:
        QuantizationError: there is no such product, or the graph's operators are too old.
    """

    def tell(part: float) -> None:
        say("quantising the weights", 0.1 + 0.7 * part)

    if found.kind == "decoder":
        model = ir.load(found.graph)
        quantize(model, cast("Precision", method), tell)
    else:
        model = _any_graph(found.graph, scratch, per_token=method == "int8")
        _replace(model, method, tell)
    save(model, made.parent)


def save_again(written: Path, made: Path) -> None:
    """Move a graph of onnxruntime's tools to ``made``, its weights beside it if they are large.

    Weights inside the file would be in memory twice while it is loaded.
    """
    save(ir.load(written), made.parent)


def _any_graph(path: Path, scratch: Path, *, per_token: bool) -> ir.Model:
    model = ir.load(path)
    if per_token and model.graph.opset_imports.get("", OPSET) < OPSET:
        model = ir.load(_newer_operators(path, scratch))
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    for node in list(model.graph):
        if node.op_type == "Gemm":
            _split_gemm(model.graph, node)
    return model


def _newer_operators(path: Path, scratch: Path) -> Path:
    """A copy in the opset that per-token scales need, where block-wise QuantizeLinear exists."""
    import onnx
    from onnx import version_converter

    target = scratch / "newer.onnx"
    try:
        onnx.save(version_converter.convert_version(onnx.load(str(path)), OPSET), str(target))
    except OSError:
        raise
    except Exception as error:  # the converter's exceptions share no public base
        raise QuantizationError(
            f"per-token int8 needs opset {OPSET} and {path.name} cannot be raised to it "
            f"({one_line(error)}): export it again with that opset, or take int8_block"
        ) from error
    return target


def _split_gemm(graph: ir.Graph, node: ir.Node) -> None:
    """Turn a Gemm with a constant matrix into a MatMul and an Add; leave any other."""

    def number(name: str, default: float) -> float:
        attribute = node.attributes.get(name)
        return default if attribute is None else float(attribute.value)

    source, weight = node.inputs[0], node.inputs[1]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if source is None or weight is None or weight.const_value is None or number("transA", 0):
        return
    if bias is not None and (bias.const_value is None or bias.const_value.dtype.numpy() != "f4"):
        return
    if weight.const_value.dtype != ir.DataType.FLOAT:
        return
    matrix = constant_array(weight) * np.float32(number("alpha", 1))
    matrix = np.ascontiguousarray(matrix.T if number("transB", 0) else matrix)
    name = node.name or node.outputs[0].name
    product = ir.node("MatMul", [source, add_constant(graph, f"{name}/matrix", matrix)])
    nodes = [product]
    if bias is not None:
        offset = constant_array(bias) * np.float32(number("beta", 1))
        shift = add_constant(graph, f"{name}/offset", offset)
        nodes.append(ir.node("Add", [product.outputs[0], shift]))
    substitute(graph, node, nodes)


def _replace(model: ir.Model, method: str, tell: Callable[[float], None]) -> None:
    graph = model.graph
    products = [node for node in graph if _is_float_product(node)]
    if not products:
        raise QuantizationError(
            f"the {method} method found nothing to quantise: the graph has no MatMul or Gemm of "
            "float32 activations and a constant float32 matrix; dynamic and static also take "
            "convolutions"
        )
    per_token = _PerRow(graph) if method == "int8" else None
    for done, node in enumerate(products):
        if per_token is not None:
            per_token.replace(node)
        else:
            replace_with_blocks(graph, node, bits=4 if method == "int4" else 8)
        tell((done + 1) / len(products))
    if per_token is None:
        graph.opset_imports[CONTRIB] = 1
    passes.RemoveUnusedNodesPass()(model)
    graph.sort()


def _is_float_product(node: ir.Node) -> bool:
    if not is_weight_product(node):
        return False
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    return bool(weight.const_value.dtype == ir.DataType.FLOAT)


class _PerRow(PerToken):
    """Without a decoder's promise that every activation has the same rows."""

    def _zero_points(self, scale: ir.Node, before: ir.Node) -> ir.Value:
        self._zeros.clear()
        return super()._zero_points(scale, before)
