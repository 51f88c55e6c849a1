"""Exact KV memory, per token and per sequence, and vLLM's blocks of it.

Sources: the shapes are those of vLLM's ``AttentionSpec``, ``MLAAttentionSpec`` and ``MambaSpec``
(vllm/v1/kv_cache_interface.py); how layers of several kinds share one pool of equal blocks is
``_get_kv_cache_groups_uniform_page_size`` (vllm/v1/core/kv_cache_utils.py). A test compares
both with the installed vLLM.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.capacity import CapacityError
from engine.capacity.architecture import Architecture, Layer

BLOCK = 16  # vLLM's CacheConfig.DEFAULT_BLOCK_SIZE
# Groups are padded to the larger kind's size when kinds differ by less than this.
_NEARLY_EQUAL = 1.5


@dataclass(frozen=True, slots=True)
class KvLayout:
    """How vLLM lays out the KV of a model on one GPU.

    A block holds ``block_size`` tokens of the ``group_layers`` layers of one group; a sequence
    takes blocks of every group.

    Attributes:
        bytes_per_token: over all layers, each at full length; grows with every token.
        full_bytes_per_token: the part of it that goes on growing past the window.
        state_bytes: per sequence, whatever its length.
        block_bytes: of one block of one group.
        full_groups, window_groups, state_groups: groups of each kind.
    """

    bytes_per_token: int
    full_bytes_per_token: int
    state_bytes: int
    window: int | None
    block_size: int
    block_bytes: int
    group_layers: int
    full_groups: int
    window_groups: int
    state_groups: int

    def sequence_bytes(self, tokens: int) -> int:
        """Bytes of the KV that a sequence of ``tokens`` needs, not rounded to blocks."""
        seen = tokens if self.window is None else min(tokens, self.window)
        sliding = self.bytes_per_token - self.full_bytes_per_token
        return self.full_bytes_per_token * tokens + sliding * seen + self.state_bytes

    def blocks(self, tokens: int) -> int:
        """Blocks that a decoding sequence of ``tokens`` holds."""
        whole = math.ceil(tokens / self.block_size)
        windowed = whole if self.window is None else min(whole, self.window_blocks)
        return self.full_groups * whole + self.window_groups * windowed + self.state_groups

    @property
    def window_blocks(self) -> int:
        """Most blocks of one sliding group: the window need not begin at a block's border."""
        return math.ceil((self.window or 0) / self.block_size) + 1


def heads_per_gpu(kv_heads: int, tensor_parallel: int) -> int:
    """KV heads that one GPU holds; with more GPUs than heads each is kept several times."""
    return max(1, kv_heads // tensor_parallel)


def token_bytes(layer: Layer, dtype_bytes: int, tensor_parallel: int = 1) -> int:
    """Bytes of one token in one layer on one GPU. A latent is kept whole on every GPU."""
    if layer.kind == "state":
        return 0
    width = layer.key_dim + layer.value_dim
    heads = 1 if layer.kind == "mla" else heads_per_gpu(layer.kv_heads, tensor_parallel)
    return heads * width * dtype_bytes + layer.extra_bytes


def layout(
    architecture: Architecture, kv_dtype: str = "auto", tensor_parallel: int = 1, block: int = BLOCK
) -> KvLayout:
    """The layout on each of ``tensor_parallel`` GPUs.

    Args:
        kv_dtype: ``KV_CACHE_DTYPE``: auto (the model's), fp8..., bfloat16, float16, float32.

    Raises CapacityError where the heads cannot be divided so.
    """
    check_parallel(architecture, tensor_parallel)
    size = dtype_size(kv_dtype, architecture.dtype_bytes)
    layers = architecture.layers
    states = [layer for layer in layers if layer.kind == "state"]
    sliding = [layer for layer in layers if layer.kind == "sliding"]
    full = [layer for layer in layers if layer.kind in ("full", "mla")]
    attention = full + sliding
    per_layer = max((token_bytes(x, size, tensor_parallel) for x in attention), default=0)
    state = max((x.state_bytes // tensor_parallel for x in states), default=0)
    if states and per_layer:
        # Blocks of all groups are equally large, so attention's grow to hold a state.
        block = max(block, math.ceil(state / per_layer / block) * block)
    kinds = [len(kind) for kind in (full, sliding, states) if kind]
    group = min(kinds)
    if max(kinds) < group * _NEARLY_EQUAL:
        group = max(kinds)
    return KvLayout(
        bytes_per_token=sum(token_bytes(x, size, tensor_parallel) for x in attention),
        full_bytes_per_token=sum(token_bytes(x, size, tensor_parallel) for x in full),
        state_bytes=sum(x.state_bytes // tensor_parallel for x in states),
        window=architecture.window,
        block_size=block,
        block_bytes=max(block * per_layer, state) * group,
        group_layers=group,
        full_groups=math.ceil(len(full) / group),
        window_groups=math.ceil(len(sliding) / group),
        state_groups=math.ceil(len(states) / group),
    )


def dtype_size(kv_dtype: str, model_bytes: int) -> int:
    """Bytes of one stored value. Raises CapacityError for a type that is not known."""
    if kv_dtype == "auto":
        return model_bytes
    if kv_dtype.startswith("fp8"):
        return 1
    sizes = {"bfloat16": 2, "float16": 2, "float32": 4}
    if kv_dtype not in sizes:
        raise CapacityError(
            f"the KV dtype {kv_dtype} is not known: take auto, fp8, bfloat16, float16 or float32"
        )
    return sizes[kv_dtype]


def check_parallel(architecture: Architecture, tensor_parallel: int) -> None:
    """Raise CapacityError unless vLLM can split the heads over so many GPUs."""
    heads = architecture.heads
    if heads % tensor_parallel:
        fits = [n for n in (1, 2, 4, 8, 16) if heads % n == 0]
        raise CapacityError(
            f"{heads} attention heads cannot be split over {tensor_parallel} GPUs: take "
            f"{', '.join(map(str, fits))}"
        )
    for layer in architecture.layers:
        kv = layer.kv_heads
        if layer.kind in ("full", "sliding") and kv % tensor_parallel and tensor_parallel % kv:
            raise CapacityError(
                f"{kv} KV heads cannot be split over or repeated on {tensor_parallel} GPUs: take "
                "a number of GPUs that divides them or is a multiple of them"
            )
