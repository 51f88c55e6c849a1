"""Prints what the installed vLLM makes of layers given as JSON; a process of its own, since
importing vLLM changes loggers and warns.

stdin: {name: [[kind, kv_heads, head_size, window], ...]}; stdout: {name: {groups, layers, page,
full, sliding_blocks}} for a window of the model and 4,096 tokens.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def spec(kind: str, kv_heads: int, head_size: int, window: int | None) -> Any:
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec

    shape: dict[str, Any] = {
        "block_size": 16,
        "num_kv_heads": kv_heads,
        "head_size": head_size,
        "dtype": torch.bfloat16,
    }
    if kind == "sliding":
        return SlidingWindowSpec(**shape, sliding_window=window)
    return (MLAAttentionSpec if kind == "mla" else FullAttentionSpec)(**shape)


def described(layers: list[list[Any]]) -> dict[str, int]:
    from vllm.v1.core.kv_cache_utils import _get_kv_cache_groups_uniform_page_size

    specs = {f"layer.{i}": spec(*layer) for i, layer in enumerate(layers)}
    groups = _get_kv_cache_groups_uniform_page_size(specs)
    return {
        "groups": len(groups),
        "full": sum(not hasattr(g.kv_cache_spec, "extra_retained_tokens") for g in groups),
        "layers": max(len(g.layer_names) for g in groups),
        "page": next(iter(specs.values())).page_size_bytes,
    }


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print("ANSWER " + json.dumps({name: described(layers) for name, layers in asked.items()}))
