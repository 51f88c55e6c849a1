"""Turns the model builder's fp32 graph into the form that the ONNX engine runs.

The builder (``onnxruntime_genai.models.builder``) writes a decoder around
``GroupQueryAttention`` with an attention mask and logits for every position. The engine
knows each sequence's length and which rows it wants, so the mask arithmetic goes away and
the wanted rows are picked as early as attention allows: after the last attention, nothing
mixes positions, so the last layer's projections and the vocabulary matrix see those rows only.

Serving form (B sequences, S new tokens each, n wanted rows, fp32 where not said otherwise):

    input_ids               int64 [B, S]
    seqlens_k               int32 [B]      total length after this step, minus one
    total_sequence_length   int32 []       the largest total length in the batch
    logit_idx               int64 [n]      rows of the flattened [B * S] input
    past_key_values.{i}.key / .value       [B, kv_heads, max_len, head_dim]
    logits                                 [n, vocab]
    present.{i}.key / .value               [B, kv_heads, max_len, head_dim]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

ATTENTION = "GroupQueryAttention"
CONTRIB = "com.microsoft"
SEQLENS_INPUT, TOTAL_INPUT = 5, 6  # positions among GroupQueryAttention's inputs

_KNOWN_INPUTS = re.compile(
    r"input_ids|attention_mask|position_ids|past_key_values\.\d+\.(key|value)"
)
# Each treats every row of the last axis alone, so picking rows before or after is the same.
_ROW_WISE = frozenset(
    (
        *("Add", "Cast", "Clip", "Concat", "Div", "FastGelu", "Gelu", "Identity", "MatMul"),
        *("LayerNormalization", "Max", "Min", "Mul", "Neg", "Pow", "QuickGelu", "Relu", "Sigmoid"),
        *("SimplifiedLayerNormalization", "SkipLayerNormalization", "Softplus", "Split", "Sqrt"),
        *("SkipSimplifiedLayerNormalization", "Sub", "Tanh", "Where"),
    )
)


class UnsupportedGraph(Exception):
    """The exported graph is not one that the ONNX engine can run. Says what is in the way."""


@dataclass(frozen=True, slots=True)
class Decoder:
    """What an exporter made of a checkpoint: its fp32 graph, not yet in serving form.

    Attributes:
        max_len: positions that the model has, in tokens.
    """

    model: ir.Model
    layers: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_len: int


def to_serving_form(model: ir.Model, head_dim: int, windows: Sequence[int]) -> None:
    """Rewrite ``model`` in place.

    Args:
        windows: per layer, how many tokens back attention reaches, -1 without a limit; the
            builder leaves it out for some families that have one.

    Raises:
        UnsupportedGraph: it is not a plain decoder around GroupQueryAttention.
    """
    graph = model.graph
    _check_inputs(graph)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    passes.DeduplicateInitializersPass(size_limit=64)(model)
    attention = [node for node in graph if node.op_type == ATTENTION]
    if not attention:
        raise UnsupportedGraph(f"it has no {ATTENTION} node")
    if len(attention) != len(windows):
        raise UnsupportedGraph(f"it has {len(attention)} attentions in {len(windows)} layers")
    seqlens = add_input(graph, "seqlens_k", ir.DataType.INT32, ["batch_size"])
    total = add_input(graph, "total_sequence_length", ir.DataType.INT32, [])
    for node, window in zip(attention, windows, strict=True):
        node.replace_input_with(SEQLENS_INPUT, seqlens)
        node.replace_input_with(TOTAL_INPUT, total)
        node.attributes["local_window_size"] = ir.AttrInt64("local_window_size", window)
    _derive_position_ids(graph, seqlens)
    _shape_caches(graph, attention, head_dim)
    store_embedding_compactly(graph)
    pick_rows(graph, attention)
    passes.RemoveUnusedNodesPass()(model)
    _drop_input(graph, "attention_mask", why="it uses the attention mask outside attention")
    graph.sort()


def add_input(graph: ir.Graph, name: str, dtype: ir.DataType, shape: list[str | int]) -> ir.Value:
    """Add a graph input and return it."""
    value = ir.val(name, dtype=dtype, shape=shape)
    graph.inputs.append(value)
    return value


def add_initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Register ``tensor`` under ``name``, or return the one that already has the name."""
    if name in graph.initializers:
        return graph.initializers[name]
    value = ir.val(name, const_value=tensor)
    graph.register_initializer(value)
    return value


