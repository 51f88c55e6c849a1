"""Makes the prepared form of the bundled model that the package ships.

    python -m engine.models.ship

Run it after training; it needs the extra ``convert``. The manifest names the checkpoint it
was made from, and a test compares that with the checkpoint beside it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from engine.base import EngineStartError
from engine.models.convert import DEFAULT_PRECISION, Progress, run_export
from engine.models.find import CHECKPOINT_NAME, BundledModel, inspect, require_convert_extra
from engine.models.fingerprint import file_digest


def label_of(checkpoint: Path) -> str:
    """Name and content of the bundled checkpoint, as its manifest records them."""
    return f"{CHECKPOINT_NAME}@{file_digest(checkpoint / 'model.safetensors')[:16]}"


def ship(progress: Progress) -> Path:
    """Convert the bundled checkpoint and put the result in place; returns its folder.

    Raises:
        EngineStartError: with the cause and the fix; the folder in place is untouched then.
    """
    place = BundledModel()
    require_convert_extra()
    inspect(place.checkpoint)
    with tempfile.TemporaryDirectory(dir=place.shipped.parent, prefix=".ship.") as scratch:
        made = Path(scratch) / "model"
        run_export(place.checkpoint, made, DEFAULT_PRECISION, label_of(place.checkpoint), progress)
        shutil.rmtree(place.shipped, ignore_errors=True)
        made.rename(place.shipped)
    return place.shipped


def show(stage: str, fraction: float | None) -> None:
    """Print progress for a person."""
    sys.stderr.write(f"{'' if fraction is None else f'{fraction:4.0%} '}{stage}\n")


def main() -> int:
    """Run from the command line."""
    try:
        folder = ship(show)
    except EngineStartError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    total = 0
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        total += size
        sys.stdout.write(f"{size:>10,}  {path.name}\n")
    sys.stdout.write(f"{total:>10,}  {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
