"""What a checkpoint says of itself, read from its config without loading it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.base import EngineStartError

# Families that are judged alike. ``other`` is left to vLLM.
Family = Literal["none", "fp8", "fp8_block", "int8", "w4a16", "other"]

_DTYPE_BYTES = {"float32": 4, "float": 4, "bfloat16": 2, "float16": 2, "half": 2}
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in Hugging Face layout.

    Attributes:
        source: folder or hub id.
        family: how its weights are quantised.
        method: the same in the checkpoint's own words, ``none`` for an unquantised one.
        weight_bytes: size of the weight files; 0 when unknown.
        config: ``config.json``.
    """

    source: str
    family: Family
    method: str
    weight_bytes: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> Mapping[str, Any]:
        """The language model's part of the config."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.config

    @property
    def dtype(self) -> str:
        """Type of the unquantised weights, as the config says."""
        for part in (self.config, self.text):
            if name := part.get("dtype") or part.get("torch_dtype"):
                return str(name).removeprefix("torch.")
        return "float32"

    @property
    def max_model_len(self) -> int | None:
        """Largest context by the config; None where it has no plain number for it."""
        value = self.text.get("max_position_embeddings")
        return int(value) if isinstance(value, int) else None

    def kv_bytes_per_token(self, dtype: str, kv_cache_dtype: str) -> int | None:
        """Bytes of KV cache per token over all layers; None where the shape is unusual.

        Sliding windows are counted as full attention, so this is an upper bound.
        """
        text = self.text
        try:
            layers = int(text["num_hidden_layers"])
            if rank := text.get("kv_lora_rank"):
                width = int(rank) + int(text.get("qk_rope_head_dim") or 0)
            else:
                heads = int(text["num_attention_heads"])
                kv_heads = int(text.get("num_key_value_heads") or heads)
                head = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
                width = 2 * kv_heads * head
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            return None
        if kv_cache_dtype.startswith("fp8"):
            return layers * width
        name = self.dtype if dtype == "auto" else dtype
        if kv_cache_dtype in _DTYPE_BYTES:
            name = kv_cache_dtype
        # vLLM serves float32 checkpoints in 16 bits unless told otherwise.
        size = 2 if dtype == "auto" and name == "float32" else _DTYPE_BYTES.get(name, 2)
        return layers * width * size


def family_of(quantization: Mapping[str, Any] | None) -> tuple[Family, str]:
    """Family and method of a ``quantization_config``; None is an unquantised checkpoint."""
    if not quantization:
        return "none", "none"
    method = str(quantization.get("quant_method", "unknown"))
    if method == "awq":
        return ("w4a16" if quantization.get("bits", 4) == 4 else "other"), "AWQ"
    if method == "fp8":
        return ("fp8_block" if quantization.get("weight_block_size") else "fp8"), "fp8"
    if method == "compressed-tensors":
        found = {_compressed(group) for group in quantization.get("config_groups", {}).values()}
        family = found.pop() if len(found) == 1 else "other"
        return family, f"compressed-tensors {family}" if family != "other" else method
    return "other", method


def _compressed(group: Mapping[str, Any]) -> Family:
    weights = group.get("weights") or {}
    activations = group.get("input_activations")
    kind, bits = weights.get("type"), weights.get("num_bits")
    if kind == "float" and bits == 8:
        return "fp8_block" if weights.get("strategy") == "block" else "fp8"
    if kind == "int" and bits == 8 and activations:
        return "int8"
    if kind == "int" and bits == 4 and not activations:
        return "w4a16"
    return "other"


def read(model: str, revision: str | None = None) -> Checkpoint:
    """Read ``config.json`` of a folder, or of a hub id through the local cache.

    Raises EngineStartError when there is none.
    """
    folder = Path(model)
    if folder.is_dir():
        path = folder / "config.json"
        if not path.is_file():
            raise EngineStartError(
                f"{model} has no config.json: MODEL_NAME must be a folder in Hugging Face "
                "layout, a hub id, or bundled"
            )
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    else:
        path = Path(_from_hub(model, "config.json", revision))
        weights = _hub_weights(model, revision)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EngineStartError(f"config.json of {model} is not JSON: {error}") from None
    text = config.get("text_config") or {}
    quantization = config.get("quantization_config") or text.get("quantization_config")
    family, method = family_of(quantization)
    return Checkpoint(model, family, method, weights, config)


def _from_hub(model: str, file: str, revision: str | None) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(model, file, revision=revision))
    except Exception as error:
        at = f" at revision {revision}" if revision else ""
        raise EngineStartError(
            f"cannot read {file} of {model}{at} from the hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}): check MODEL_NAME, "
            "REVISION, HF_TOKEN and the network, or set MODEL_NAME to a folder"
        ) from None


def _hub_weights(model: str, revision: str | None) -> int:
    """Bytes of a sharded checkpoint's weights; 0 where there is no index."""
    try:
        index = Path(_from_hub(model, _INDEX, revision))
        return int(json.loads(index.read_text(encoding="utf-8"))["metadata"]["total_size"])
    except (EngineStartError, KeyError, TypeError, ValueError):
        return 0
