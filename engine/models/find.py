"""What ``MODEL_NAME`` refers to, and whether it can be served: checks that cost no imports.

Nothing here loads torch, transformers or onnx. Every failure is an EngineStartError that
says in one sentence what is wrong and what to do about it.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from engine.base import EngineStartError

BUNDLED_NAME = "bundled"
BUNDLED_ROOT = Path(__file__).parent / "bundled"
CHECKPOINT_NAME = "tiny-chat"
SHIPPED_NAME = "onnx"

# Each is converted in tests/models_convert and compared with transformers.
FAMILIES: dict[str, str] = {
    "LlamaForCausalLM": "Llama 2 and 3, SmolLM2, TinyLlama, Yi, DeepSeek-LLM",
    "MistralForCausalLM": "Mistral, Ministral",
    "Qwen2ForCausalLM": "Qwen2, Qwen2.5",
    "Qwen3ForCausalLM": "Qwen3",
    "GemmaForCausalLM": "Gemma",
    "Gemma2ForCausalLM": "Gemma 2",
    "Gemma3ForCausalLM": "Gemma 3 (text)",
    "PhiForCausalLM": "Phi-1, Phi-1.5, Phi-2",
    "Phi3ForCausalLM": "Phi-3, Phi-4",
    "GraniteForCausalLM": "Granite",
    "GPT2LMHeadModel": "GPT-2, DistilGPT2",
}
CONVERT_MODULES = ("torch", "transformers", "onnxruntime_genai", "onnx", "onnx_ir", "safetensors")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
_FLOAT_TYPES = {"F64", "F32", "F16", "BF16"}
_INDEX_TYPES = {"I64"}  # constant position ids, which older checkpoints of encoders hold
MASKS = (".attn.bias", ".attn.masked_bias")  # constants that older checkpoints of GPT-2 hold


@dataclass(frozen=True, slots=True)
class BundledModel:
    """The model that comes with this package."""

    checkpoint: Path = BUNDLED_ROOT / CHECKPOINT_NAME
    shipped: Path = BUNDLED_ROOT / SHIPPED_NAME


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder in Hugging Face layout, or an already prepared one."""

    path: Path


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model on a Hugging Face hub; ``revision`` None means the default branch."""

    id: str
    revision: str | None


Location = BundledModel | LocalFolder | HubModel


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a look at a Hugging Face folder tells.

    Attributes:
        architecture: first entry of the config's ``architectures``.
        parameters: number of stored weights.
        weights: the safetensors files, sorted.
        config: ``config.json``, parsed.
    """

    folder: Path
    architecture: str
    parameters: int
    weights: tuple[Path, ...]
    config: dict[str, Any]


def locate(model: str, revision: str | None = None) -> Location:
    """Read a ``MODEL_NAME``; a folder that exists wins over a hub id of the same text.

    Raises:
        EngineStartError: it is neither ``bundled``, a folder nor shaped like a hub id.
    """
    if model == BUNDLED_NAME:
        return BundledModel()
    path = Path(model).expanduser()
    if path.is_dir() and model:
        return LocalFolder(path.resolve())
    if path.is_file():
        raise EngineStartError(
            f"{model} is a file: name the folder with config.json and safetensors (MODEL_NAME)"
        )
    looks_local = model.startswith((".", "/", "~"))
    if looks_local or not _HUB_ID.fullmatch(model) or ".." in model:
        raise EngineStartError(
            f"there is no folder {model}: name an existing one (MODEL_NAME), a hub id such "
            "as org/name, or bundled"
        )
    name, _, pinned = model.partition("@")
    if pinned and revision and pinned != revision:
        raise EngineStartError(
            f"MODEL_NAME asks for revision {pinned} and REVISION for {revision}: set one of them"
        )
    return HubModel(name, pinned or revision)