def add_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register a numpy array as initializer ``name``."""
    return add_initializer(graph, name, ir.tensor(array, name=name))


def _check_inputs(graph: ir.Graph) -> None:
    unknown = [v.name for v in graph.inputs if not _KNOWN_INPUTS.fullmatch(v.name or "")]
    if unknown:
        raise UnsupportedGraph(f"it has inputs beyond tokens and attention caches: {unknown}")
    layers = {int(name.split(".")[1]) for name in _names(graph.inputs) if name.startswith("past_")}
    if layers != set(range(len(layers))):
        raise UnsupportedGraph(f"only some of its layers have a cache: {sorted(layers)}")


def _names(values: Iterable[ir.Value]) -> list[str]:
    return [value.name or "" for value in values]


def _derive_position_ids(graph: ir.Graph, seqlens: ir.Value) -> None:
    """Compute position_ids [B, S] as length - S + 0..S-1, where the graph asks for them."""
    given = next((v for v in graph.inputs if v.name == "position_ids"), None)
    if given is None:
        return
    if len(given.uses()) == 0:
        graph.inputs.remove(given)
        return
    if given.shape is None or len(given.shape) != 2:
        raise UnsupportedGraph("its position ids have more than one component per token")
    tokens = next(v for v in graph.inputs if v.name == "input_ids")
    zero, one = (add_constant(graph, f"positions/{i}", np.array(i, np.int64)) for i in (0, 1))
    last = add_constant(graph, "positions/axis", np.array([1], np.int64))
    shape = ir.node("Shape", [tokens], attributes={"start": 1, "end": 2})
    count = ir.node("Squeeze", [shape.outputs[0]])
    steps = ir.node("Range", [zero, count.outputs[0], one])
    wide = ir.node("Cast", [seqlens], attributes={"to": ir.DataType.INT64})
    length = ir.node("Add", [wide.outputs[0], one])
    start = ir.node("Sub", [length.outputs[0], count.outputs[0]])
    column = ir.node("Unsqueeze", [start.outputs[0], last])
    positions = ir.node("Add", [column.outputs[0], steps.outputs[0]])
    first = graph.node(0)
    graph.insert_before(first, [shape, count, steps, wide, length, start, column, positions])
    given.replace_all_uses_with(positions.outputs[0])
    graph.inputs.remove(given)


def _shape_caches(graph: ir.Graph, attention: list[ir.Node], head_dim: int) -> None:
    """Give every cache the one shape [batch, kv_heads, max_len, head_dim]."""
    heads = {node.attributes["kv_num_heads"].as_int() for node in attention}
    if len(heads) != 1:
        raise UnsupportedGraph(f"its layers differ in key-value heads: {sorted(heads)}")
    for value in (*graph.inputs, *graph.outputs):
        if (value.name or "").startswith(("past_key_values.", "present.")):
            value.shape = ir.Shape(["batch_size", *heads, "max_len", head_dim])


def _drop_input(graph: ir.Graph, name: str, why: str) -> None:
    value = next((v for v in graph.inputs if v.name == name), None)
    if value is None:
        return
    if value.uses():
        raise UnsupportedGraph(why)
    graph.inputs.remove(value)


def narrowest_exact(array: np.ndarray) -> ir.DataType:
    """The smallest float type that holds every value of an fp32 array exactly."""
    flat = np.ascontiguousarray(array, dtype=np.float32)
    with np.errstate(over="ignore"):
        if np.array_equal(flat.astype(np.float16).astype(np.float32), flat):
            return ir.DataType.FLOAT16
    if not np.any(flat.view(np.uint32) & 0xFFFF):
        return ir.DataType.BFLOAT16
    return ir.DataType.FLOAT


def store_embedding_compactly(graph: ir.Graph) -> None:
    """Hold the token table [vocab, hidden] in the narrowest exact type, widened after lookup.

    A tied model arrives with the table as a transposed view of the vocabulary matrix, which
    would be transposed again on every load.
    """
    lookup = embedding_lookup(graph)
    source = lookup.inputs[0]
    assert source is not None
    producer = source.producer()
    if producer is None:
        array = constant_array(source)
    elif producer.op_type == "Transpose" and producer.inputs[0] is not None:
        array = np.ascontiguousarray(constant_array(producer.inputs[0]).T)
    else:
        raise UnsupportedGraph(f"its token table comes from a {producer.op_type} node")
    dtype = narrowest_exact(array)
    name = "token_table"
    narrow = ir.tensor(array.astype(dtype.numpy()), dtype=dtype, name=name)
    lookup.replace_input_with(0, add_initializer(graph, name, narrow))
    if dtype == ir.DataType.FLOAT:
        return
    rows = lookup.outputs[0]
    widen = ir.node("Cast", [rows], attributes={"to": ir.DataType.FLOAT})
    rows.replace_all_uses_with(widen.outputs[0])
    widen.replace_input_with(0, rows)
    rows.dtype = dtype
    graph.insert_after(lookup, widen)


def embedding_lookup(graph: ir.Graph) -> ir.Node:
    """The Gather that turns token ids into rows of the token table."""
    tokens = next(v for v in graph.inputs if v.name == "input_ids")
    for node in tokens.consumers():
        if node.op_type == "Gather" and len(node.inputs) == 2 and node.inputs[1] is tokens:
            return node
    raise UnsupportedGraph("it does not look tokens up in a table")


def constant_array(value: ir.Value) -> np.ndarray:
    """The numpy form of an initializer; raises UnsupportedGraph for anything computed."""
    if value.const_value is None:
        raise UnsupportedGraph(f"{value.name} is computed where a weight was expected")
    array: np.ndarray = value.const_value.numpy()
    return array


def pick_rows(graph: ir.Graph, attention: list[ir.Node]) -> None:
    """Add ``logit_idx`` and keep only its rows in everything after the last attention."""
    logits = next((v for v in graph.outputs if v.name == "logits"), None)
    if logits is None:
        raise UnsupportedGraph("it has no output called logits")
    before = _ancestors(attention)
    producer = logits.producer()
    assert producer is not None
    after = [node for node in _ancestors([producer]) if node not in before]
    mixing = sorted({node.op_type for node in after if node.op_type not in _ROW_WISE})
    if mixing:
        raise UnsupportedGraph(f"it mixes positions after its last attention: {mixing}")
    entering = {
        value: None
        for node in after
        for value in node.inputs
        if value is not None and value.producer() is not None and value.producer() in before
    }
    wanted = add_input(graph, "logit_idx", ir.DataType.INT64, ["n"])
    inside = set(after)
    for number, value in enumerate(entering):
        picked = _pick(graph, value, wanted, number)
        for use in list(value.uses()):
            if use.node in inside:
                use.node.replace_input_with(use.idx, picked)
    flat = ir.node("Squeeze", [logits, add_constant(graph, "rows/axis", np.array([0], np.int64))])
    vocab = logits.shape[-1] if logits.shape is not None else None
    logits.name = "logits_3d"
    logits.shape = None
    result = flat.outputs[0]
    result.name, result.dtype = "logits", ir.DataType.FLOAT
    result.shape = ir.Shape(["n", vocab])
    graph.outputs[graph.outputs.index(logits)] = result
    graph.insert_after(producer, flat)


def _pick(graph: ir.Graph, value: ir.Value, wanted: ir.Value, number: int) -> ir.Value:
    """Rows ``wanted`` of ``value`` [B, S, width] as [1, n, width]."""
    if value.shape is None or not isinstance(value.shape[-1], int):
        raise UnsupportedGraph(f"the width of {value.name} is unknown")
    shape = np.array([1, -1, value.shape[-1]], np.int64)
    flat = ir.node("Reshape", [value, add_constant(graph, f"rows/shape_{value.shape[-1]}", shape)])
    picked = ir.node("Gather", [flat.outputs[0], wanted], attributes={"axis": 1})
    producer = value.producer()
    assert producer is not None
    graph.insert_after(producer, [flat, picked])
    return picked.outputs[0]


def _ancestors(nodes: Iterable[ir.Node]) -> dict[ir.Node, None]:
    """``nodes`` and everything they are computed from, without duplicates."""
    seen: dict[ir.Node, None] = {}
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen[node] = None
        stack += [p for v in node.inputs if v is not None and (p := v.producer()) is not None]
    return seen
