"""Weight variants of a model in serving form.

``fp32``        the weights as they are.
``int8``        one scale per output channel of a weight and one per token of an activation;
                the products are exact integer arithmetic, so a row's result does not depend
                on the rows beside it.
``int8_block``  MatMulNBits, 8 bits, one scale per 32 weights.
``int4``        MatMulNBits, 4 bits, one scale per 32 weights.

The last two quantise activations inside the operator, per row and block. The token table
stays in the narrowest float type that holds it exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from engine.models.graph import CONTRIB, add_constant, constant_array
from engine.onnx.prepared import Precision

BLOCK = 32
LEVELS = 127  # symmetric: -127..127 around the activations' zero point of 128
OPSET = 22  # blocked QuantizeLinear came with 21

Report = Callable[[float], None]


def quantize(model: ir.Model, precision: Precision, report: Report = lambda _: None) -> None:
    """Rewrite ``model`` in place; ``report`` gets the finished fraction."""
    if precision == "fp32":
        return
    graph = model.graph
    products = [node for node in graph if is_weight_product(node)]
    per_token = PerToken(graph)
    for done, node in enumerate(products):
        if precision == "int8":
            per_token.replace(node)
        else:
            replace_with_blocks(graph, node, bits=4 if precision == "int4" else 8)
        report((done + 1) / len(products))
    graph.opset_imports[""] = max(graph.opset_imports[""], OPSET)
    graph.opset_imports[CONTRIB] = 1
    passes.RemoveUnusedNodesPass()(model)
    graph.sort()


def is_weight_product(node: ir.Node) -> bool:
    """Whether ``node`` multiplies activations by a constant matrix [in, out]."""
    if node.op_type != "MatMul" or node.inputs[1] is None:
        return False
    weight = node.inputs[1].const_value
    return weight is not None and len(weight.shape) == 2


@dataclass(frozen=True, slots=True)
class Quantized:
    """An activation as uint8 [B, S, width] around 128, and what one step is worth, [B, S, 1]."""

    codes: ir.Value
    scale: ir.Value


class PerToken:
    """Replaces products by their int8 form; each activation is quantised once."""

    def __init__(self, graph: ir.Graph):
        self._graph = graph
        self._quantized: dict[ir.Value, Quantized] = {}
        self._zeros: dict[bool, ir.Value] = {}
        self._owed: dict[ir.Value, ir.Value] = {}
        self._picked = after_input(graph, "logit_idx")
        self._zero = add_constant(graph, "int8/zero", np.array(128, np.uint8))
        self._step = add_constant(graph, "int8/step", np.array(1 / LEVELS, np.float32))
        self._last_axis = add_constant(graph, "int8/axis", np.array([-1], np.int64))

    def replace(self, node: ir.Node) -> None:
        """Put the int8 product in place of ``node``, a MatMul with a constant matrix."""
        source, weight = node.inputs
        assert source is not None
        assert weight is not None
        codes, scales = per_channel_int8(constant_array(weight).astype(np.float32))
        given = self._quantize(source, codes.shape[0], node)
        name = weight.name or node.outputs[0].name
        # The weights' zero point is left out: onnxruntime cannot turn weights that share one
        # into the unsigned form that AVX2 needs. MatMulIntegerToFloat would do the next three
        # nodes in one; it measured 5 % faster in prefill and 3 % slower for a single stream.
        product = ir.node(
            "MatMulInteger",
            [given.codes, add_constant(self._graph, f"{name}/int8", codes), self._zero],
        )
        wide = ir.node("Cast", [product.outputs[0]], attributes={"to": ir.DataType.FLOAT})
        scaled = ir.node(
            "Mul", [wide.outputs[0], add_constant(self._graph, f"{name}/scale", scales)]
        )
        later = self._only_gated(node)
        if later is not None:
            substitute(self._graph, node, [product, wide, scaled])
            self._owed[later] = given.scale
            return
        whole = ir.node("Mul", [scaled.outputs[0], given.scale])
        substitute(self._graph, node, [product, wide, scaled, whole])

    def _only_gated(self, node: ir.Node) -> ir.Value | None:
        """The product that alone uses ``node``'s output as a factor before it is quantised.

        In ``down(act(gate) * up)`` the row scale of ``up`` need not be applied to every
        element: the next quantisation ignores it and its scale can take it on.
        """
        uses = node.outputs[0].uses()
        if len(uses) != 1 or uses[0].node.op_type != "Mul" or uses[0].idx != 1:
            return None
        gated = uses[0].node.outputs[0]
        first = uses[0].node.inputs[0]
        if first is None or first.producer() is None or gated in self._graph.outputs:
            return None
        onward = gated.uses()
        if not onward or not all(is_weight_product(u.node) and u.idx == 0 for u in onward):
            return None
        return gated

    def _quantize(self, source: ir.Value, width: int, before: ir.Node) -> Quantized:
        if source in self._quantized:
            return self._quantized[source]
        size = ir.node("Abs", [source])
        largest = ir.node(
            "ReduceMax", [size.outputs[0], self._last_axis], attributes={"keepdims": 1}
        )
        # A row of zeros gets scale 0: its codes are arbitrary and its product exactly 0.
        scale = ir.node("Mul", [largest.outputs[0], self._step])
        self._graph.insert_before(before, [size, largest, scale])
        codes = ir.node(
            "QuantizeLinear",
            [source, scale.outputs[0], self._zero_points(scale, before)],
            attributes={"axis": -1, "block_size": width},
        )
        self._graph.insert_before(before, codes)
        worth = scale.outputs[0]
        if source in self._owed:
            owed = ir.node("Mul", [worth, self._owed[source]])
            self._graph.insert_before(before, owed)
            worth = owed.outputs[0]
        found = self._quantized[source] = Quantized(codes.outputs[0], worth)
        return found

    def _zero_points(self, scale: ir.Node, before: ir.Node) -> ir.Value:
        """128 in the shape of ``scale``, made once for all rows and once for the picked ones."""
        picked = before in self._picked
        if picked not in self._zeros:
            shape = ir.node("Shape", [scale.outputs[0]])
            value = ir.tensor(np.array([128], np.uint8))
            zeros = ir.node("ConstantOfShape", [shape.outputs[0]], attributes={"value": value})
            self._graph.insert_before(before, [shape, zeros])
            self._zeros[picked] = zeros.outputs[0]
        return self._zeros[picked]


def after_input(graph: ir.Graph, name: str) -> set[ir.Node]:
    """The nodes that depend on the graph input ``name``."""
    stack = [v for v in graph.inputs if v.name == name]
    found: set[ir.Node] = set()
    while stack:
        for node in stack.pop().consumers():
            if node not in found:
                found.add(node)
                stack += node.outputs
    return found


def per_channel_int8(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes int8 [in, out] in -127..127 and scales fp32 [out] with weight ≈ codes * scales."""
    scales = np.abs(weight).max(axis=0) / LEVELS
    scales[scales == 0] = 1
    codes = np.rint(weight / scales).clip(-LEVELS, LEVELS).astype(np.int8)
    return codes, scales.astype(np.float32)


