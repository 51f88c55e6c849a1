"""From a ``MODEL_NAME`` to a folder with an encoder graph: ready, or exported once and cached.

The cache and its rules are those of ``engine.models.convert``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.models.convert import Progress, cached, run_export
from engine.models.find import Checkpoint, inspect
from engine.models.fingerprint import file_digest, fingerprint
from engine.onnx.prepared import Precision
from engine.onnx_encoder.families import FAMILIES
from engine.onnx_encoder.layout import MANIFEST_NAME, read_json, ready_graph

EXPORTER = "engine.models.export_encoder"


def prepare_encoder(folder: Path, label: str, config: EngineConfig, progress: Progress) -> Path:
    """A folder with a graph for the encoder in ``folder``. Blocks; may take minutes.

    A graph that lies there is taken as it is, unless ONNX_PRECISION asks for another variant.

    Raises:
        EngineStartError: with the cause and the fix; nothing half-made is left.
    """
    wanted = config.precision
    if ready_graph(folder) is not None:
        manifest = read_json(folder / MANIFEST_NAME, optional=True)
        if wanted == "auto" or wanted == manifest.get("precision", "fp32"):
            return folder
        if manifest:
            raise EngineStartError(
                f"{folder} is prepared as {manifest['precision']} and ONNX_PRECISION asks for "
                f"{wanted}: set it to auto, or set MODEL_NAME to the original checkpoint"
            )
    # Embeddings are compared by small differences, so nothing is rounded unless asked for.
    precision: Precision = "fp32" if wanted == "auto" else wanted
    checkpoint = inspect(folder, FAMILIES)
    return convert_encoder(checkpoint, precision, config.cache_dir, label, progress)


def convert_encoder(
    checkpoint: Checkpoint, precision: Precision, cache_dir: Path, label: str, progress: Progress
) -> Path:
    """Export a checked checkpoint unless the cache holds it."""

    def digest(fingerprints: Path) -> str:
        found = hashlib.sha256(fingerprint(checkpoint.folder, fingerprints).encode())
        for path in sorted(checkpoint.folder.glob("*/config.json")):  # how the model pools
            found.update(f"{path.parent.name}\0{file_digest(path)}\0".encode())
        return found.hexdigest()

    def export(made: Path) -> None:
        run_export(checkpoint.folder, made, precision, label, progress, EXPORTER)

    return cached(checkpoint, precision, cache_dir, label, progress, digest, export, MANIFEST_NAME)
