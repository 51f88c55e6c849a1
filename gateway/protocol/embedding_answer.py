"""The answer of ``POST /v1/embeddings`` as JSON."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def embedding_answer(
    vectors: NDArray[np.float32], model: str, tokens: int, *, as_base64: bool
) -> bytes:
    """The body for vectors float32 [n, dimensions] of ``tokens`` prompt tokens.

    Floats are written with the fewest digits that give the same float32 back.
    """
    shown: list[Any] = list(vectors)
    if as_base64:
        little = vectors.astype("<f4", copy=False)
        shown = [base64.b64encode(row.tobytes()).decode("ascii") for row in little]
    return orjson.dumps(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector}
                for index, vector in enumerate(shown)
            ],
            "model": model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
