"""The prepared-model folder: what conversion leaves and the ONNX engine serves.

It holds ``model.onnx`` (with its external data file, if any), ``gateway_model.json`` (the
manifest), ``tokenizer.json`` and, optionally, ``tokenizer_config.json``,
``chat_template.jinja`` and ``generation_config.json``. Conversion writes the manifest last,
so that its presence means that the folder is complete.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from engine.base import EngineStartError
from engine.generation_defaults import default_sampling

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MANIFEST_NAME = "gateway_model.json"
MODEL_NAME = "model.onnx"
TOKENIZER_NAME = "tokenizer.json"
FORMAT = 1

Precision = Literal["fp32", "int8", "int8_block", "int4"]

UNSERVED = {
    "int8_dynamic": (
        "dynamic int8 takes one activation scale for the whole batch, so that an answer would "
        "depend on who else is being answered"
    ),
    "int8_static": (
        "static int8 cuts activations off at the ranges of its calibration set, and int8 has the "
        "same size without that loss"
    ),
}
"""Precisions that `llm-gateway model quantize` writes and the engine refuses, with the reason."""

_REBUILD = "convert the model again, or delete the folder so that it is converted anew"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the engine must know of ``model.onnx`` without opening it.

    Attributes:
        max_model_len: largest prompt plus output, in tokens, that the model was made for.
        precision: how the weights are stored; ``int8`` has per-token activation scales,
            ``int8_block`` and ``int4`` are MatMulNBits.
        source: where the weights came from, for people.
        architecture: the ``architectures`` entry of the model's config, for people.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_model_len: int
    precision: Precision
    eos_token_ids: tuple[int, ...]
    source: str
    architecture: str
    format: int = FORMAT

    @property
    def kv_bytes_per_token(self) -> int:
        """Memory of one token's keys and values, in float32."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * 4

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read and check the manifest of ``folder``; raises EngineStartError."""
        path = folder / MANIFEST_NAME
        raw = _read_json_object(path)
        if raw.get("format") != FORMAT:
            raise EngineStartError(
                f"{path} has format {raw.get('format')!r}, this version reads {FORMAT}: {_REBUILD}"
            )
        names = {field.name for field in dataclasses.fields(cls)}
        if names != raw.keys():
            missing, unknown = sorted(names - raw.keys()), sorted(raw.keys() - names)
            raise EngineStartError(
                f"{path} is not a manifest of this version (missing {missing}, "
                f"unknown {unknown}): {_REBUILD}"
            )
        for name in ("num_layers", "num_kv_heads", "head_dim", "vocab_size", "max_model_len"):
            if type(raw[name]) is not int or raw[name] < 1:
                raise EngineStartError(f"{path}: {name} is not a positive integer: {_REBUILD}")
        if raw["precision"] in UNSERVED:
            raise EngineStartError(
                f"{folder} is not served: {UNSERVED[raw['precision']]}; quantise the original with "
                "--method int8 or int4"
            )
        if raw["precision"] not in get_args(Precision):
            raise EngineStartError(
                f"{path}: precision is not one of {', '.join(get_args(Precision))}: {_REBUILD}"
            )
        eos = raw["eos_token_ids"]
        if not isinstance(eos, list) or any(type(i) is not int or i < 0 for i in eos):
            raise EngineStartError(f"{path}: eos_token_ids is not a list of token ids: {_REBUILD}")
        return cls(**(raw | {"eos_token_ids": tuple(eos)}))

    def write(self, folder: Path) -> None:
        """Write the manifest into ``folder``; a crash leaves the old one or the new one."""
        scratch = folder / (MANIFEST_NAME + ".part")
        scratch.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(scratch, folder / MANIFEST_NAME)


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A checked prepared-model folder, everything but the weights in memory.

    Attributes:
        template_globals: special tokens under the names that chat templates use.
        default_sampling: see ``engine.base.ModelInfo``.
    """

    folder: Path
    manifest: Manifest
    tokenizer: Tokenizer
    chat_template: str | None
    template_globals: dict[str, str]
    default_sampling: dict[str, float]

    @property
    def model_path(self) -> Path:
        return self.folder / MODEL_NAME

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read ``folder``; raises EngineStartError naming what is wrong with which file."""
        from tokenizers import Tokenizer

        if not folder.is_dir():
            raise EngineStartError(f"{folder} is not a folder: give one with a prepared model")
        for name in (MANIFEST_NAME, MODEL_NAME, TOKENIZER_NAME):
            if not (folder / name).is_file():
                raise EngineStartError(f"{folder} has no {name}: {_REBUILD}")
        manifest = Manifest.read(folder)
        try:
            tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_NAME))
        except Exception as error:  # the Rust side raises plain Exception
            raise EngineStartError(
                f"{folder / TOKENIZER_NAME} is not a tokenizer ({error}): {_REBUILD}"
            ) from error
        tokenizer_config = _read_optional_json(folder / "tokenizer_config.json")
        return cls(
            folder=folder,
            manifest=manifest,
            tokenizer=tokenizer,
            chat_template=chat_template(folder, tokenizer_config),
            template_globals=template_globals(tokenizer_config),
            default_sampling=default_sampling(
                _read_optional_json(folder / "generation_config.json")
            ),
        )


def chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> str | None:
    """The source of the chat template that lies in a folder, or None."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):  # several named templates: transformers' older layout
        named = {entry.get("name"): entry.get("template") for entry in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def template_globals(tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """The special tokens that a chat template may name."""
    found = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = tokenizer_config.get(name)
        if isinstance(value, dict):  # a serialised AddedToken
            value = value.get("content")
        if isinstance(value, str):
            found[name] = value
    return found


def _read_optional_json(path: Path) -> dict[str, Any]:
    return _read_json_object(path) if path.is_file() else {}


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineStartError(f"{path} cannot be read ({error}): {_REBUILD}") from error
    if not isinstance(value, dict):
        raise EngineStartError(f"{path} does not hold a JSON object: {_REBUILD}")
    return value
