"""From a ``MODEL_NAME`` to a prepared folder: found, downloaded, converted once, cached.

A converted model lies under ``<cache_dir>/onnx/<name>-<precision>-<hash>``, where the hash
covers the checkpoint's files, so that a moved or re-downloaded copy is not converted again
and a changed one is. The folder is renamed into place when complete: an interrupted
conversion leaves nothing that a later start could take for whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.base import EngineStartError
from engine.config import EngineConfig, OnnxPrecision
from engine.models.find import (
    BundledModel,
    Checkpoint,
    HubModel,
    inspect,
    locate,
    require_convert_extra,
    require_space,
)
from engine.models.fingerprint import fingerprint
from engine.models.scratch import scratch_beside
from engine.onnx.prepared import MANIFEST_NAME, Manifest, Precision

Progress = Callable[[str, float | None], None]

DEFAULT_PRECISION: Precision = "int8"
# Bytes per weight on disk, rounded up; the fp32 export lies beside the result for a while.
EXPORT_BYTES = 4.5
VARIANT_BYTES: dict[Precision, float] = {"fp32": 4.5, "int8": 1.6, "int8_block": 1.7, "int4": 1.3}
KEPT_LINES = 12  # of the exporter's output, for the message when it fails without one
REPOSITORY = Path(__file__).resolve().parents[2]


def prepare(
    source: str, precision: OnnxPrecision, config: EngineConfig, progress: Progress
) -> Path:
    """The prepared folder for ``source``, made if need be. Blocks; may take minutes.

    Args:
        source: ``bundled``, a local folder or a hub id, as ``MODEL_NAME`` gives it.
        progress: called with a stage for people and a fraction in [0, 1] or None.

    Raises:
        EngineStartError: with the cause and the fix; nothing half-made is left.
    """
    place = locate(source, config.revision)
    if isinstance(place, BundledModel):
        if precision in ("auto", shipped_precision(place)):
            return place.shipped
        folder, label = place.checkpoint, "bundled"
    elif isinstance(place, HubModel):
        from engine.models.hub import download

        folder = download(place.id, place.revision, config.cache_dir, progress)
        label = source
    else:
        folder, label = place.path, place.path.name
        if (folder / MANIFEST_NAME).is_file():
            return already_prepared(folder, precision)
    wanted = DEFAULT_PRECISION if precision == "auto" else precision
    return convert(inspect(folder), wanted, config.cache_dir, label, progress)


def shipped_precision(place: BundledModel) -> Precision:
    """The variant of the bundled model that needs no conversion."""
    return Manifest.read(place.shipped).precision


def already_prepared(folder: Path, precision: OnnxPrecision) -> Path:
    """``folder`` itself; raises EngineStartError when another variant was asked for."""
    held = Manifest.read(folder).precision
    if precision not in ("auto", held):
        raise EngineStartError(
            f"{folder} is prepared as {held} and ONNX_PRECISION asks for {precision}: set it to "
            "auto, or set MODEL_NAME to the original checkpoint"
        )
    return folder


def convert(
    checkpoint: Checkpoint, precision: Precision, cache_dir: Path, label: str, progress: Progress
) -> Path:
    """Convert a checked checkpoint unless the cache holds it; see ``prepare``."""

    def digest(fingerprints: Path) -> str:
        return fingerprint(checkpoint.folder, fingerprints)

    def export(made: Path) -> None:
        run_export(checkpoint.folder, made, precision, label, progress)

    return cached(checkpoint, precision, cache_dir, label, progress, digest, export, MANIFEST_NAME)


def cached(
    checkpoint: Checkpoint,
    precision: Precision,
    cache_dir: Path,
    label: str,
    progress: Progress,
    digest: Callable[[Path], str],
    export: Callable[[Path], None],
    manifest: str,
) -> Path:
    """The cache's folder for a checkpoint, exported unless it is there and complete.

    Args:
        digest: of everything the result follows from, in hexadecimal; given the file in which
            fingerprints of checkpoints are remembered.
        export: writes the model into a new folder.
        manifest: the file that a complete model has.
    """
    store = cache_dir / "onnx"
    try:
        store.mkdir(parents=True, exist_ok=True)
        progress("looking for a converted copy", None)
        found = digest(store / "fingerprints.json")
    except OSError as error:
        raise EngineStartError(
            f"the model cache {cache_dir} cannot be used ({error}): set MODEL_CACHE_DIR to a "
            "folder that this user can write to"
        ) from error
    target = store / f"{label.replace('/', '--')}-{precision}-{found[:16]}"
    if (target / manifest).is_file():
        return target
    require_convert_extra()
    with only_one(target.with_suffix(".lock"), progress):
        if (target / manifest).is_file():
            return target
        require_space(
            store,
            int(checkpoint.parameters * (EXPORT_BYTES + VARIANT_BYTES[precision])) + 2**26,
            f"converting {label}",
        )
        with scratch_beside(target) as scratch:
            export(scratch / "model")
            if target.exists():  # an interrupted removal by hand: never a whole model
                shutil.rmtree(target)
            os.replace(scratch / "model", target)
    return target


@contextlib.contextmanager
def only_one(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold ``lock`` against other processes; the kernel frees it when this one dies."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that converts the same model", None)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run_export(
    source: Path,
    out: Path,
    precision: Precision,
    label: str,
    progress: Progress,
    module: str = "engine.models.export",
    questions: Path | None = None,
) -> None:
    """Run an exporter in a process of its own; raises EngineStartError.

    Args:
        questions: a file of prompts for both the result and the original, which gets what
            came of them.
    """
    command = [sys.executable, "-m", module, source, out, precision, label]
    command += [questions] if questions else []
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(
            [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    said: deque[str] = deque(maxlen=KEPT_LINES)
    message = None
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                kind, _, rest = line.rstrip().partition(" ")
                if kind == "@progress":
                    fraction, _, stage = rest.partition(" ")
                    progress(stage, float(fraction))
                elif kind == "@error":
                    message = rest
                elif line.strip():
                    said.append(line.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0:
        return
    if message is None:
        message = (
            "it was killed, which usually means that memory ran out: convert it on a larger "
            "machine and serve the prepared folder"
            if process.returncode < 0
            else f"the exporter said: {' | '.join(said)}"
        )
    raise EngineStartError(f"converting {label} to {precision} failed: {message}")
