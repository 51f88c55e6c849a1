"""The variants of one model that are compared, opened side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.models.convert import Progress, prepare
from engine.models.find import BundledModel, locate
from engine.onnx.hardware import available_memory, physical_cores
from engine.onnx.prepared import (
    MANIFEST_NAME,
    MODEL_NAME,
    UNSERVED,
    Manifest,
    Precision,
    PreparedModel,
)
from engine.onnx.session import ModelSession
from engine.quantization.sources import read_manifest

REFERENCE = "fp32"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CHUNK = 128  # tokens of one run; bounds the logits that are held
# What a session holds: the weights, and packed copies of most of them.
MEMORY_PER_BYTE = 1.7


@dataclass(frozen=True, slots=True)
class Variant:
    """One form of the model, on disk."""

    name: str
    model: PreparedModel

    @property
    def served(self) -> bool:
        """Whether the engine serves this kind."""
        return self.model.manifest.precision not in UNSERVED

    @property
    def size(self) -> int:
        """Bytes of the graph and its weights."""
        return sum(file.stat().st_size for file in self.model.folder.glob(f"{MODEL_NAME}*"))


def default_names(model: str) -> list[str]:
    """The variants that a model can have: all of a checkpoint, the one of a prepared folder."""
    place = locate(model)
    folder = getattr(place, "path", None)
    if not isinstance(place, BundledModel) and folder and (folder / MANIFEST_NAME).is_file():
        return [Manifest.read(folder).precision]
    return list(PRECISIONS)


def prepare_variants(
    model: str, names: Sequence[str], config: EngineConfig, progress: Progress
) -> list[Variant]:
    """The variants in the order asked for, converted where need be. Blocks.

    Args:
        names: precisions, or folders of prepared variants of the same model.

    Raises:
        EngineStartError: with the cause and the fix.
    """
    found: list[Variant] = []
    for name in names:
        if name in PRECISIONS:
            folder = prepare(model, name, config, _named(name, progress))
        else:
            folder = Path(name).expanduser()
            if not (folder / MANIFEST_NAME).is_file():
                raise EngineStartError(
                    f"there is no variant {name!r}: take {', '.join(PRECISIONS)}, or the folder "
                    "of a prepared variant"
                )
        found.append(Variant(name, _read(folder, found[0] if found else None)))
    sizes = {variant.model.manifest.vocab_size for variant in found}
    texts = {variant.model.tokenizer.to_str() for variant in found}
    if len(sizes) > 1 or len(texts) > 1:
        raise EngineStartError(
            "the variants have different tokenizers, so their figures cannot be compared: give "
            "variants of one model"
        )
    return found


def _read(folder: Path, like: Variant | None) -> PreparedModel:
    """A prepared variant; beside another one, also a kind that the engine refuses to serve."""
    manifest = read_manifest(folder)
    if like is None or manifest.precision not in UNSERVED:
        return PreparedModel.read(folder)
    if not (folder / MODEL_NAME).is_file():
        raise EngineStartError(f"{folder} has no {MODEL_NAME}: quantise the model again")
    return replace(like.model, folder=folder, manifest=manifest)


def open_all(
    variants: Sequence[Variant], context: int, threads: int | None
) -> dict[str, ModelSession]:
    """A session with one slot of ``context`` tokens for every variant.

    Raises:
        EngineStartError: memory does not suffice for all of them, or one cannot be loaded.
    """
    needed = int(sum(variant.size for variant in variants) * MEMORY_PER_BYTE)
    free = available_memory()
    if free is not None and needed > free:
        raise EngineStartError(
            f"comparing {len(variants)} variants takes about {needed / 2**30:.1f} GiB of memory "
            f"and {free / 2**30:.1f} GiB are free: name fewer with --variants"
        )
    opened = {}
    for variant in variants:
        session = ModelSession(
            variant.model,
            slots=1,
            max_len=context,
            resident_tokens=context,
            max_chunk=min(CHUNK, context),
            threads=threads or physical_cores(),
            spin_us=20,
        )
        session.warm_up()
        opened[variant.name] = session
    return opened


def _named(name: str, progress: Progress) -> Progress:
    return lambda stage, fraction: progress(f"{name}: {stage}", fraction)