def replace_with_blocks(graph: ir.Graph, node: ir.Node, bits: int) -> None:
    """Put a MatMulNBits in place of ``node``, a MatMul with a constant matrix [in, out]."""
    source, weight = node.inputs
    assert source is not None
    assert weight is not None
    array = constant_array(weight).astype(np.float32)
    codes, scales = blockwise(array, bits)
    name = weight.name or node.outputs[0].name
    product = ir.node(
        "MatMulNBits",
        [
            source,
            add_constant(graph, f"{name}/q{bits}", codes),
            add_constant(graph, f"{name}/scale", scales),
        ],
        attributes={
            "K": array.shape[0],
            "N": array.shape[1],
            "bits": bits,
            "block_size": BLOCK,
            "accuracy_level": 4,
        },
        domain=CONTRIB,
    )
    substitute(graph, node, [product])


def blockwise(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """MatMulNBits' layout of a weight [in, out].

    Returns:
        Codes uint8 [out, blocks, BLOCK * bits / 8], two codes per byte at 4 bits with the
        first in the low half, and scales fp32 [out, blocks]; the zero point is
        2 ** (bits - 1). At 4 bits the scale's sign puts the largest weight of a block on
        the code that reaches further (-8).
    """
    depth, width = weight.shape
    blocks = -(-depth // BLOCK)
    padded = np.zeros((width, blocks * BLOCK), np.float32)
    padded[:, :depth] = weight.T
    grid = padded.reshape(width, blocks, BLOCK)
    zero = 1 << (bits - 1)
    if bits == 4:
        at = np.abs(grid).argmax(axis=2, keepdims=True)
        scales = np.take_along_axis(grid, at, axis=2) / -zero
    else:
        scales = np.abs(grid).max(axis=2, keepdims=True) / (zero - 1)
    scales[scales == 0] = 1
    codes = (np.rint(grid / scales) + zero).clip(0, 2 * zero - 1).astype(np.uint8)
    if bits == 4:
        codes = np.bitwise_or(codes[:, :, 0::2], codes[:, :, 1::2] << 4, dtype=np.uint8)
    return codes, scales[:, :, 0].astype(np.float32)


def substitute(graph: ir.Graph, old: ir.Node, new: list[ir.Node]) -> None:
    """Insert ``new`` in place of ``old``; the last one's output takes over its name and uses."""
    before, after = old.outputs[0], new[-1].outputs[0]
    after.name, after.shape, after.type = before.name, before.shape, before.type
    graph.insert_before(old, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(old, safe=True)
    before.name = None
