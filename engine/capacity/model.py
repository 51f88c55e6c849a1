"""Where a model comes from: a folder, a hub id, a ``config.json``, or the bundled one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base import EngineStartError
from engine.capacity import CapacityError
from engine.capacity.architecture import Architecture, read_architecture, text_config
from engine.capacity.families import experts_of, from_config, is_tied
from engine.capacity.weights import Weights, from_headers
from engine.models.find import BundledModel, HubModel, locate
from engine.vllm.checkpoint import Checkpoint, family_of

# Bits of one weight of a quantised family, for a config without its files.
_FAMILY_METHOD = {"fp8": "fp8", "fp8_block": "fp8", "int8": "int8", "w4a16": "awq"}


@dataclass(frozen=True, slots=True)
class Model:
    """A model to plan for.

    Attributes:
        source: what was asked for, as MODEL_NAME would take it where it can.
        folder: where its files are, or None where there is only a config.
        checkpoint: the same for the checks of ``engine.vllm``.
    """

    source: str
    folder: Path | None
    architecture: Architecture
    weights: Weights
    checkpoint: Checkpoint

    def method(self, quantization: str) -> str:
        """none, fp8, int8 or awq: how the weights lie in memory under ``quantization``."""
        if self.checkpoint.family != "none":
            return _FAMILY_METHOD.get(self.checkpoint.family, "none")
        return "none" if quantization == "auto" else quantization


def open_model(source: str, revision: str | None = None) -> Model:
    """Read what there is of ``source``; of a hub model only its config and, where the hub has
    been asked before, the cached files.

    Raises CapacityError: not found, not a model's config, or a family not covered.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _described(source, None, _json(path))
    try:
        place = locate(source, revision)
    except EngineStartError as error:
        raise CapacityError(
            f"{source} is neither a folder, a config.json, a hub id such as org/name, nor bundled "
            f"({error})"
        ) from error
    if isinstance(place, BundledModel):
        return _described(source, place.checkpoint, _json(place.checkpoint / "config.json"))
    if isinstance(place, HubModel):
        return _from_hub(place)
    if not (place.path / "config.json").is_file():
        raise CapacityError(
            f"{source} has no config.json: give a folder in Hugging Face layout (for a folder "
            "prepared for the ONNX engine, the checkpoint that it was made from)"
        )
    return _described(source, place.path, _json(place.path / "config.json"))


def _from_hub(place: HubModel) -> Model:
    from huggingface_hub import hf_hub_download

    from engine.models.hub import explained

    try:
        with explained(place.id, place.revision):
            endpoint = os.environ.get("HF_ENDPOINT")
            found = hf_hub_download(
                place.id, "config.json", revision=place.revision, endpoint=endpoint
            )
    except EngineStartError as error:
        raise CapacityError(f"{error}; its config.json alone is enough: give that file") from error
    config = Path(found)
    return _described(place.id, _with_weights(config.parent), _json(config))


def _with_weights(snapshot: Path) -> Path | None:
    """The cache's folder, if all weights have been downloaded into it before."""
    try:
        return snapshot if from_headers(snapshot) else None
    except CapacityError:
        return None


def _described(source: str, folder: Path | None, config: dict[str, Any]) -> Model:
    architecture = read_architecture(config)
    text = text_config(config)
    quantization = config.get("quantization_config") or text.get("quantization_config")
    family, name = family_of(quantization if isinstance(quantization, Mapping) else None)
    tensors = from_headers(folder) if folder is not None else ()
    experts, chosen = experts_of(config)
    tied = is_tied(config) or (bool(tensors) and not any(t.role == "head" for t in tensors))
    common = (tied, experts, chosen, architecture.dtype_bytes, _kv_heads(architecture))
    if tensors and family == "none":
        weights = Weights(tensors, "headers", "none", *common)
    else:
        weights = Weights(from_config(config), "config", "none", *common)
        if tensors:  # packed: their shapes do not tell how many weights there are
            weights = Weights(tensors, "headers", family, *common, weights.multiplied)
    checkpoint = Checkpoint(source, family, name, weights.stored_bytes, config)
    return Model(source, folder, architecture, weights, checkpoint)


def _kv_heads(architecture: Architecture) -> int:
    return max((x.kv_heads for x in architecture.layers if x.kind != "state"), default=1)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CapacityError(f"{path} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise CapacityError(f"{path} does not hold a JSON object: give a model's config.json")
    return value
