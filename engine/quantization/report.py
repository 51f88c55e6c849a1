"""What goes into a quantisation and what comes out of it, whatever the method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.base import EngineStartError

Say = Callable[[str, float | None], None]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]

REPORT_NAME = "quantization.json"


class QuantizationError(EngineStartError):
    """A model cannot be quantised as asked. One sentence: what is wrong and what to do."""


def silent(stage: str, fraction: float | None) -> None:
    """Progress for nobody."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to quantise; a method takes what concerns it.

    Attributes:
        calibration: inputs whose ranges are taken: ``.npz``, ``.npy``, a folder of them, or a
            JSONL of prompts; None takes synthetic ones.
        samples: most inputs to calibrate with.
        ranges: how the range of an activation follows from its values.
        percentile: share of values inside the range, for ``ranges="percentile"``.
        per_channel: one scale per output channel of a weight.
        dims: sizes of a graph's open dimensions, by name.
        batch: size of the open first dimension.
        seed: of synthetic inputs.
        cache_dir: where converted checkpoints are kept; None: the default of the server.
        install: make a missing environment (``engine.environments``) instead of failing.
        say: progress: a stage for people and a fraction in [0, 1] or None.
    """

    method: str
    calibration: Path | None = None
    samples: int = 64
    ranges: CalibrationMethod = "minmax"
    percentile: float = 99.99
    per_channel: bool = True
    dims: Mapping[str, int] = field(default_factory=dict)
    batch: int = 8
    seed: int = 0
    cache_dir: Path | None = None
    install: bool = False
    say: Say = silent


@dataclass(frozen=True, slots=True)
class Difference:
    """How far outputs are from the original's, over every value of every float output.

    Attributes:
        inputs: what the two were compared on, for people.
        max_abs, mean_abs: of the difference.
        snr_db: ``10 log10(sum(original ** 2) / sum(difference ** 2))``; None where nothing
            differs.
        cosine: of the two outputs as vectors.
        same_choice: share of rows with the same largest value (a decoder's greedy token, a
            classifier's class); None where the outputs have no rows of several values.
    """

    inputs: str
    max_abs: float
    mean_abs: float
    snr_db: float | None
    cosine: float
    same_choice: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What was made.

    Attributes:
        size_before, size_after: bytes of weights and graph on disk.
        served: how the result is served, or why it is not.
        difference: None where the method's result does not run here.
        notes: what a person should know besides.
    """

    method: str
    source: str
    out: Path
    size_before: int
    size_after: int
    seconds: float
    served: str
    difference: Difference | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and the report file."""
        return dataclasses.asdict(self) | {"out": str(self.out)}
