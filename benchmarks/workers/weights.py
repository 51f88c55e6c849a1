"""How many bytes of weights an ONNX graph reads for one decoded token."""

from __future__ import annotations

from pathlib import Path

_LOOKUPS = {"Gather", "GatherBlockQuantized"}


def onnx_weight_bytes(path: Path) -> int:
    """Bytes of all initialisers but those only looked up by row, such as the embedding."""
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    uses: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            uses.setdefault(name, set()).add(node.op_type)
    total = 0
    for tensor in graph.initializer:
        if uses.get(tensor.name, set()) <= _LOOKUPS:
            continue
        count = 1
        for dim in tensor.dims:
            count *= dim
        bits = 4 if tensor.data_type in (onnx.TensorProto.INT4, onnx.TensorProto.UINT4) else None
        if bits is None:
            bits = 8 * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        total += count * bits // 8
    return total
