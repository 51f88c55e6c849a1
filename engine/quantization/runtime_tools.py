"""Dynamic and static int8 by onnxruntime's own quantiser."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

from engine.quantization.compare import one_line
from engine.quantization.graph_file import read_graph
from engine.quantization.report import Options, QuantizationError
from engine.quantization.sources import Source
from engine.quantization.synthetic import Feeds

LARGE = 2**30 * 3 // 2  # bytes; a protobuf file ends at 2 GiB
ENTROPY_BINS = 512
DECODER_OPERATORS = ["MatMul"]
"""What else a decoder has (norms, rotary positions, attention) loses much and gains little."""


def dynamic(found: Source, made: Path, scratch: Path, options: Options) -> None:
    """Weights int8 and activations uint8, ranges taken anew in every run."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet("dynamic"):
        ready = _preprocessed(found, scratch, options)
        # onnxruntime has no ConvInteger kernel for signed weights.
        convolves = any(node.op_type == "Conv" for node in read_graph(ready).graph.node)
        options.say("quantising the weights", 0.4)
        quantize_dynamic(
            ready,
            made,
            op_types_to_quantize=DECODER_OPERATORS if found.kind == "decoder" else None,
            per_channel=options.per_channel,
            weight_type=QuantType.QUInt8 if convolves else QuantType.QInt8,
            use_external_data_format=found.size > LARGE,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    _require_change(made, "DynamicQuantizeLinear", "dynamic")


def static(found: Source, made: Path, scratch: Path, feeds: list[Feeds], options: Options) -> None:
    """Weights int8 and activations uint8 as QDQ pairs, ranges from ``feeds``."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    ranges = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    with _quiet("static"):
        ready = _preprocessed(found, scratch, options)
        options.say(f"calibrating on {len(feeds)} inputs", 0.3)
        reader = _Reader(feeds, options)
        known = {}
        if options.ranges == "entropy":
            known["calibration_cache_path"] = _entropy_ranges(ready, scratch, reader, found)
        quantize_static(
            ready,
            made,
            reader,
            **known,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=DECODER_OPERATORS if found.kind == "decoder" else None,
            per_channel=options.per_channel,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=ranges[options.ranges],
            use_external_data_format=found.size > LARGE,
            extra_options={
                "DefaultTensorType": onnx.TensorProto.FLOAT,
                "CalibPercentile": options.percentile,
                # One input at a time: inputs may differ in length, and memory stays small.
                "CalibStridedMinMax": 1,
                "MatMulConstBOnly": True,
            },
        )
    _require_change(made, "QuantizeLinear", "static")


def _entropy_ranges(ready: Path, scratch: Path, reader: _Reader, found: Source) -> Path:
    """The file of ranges that lose least information by Kullback-Leibler divergence.

    ``quantize_static`` offers no way to set the number of histogram bins, and with its 128 for 128
    levels there is nothing to choose from.
    """
    from onnxruntime.quantization import CalibrationMethod, calibrate

    if not hasattr(calibrate, "save_tensors_data"):
        raise QuantizationError(
            "--ranges entropy needs a newer onnxruntime: upgrade it, or take percentile"
        )
    calibrator = calibrate.create_calibrator(
        ready,
        DECODER_OPERATORS if found.kind == "decoder" else None,
        augmented_model_path=str(scratch / "augmented.onnx"),
        calibrate_method=CalibrationMethod.Entropy,
        use_external_data_format=found.size > LARGE,
        extra_options={"num_bins": ENTROPY_BINS},
    )
    for index in range(len(reader)):
        reader.set_range(index, index + 1)
        calibrator.collect_data(reader)
    file = scratch / "ranges.json"
    calibrate.save_tensors_data(calibrator.compute_data(), file)
    return file


class _Reader:
    """onnxruntime's calibration data reader over inputs in memory, one at a time."""

    def __init__(self, feeds: list[Feeds], options: Options) -> None:
        self._feeds = feeds
        self._options = options
        self._range = iter(range(len(feeds)))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Deliver these next."""
        self._range = iter(range(start_index, end_index))

    def get_next(self) -> Feeds | None:
        """The next input; None at the end of the range."""
        index = next(self._range, None)
        if index is None:
            return None
        done = (index + 1) / len(self._feeds)
        self._options.say(f"calibrating on {len(self._feeds)} inputs", 0.3 + 0.4 * done)
        return self._feeds[index]


def _preprocessed(found: Source, scratch: Path, options: Options) -> Path:
    """A copy with constants folded, norms folded into convolutions and shapes inferred."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    options.say("folding constants", 0.1)
    folder = scratch / "float"
    folder.mkdir()
    quant_pre_process(
        str(found.graph),
        str(folder / "model.onnx"),
        # A decoder in serving form has nothing left to fold.
        skip_optimization=found.kind == "decoder",
        skip_symbolic_shape=True,
        save_as_external_data=found.size > LARGE,
        all_tensors_to_one_file=True,
        external_data_location="model.onnx.data",
    )
    return folder / "model.onnx"


def _require_change(made: Path, operator: str, method: str) -> None:
    """Raise QuantizationError when the result holds none of the operators it should."""
    if not any(node.op_type == operator for node in read_graph(made).graph.node):
        raise QuantizationError(
            f"the {method} method found nothing to quantise: the graph has no products of "
            "float32 activations and constant float32 weights"
        )


@contextlib.contextmanager
def _quiet(method: str) -> Iterator[None]:
    """Keep onnxruntime's advice off the terminal; its failures become one sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (OSError, QuantizationError):
        raise
    except Exception as error:  # onnxruntime's tools raise anything
        raise QuantizationError(
            f"onnxruntime's {method} quantiser cannot handle this graph "
            f"({type(error).__name__}: {one_line(error)}): try another method"
        ) from error
    finally:
        logging.disable(before)
