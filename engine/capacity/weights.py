"""A model's weights by role: exact bytes from safetensors headers, else from the config.

Roles decide what a quantisation touches and what tensor parallelism splits. The rules are
vLLM's: projections inside the layers are quantised; the token table, the head, norms, biases
and a mixture's router stay in 16 bits.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.capacity import CapacityError

Role = Literal["linear", "expert", "head", "embedding", "other"]
Split = Literal["split", "kv", "copy"]

_EMBEDDING = re.compile(r"embed_tokens|\bwte\b|word_embeddings|embed_in\b|\bwpe\b|embed_positions")
_HEAD = re.compile(r"lm_head|embed_out|\boutput_layer\b")
_LAYER = re.compile(r"\b(layers|h|blocks)\.\d+\.")
_EXPERT = re.compile(r"\bexperts\b")
_NOT_QUANTISED = re.compile(
    r"norm|\bln_|\bgate\.weight|router|\bconv1d|vision|visual|shared_expert_gate|attn\.(masked_)?bias"
)
_KV = re.compile(r"\b(k_proj|v_proj)\b")
_COPIED = re.compile(r"q_a_proj|kv_a_proj|norm|\bln_|\bgate\.weight|router")
# Of the quantisation groups of AWQ: a 16-bit scale and a 4-bit zero per 128 weights.
_AWQ_BYTES = 0.5 + 2 / 128 + 0.5 / 128


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored weight; ``bits`` is what the checkpoint keeps per element."""

    name: str
    shape: tuple[int, ...]
    bits: int
    role: Role
    split: Split

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def stored(self) -> int:
        return self.elements * self.bits // 8


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a model.

    Attributes:
        source: ``headers`` or ``config``.
        family: how the checkpoint is quantised, as ``engine.vllm.checkpoint`` says it.
        experts, experts_per_token: of a mixture; 1 and 1 for a dense model.
        kv_heads: into how many parts keys' and values' projections can be split.
        known_multiplied: ``multiplied``, where packed tensors do not tell it.
    """

    tensors: tuple[Tensor, ...]
    source: Literal["headers", "config"]
    family: str = "none"
    tied: bool = False
    experts: int = 1
    experts_per_token: int = 1
    dtype_bytes: int = 2
    kv_heads: int = 1
    known_multiplied: float | None = None

    @property
    def parameters(self) -> int:
        return sum(t.elements for t in self.tensors)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the tensors in the files."""
        return sum(t.stored for t in self.tensors)

    @property
    def multiplied(self) -> float:
        """Weights that one token is multiplied with: projections, its experts, the head."""
        if self.known_multiplied is not None:
            return self.known_multiplied
        share = self.experts_per_token / self.experts
        dense = sum(t.elements for t in self.tensors if t.role == "linear")
        routed = sum(t.elements for t in self.tensors if t.role == "expert")
        return dense + routed * share + self._head_elements

    def served_bytes(self, method: str, tensor_parallel: int = 1) -> int:
        """Bytes on each GPU once loaded. ``method``: none, fp8, int8 or awq; the checkpoint's
        own for one that is quantised already."""
        return round(sum(self._served(t, method, tensor_parallel) for t in self.tensors))

    def read_parts(self, method: str, tensor_parallel: int = 1) -> tuple[float, float]:
        """Bytes on each GPU that every step reads, and bytes of all routed experts.

        Of the token table only single rows are read, unless it is the head as well.
        """
        always = routed = 0.0
        for tensor in self.tensors:
            if tensor.role == "expert":
                routed += self._served(tensor, method, tensor_parallel)
            elif tensor.role != "embedding" or self.tied:
                always += self._served(tensor, method, tensor_parallel)
        return always, routed

    def experts_hit(self, rows: float) -> float:
        """Share of the experts that a step of ``rows`` tokens reads: with independent choices
        each is missed with probability (1 - k/E)^rows."""
        missed: float = (1 - self.experts_per_token / self.experts) ** rows
        return 1 - missed

    @property
    def _head_elements(self) -> int:
        role = "embedding" if self.tied else "head"
        return max((t.elements for t in self.tensors if t.role == role), default=0)

    def _served(self, tensor: Tensor, method: str, tensor_parallel: int) -> float:
        kv_ways = min(tensor_parallel, self.kv_heads)
        ways = {"copy": 1, "split": tensor_parallel, "kv": kv_ways}[tensor.split]
        return self._bytes(tensor, method) / ways

    def _bytes(self, tensor: Tensor, method: str) -> float:
        if self.family != "none":
            return tensor.stored
        plain = tensor.elements * self.dtype_bytes
        if tensor.role not in ("linear", "expert"):
            return plain
        if method == "fp8":
            return tensor.elements + 4
        if method == "int8":
            return tensor.elements + 4 * tensor.shape[-2]
        if method == "awq":
            return tensor.elements * _AWQ_BYTES
        return plain


def role_of(name: str, shape: tuple[int, ...]) -> tuple[Role, Split]:
    """What a tensor is, by the names that transformers gives."""
    split: Split = "copy"
    if _HEAD.search(name) and len(shape) == 2:
        return "head", "split"
    if _EMBEDDING.search(name):
        return "embedding", "split"
    if len(shape) < 2 or not _LAYER.search(name) or _NOT_QUANTISED.search(name):
        return "other", "copy"
    if not _COPIED.search(name):
        split = "kv" if _KV.search(name) else "split"
    return ("expert" if _EXPERT.search(name) else "linear"), split


def tensor(name: str, shape: Iterable[int], bits: int = 16) -> Tensor:
    """A tensor with its role told from its name."""
    dimensions = tuple(shape)
    return Tensor(name, dimensions, bits, *role_of(name, dimensions))


def from_headers(folder: Path) -> tuple[Tensor, ...]:
    """Every tensor of a folder's safetensors files; reads the headers only.

    Raises CapacityError where a file is missing, damaged or cut short.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CapacityError(f"{index} cannot be read ({error}): copy it again") from error
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if missing := [file.name for file in files if not file.is_file()]:
        raise CapacityError(f"{folder} lacks {', '.join(missing)}: copy the missing files")
    return tuple(found for file in files for found in _header(file))


def _header(path: Path) -> list[Tensor]:
    damaged = f"{path} is damaged or cut short: download or copy it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise CapacityError(damaged)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        if max(ends, default=0) != size - 8 - length:
            raise CapacityError(damaged)
        found = []
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            elements = math.prod(entry["shape"])
            bits = 8 * (end - start) // elements if elements else 8
            found.append(tensor(name, entry["shape"], bits))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise CapacityError(damaged) from error
    return found