def inspect(folder: Path, families: Mapping[str, str] = FAMILIES) -> Checkpoint:
    """Check that ``folder`` holds a complete checkpoint of one of ``families``.

    Reads the config and the headers of the safetensors files, not the weights.

    Raises:
        EngineStartError: a file is missing, damaged or cut short, or the family is not covered.
    """
    config, architecture = check_family(folder, families)
    weights = _weight_files(folder)
    parameters = sum(_count_parameters(path) for path in weights)
    if not (folder / "tokenizer.json").is_file():
        raise EngineStartError(
            f"{folder} has no tokenizer.json: make one with transformers, "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        )
    return Checkpoint(folder, architecture, parameters, weights, config)


def check_family(
    folder: Path, families: Mapping[str, str] = FAMILIES
) -> tuple[dict[str, Any], str]:
    """The config in ``folder`` and the architecture it names; raises EngineStartError."""
    config = _read_config(folder)
    return config, _architecture(folder, config, families)


def require_convert_extra(modules: Sequence[str] = ()) -> None:
    """Raise EngineStartError when a package that conversion needs is not installed.

    Args:
        modules: those of CONVERT_MODULES that matter; empty: all.
    """
    wanted = modules or CONVERT_MODULES
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise EngineStartError(
            f"converting a model needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'llm-gateway[convert]', or serve an already prepared folder"
        )


def require_space(
    folder: Path, needed: int, purpose: str, instead: str = "set MODEL_CACHE_DIR to a larger disk"
) -> None:
    """Raise EngineStartError unless the disk that holds ``folder`` has ``needed`` bytes free."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise EngineStartError(
            f"{purpose} needs about {_gib(needed)} and {existing} has {_gib(free)} free: make "
            f"room there, or {instead}"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise EngineStartError(
            f"{folder} has no config.json: name a folder in Hugging Face layout (MODEL_NAME)"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineStartError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(config, dict):
        raise EngineStartError(f"{path} does not hold a JSON object: copy it again")
    return config


def _architecture(folder: Path, config: dict[str, Any], families: Mapping[str, str]) -> str:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    covered = ", ".join(families)
    if not isinstance(first, str):
        raise EngineStartError(
            f"{folder}/config.json names no architecture: add one of {covered} under "
            '"architectures"'
        )
    if first not in families:
        raise EngineStartError(
            f"the ONNX engine does not cover {first} ({folder.name}): serve a model of "
            f"{covered}, or use ENGINE=vllm"
        )
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict):
        method = quantized.get("quant_method", "an unnamed method")
        raise EngineStartError(
            f"{folder} is already quantised with {method}, which the ONNX engine cannot read: "
            "take the unquantised checkpoint, or use ENGINE=vllm"
        )
    return first


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineStartError(f"{index} cannot be read ({error}): copy it again") from error
        missing = sorted(n for n in names if not (folder / n).is_file())
        if missing:
            raise EngineStartError(f"{folder} lacks {', '.join(missing)}: copy the missing files")
        return tuple(sorted(folder / n for n in names))
    found = tuple(sorted(folder.glob("*.safetensors")))
    if not found:
        raise EngineStartError(
            f"{folder} has no safetensors files: pickled weights are not loaded; save the model "
            "again with safe_serialization=True"
        )
    return found


def _count_parameters(path: Path) -> int:
    """Number of weights in a safetensors file, from its header alone."""
    damaged = f"{path} is damaged or cut short: download or copy it again"
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise EngineStartError(damaged)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        end = max((t["data_offsets"][1] for t in header.values()), default=0)
        weights = [t for name, t in header.items() if not name.endswith(MASKS)]
        unreadable = {t["dtype"] for t in weights} - _FLOAT_TYPES - _INDEX_TYPES
        count: int = sum(prod(t["shape"]) for t in weights)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise EngineStartError(damaged) from error
    if end != size - 8 - length:
        raise EngineStartError(damaged)
    if unreadable:
        raise EngineStartError(
            f"{path} holds weights of type {', '.join(sorted(unreadable))}: take a checkpoint in "
            "F32, F16 or BF16"
        )
    return count
