"""How far the outputs of a quantised graph are from the original's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.models.kernel import session_entries
from engine.quantization.calibration import Samples
from engine.quantization.report import Difference, QuantizationError
from engine.quantization.sources import Source

MOST_INPUTS = 16


def difference(original: Path, made: Path, source: Source, inputs: Samples) -> Difference:
    """Run both on the first inputs and compare every float output.

    Of a decoder only the logits count; its caches are another form of the same.

    Raises:
        QuantizationError: one of the two does not run.
    """
    wanted = ["logits"] if source.kind == "decoder" else None
    feeds = inputs.feeds[:MOST_INPUTS]
    before, after = (_outputs(path, feeds, wanted) for path in (original, made))
    totals = _Totals()
    for one, other in zip(before, after, strict=True):
        for left, right in zip(one, other, strict=True):
            if left.dtype.kind == "f":
                totals.add(left.astype(np.float64), right.astype(np.float64))
    return totals.result(f"{len(feeds)} of {inputs.text}" if feeds != inputs.feeds else inputs.text)


def open_session(path: Path, threads: int = 0) -> Any:
    """A CPU session; raises QuantizationError with onnxruntime's reason."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    for entry, value in session_entries().items():
        options.add_session_config_entry(entry, value)
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise QuantizationError(
            f"onnxruntime cannot load {path.name} ({one_line(error)}): this graph cannot be used "
            "so; try another method"
        ) from error


def one_line(error: BaseException, longest: int = 300) -> str:
    """An exception's text on one line, cut where libraries add their own stack."""
    return " ".join(str(error).split())[:longest]


def _outputs(
    path: Path, feeds: list[dict[str, npt.NDArray[Any]]], wanted: list[str] | None
) -> list[list[npt.NDArray[Any]]]:
    session = open_session(path)
    try:
        return [session.run(wanted, feed) for feed in feeds]
    except Exception as error:
        raise QuantizationError(
            f"{path.name} does not run on these inputs ({one_line(error)}): give others with "
            "--calibration or --dim, or try another method"
        ) from error


class _Totals:
    """Sums over all outputs."""

    def __init__(self) -> None:
        self._max = self._abs = self._noise = self._signal = self._other = self._dot = 0.0
        self._count = self._rows = self._same = 0

    def add(self, left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> None:
        """Take in one output of the original and of the result."""
        if left.shape != right.shape:
            raise QuantizationError(
                f"the result has an output of shape {list(right.shape)} where the original has "
                f"{list(left.shape)}: try another method"
            )
        if not np.isfinite(right).all() and np.isfinite(left).all():
            raise QuantizationError(
                "the result gives values that are not finite where the original's are: try another "
                "method"
            )
        gap = np.abs(left - right)
        self._max = max(self._max, float(gap.max(initial=0.0)))
        self._abs += float(gap.sum())
        self._noise += float(np.square(gap).sum())
        self._signal += float(np.square(left).sum())
        self._other += float(np.square(right).sum())
        self._dot += float((left * right).sum())
        self._count += left.size
        if left.ndim == 2 and left.shape[1] > 1:
            same = left.argmax(-1) == right.argmax(-1)
            self._rows += same.size
            self._same += int(same.sum())

    def result(self, inputs: str) -> Difference:
        """The figures; raises QuantizationError where nothing could be compared."""
        if not self._count:
            raise QuantizationError("the graph has no float outputs, so nothing can be compared")
        snr = None
        if self._noise > 0 and self._signal > 0:
            snr = float(10 * np.log10(self._signal / self._noise))
        lengths = float(np.sqrt(self._signal * self._other))
        return Difference(
            inputs=inputs,
            max_abs=self._max,
            mean_abs=self._abs / self._count,
            snr_db=snr,
            cosine=self._dot / lengths if lengths else 1.0,
            same_choice=self._same / self._rows if self._rows else None,
        )
