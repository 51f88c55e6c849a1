"""Which 8-bit matrix product is exact on this CPU, and the session settings that choose it.

Per-token int8 models multiply unsigned activations by signed weights. CPUs with VNNI (and
ARM) sum those exactly and fast. AVX2 alone adds pairs in 16 bits, which saturates, so there
onnxruntime has to turn the weights into unsigned ones while it loads the model: exact, but
slower. The choice is made by running one saturating product, not by reading CPU flags.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

Kernel = Literal["u8s8", "u8u8"]

_DEPTH, _WIDTH = 64, 16
# An ONNX model of one node, o[m, 16] = MatMulInteger(x[m, 64] uint8, w[64, 16] int8 of 127s):
# what protobuf puts before the weights, the weights, and what follows them.
_PROBE = (
    bytes.fromhex(
        "080812003ad8080a180a01780a017712016f220d4d61744d756c496e74656765721201702a8c"
        "080840081010034201774a8008"
    )
    + bytes([127]) * (_DEPTH * _WIDTH)
    + bytes.fromhex(
        "5a140a0178120f0a0d080212090a0312016d0a02084062140a016f120f0a0d080612090a0312"
        "016d0a02081042040a00100d"
    )
)


@cache
def int8_kernel() -> Kernel:
    """``u8s8`` where that product is exact on this CPU, else ``u8u8``. Takes about 1 ms."""
    import numpy as np
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(_PROBE, options, providers=["CPUExecutionProvider"])
    for rows in (1, 8):  # one row and several take different kernels
        ones = np.full((rows, _DEPTH), 255, np.uint8)
        if (session.run(None, {"x": ones})[0] != 255 * 127 * _DEPTH).any():
            return "u8u8"
    return "u8s8"


def session_entries() -> dict[str, str]:
    """Session configuration with which every prepared model is exact on this CPU."""
    return {"session.x64quantprecision": "1" if int8_kernel() == "u8u8" else "0"}
