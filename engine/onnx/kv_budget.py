"""How many tokens running sequences may hold together."""

from __future__ import annotations

from pathlib import Path

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.onnx.hardware import available_memory
from engine.onnx.prefix_cache import BLOCK
from engine.onnx.prepared import PreparedModel
from engine.onnx.scheduler import blocks_for

# Of the memory that the weights leave; the rest is for the prefix cache and everything else.
_SHARE_OF_MEMORY = 0.6


def kv_tokens(config: EngineConfig, model: PreparedModel, max_len: int) -> int:
    """The bound that ``config`` sets, or else every sequence at full length as far as memory
    goes; in whole blocks. Raises EngineStartError when that is nothing."""
    wanted = config.kv_cache_tokens
    if wanted is None:
        wanted = config.max_num_seqs * max_len
        memory = available_memory()
        if memory is not None:
            left = (memory - _size_of(model.folder)) * _SHARE_OF_MEMORY
            wanted = min(wanted, int(left) // model.manifest.kv_bytes_per_token)
    if wanted < BLOCK:
        raise EngineStartError(
            f"there is KV memory for {max(0, wanted)} tokens only, and {BLOCK} is the least: "
            "raise kv_cache_tokens or free memory"
        )
    return blocks_for(wanted) * BLOCK


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
