"""Quantised checkpoints for vLLM, made with llm-compressor in an environment of its own.

``awq``   4-bit weights with a scale and a zero point per group (W4A16), after AWQ.
``fp8``   8-bit float weights per channel, activations per token when served (FP8_DYNAMIC).
``w8a8``  8-bit integer weights per channel, activations per token when served.

All three are in compressed-tensors format, which vLLM recognises by itself. Only AWQ needs
calibration text. Everything runs on the CPU where there is no GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any

from engine import environments
from engine.config import EngineConfig
from engine.models.find import HubModel, inspect, locate
from engine.quantization.calibration_text import calibration_samples
from engine.quantization.report import REPORT_NAME, Options, QuantizationError, Report
from engine.quantization.whole_folder import whole_folder

ENVIRONMENT = "llmcompressor"
WORKER = Path(__file__).with_name("llmcompressor_worker.py")
METHODS = ("awq", "fp8", "w8a8")
SAMPLE_TOKENS = 512
# Besides the weights a checkpoint is these, which must not change: they decide what a model says.
KEPT = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)
SERVED = {
    "awq": "ENGINE=vllm, QUANTIZATION=awq or auto (a GPU from 7.5, or a CPU with AVX-512)",
    "fp8": "ENGINE=vllm, QUANTIZATION=fp8 or auto (native from 8.9; emulated on CPUs)",
    "w8a8": "ENGINE=vllm, QUANTIZATION=auto (a GPU from 7.5, or any CPU)",
}
KEPT_LINES = 8  # of the worker's talk, for the message when it dies without one


def quantize(source: Path, out: Path, options: Options) -> Report:
    """Write ``source``, a checkpoint folder or hub id, quantised to the new folder ``out``.

    Raises:
        EngineStartError: with the cause and the fix; ``out`` is left as it was.
    """
    began = time.monotonic()
    folder = checkpoint_folder(source, options)
    check_family(folder)
    samples = []
    if options.method == "awq":
        samples = calibration_samples(options.calibration, options.samples)
    size = weight_bytes(folder)
    if options.install:
        python = environments.make(ENVIRONMENT, lambda text: options.say(text, None))
    else:
        python = environments.interpreter(ENVIRONMENT)
    with whole_folder(out, size + 2**26) as scratch:
        made = scratch / "model"
        job = {
            "source": str(folder),
            "out": str(made),
            "method": options.method,
            "samples": samples,
            "sample_count": options.samples,
            "sample_tokens": SAMPLE_TOKENS,
        }
        (scratch / "job.json").write_text(json.dumps(job), encoding="utf-8")
        done = run_worker(python, scratch / "job.json", folder.name, options)
        report = Report(
            method=options.method,
            source=str(source),
            out=out,
            size_before=size,
            size_after=weight_bytes(made),
            seconds=time.monotonic() - began,
            served=SERVED[options.method],
            notes=notes(options, done),
        )
        finish(folder, made, report)
    return report


def checkpoint_folder(source: Path, options: Options) -> Path:
    """The folder with the checkpoint, downloaded if ``source`` is a hub id."""
    place = locate(str(source))
    if isinstance(place, HubModel):
        from engine.models.hub import download

        cache = options.cache_dir or EngineConfig().cache_dir
        return download(place.id, place.revision, cache, options.say)
    if not source.is_dir():
        raise QuantizationError(
            f"{source} is not a checkpoint: {options.method} takes a folder with config.json and "
            "safetensors, a hub id or bundled"
        )
    return source.resolve()


def check_family(folder: Path) -> None:
    """Raise EngineStartError unless it is an unquantised text model with whole weights."""
    config = read_config(folder)
    quantized = config.get("quantization_config")
    if isinstance(quantized, dict):
        raise QuantizationError(
            f"{folder} is quantised already ({quantized.get('quant_method', 'unnamed method')}): "
            "give the original checkpoint"
        )
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else "an unnamed family"
    if not architecture.endswith("ForCausalLM"):
        raise QuantizationError(
            f"{folder} holds {architecture}, and only models that generate text from text "
            "(...ForCausalLM) are quantised for vLLM: use an ONNX method for other models"
        )
    inspect(folder, {architecture: architecture})


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``; raises QuantizationError."""
    path = folder / "config.json"
    if not path.is_file():
        raise QuantizationError(
            f"{folder} has no config.json: give a checkpoint folder in Hugging Face layout (an "
            "already converted ONNX model takes the ONNX methods)"
        )
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QuantizationError(f"{path} cannot be read ({error}): copy it again") from error
    if not isinstance(value, dict):
        raise QuantizationError(f"{path} does not hold a JSON object: copy it again")
    return value


def run_worker(python: Path, job: Path, label: str, options: Options) -> dict[str, Any]:
    """Run llm-compressor in its environment; what it reports. Raises QuantizationError."""
    environment = {key: value for key, value in os.environ.items() if key[:6] != "PYTHON"}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    said: deque[str] = deque(maxlen=KEPT_LINES)
    message, done = None, None
    with subprocess.Popen(
        [str(python), "-I", str(WORKER), str(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        cwd=job.parent,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                kind, _, rest = line.strip().partition(" ")
                if kind == "@progress":
                    fraction, _, stage = rest.partition(" ")
                    options.say(stage, float(fraction))
                elif kind == "@error":
                    message = rest
                elif kind == "@done":
                    done = json.loads(rest)
                elif kind:
                    said.append(line.strip()[-300:])
        except BaseException:
            process.kill()
            raise
    if process.returncode == 0 and isinstance(done, dict):
        return done
    if message is None:
        message = (
            "it was killed, which usually means that memory ran out: use a larger machine"
            if process.returncode < 0
            else f"llm-compressor said: {' | '.join(said)}"
        )
    raise QuantizationError(f"quantising {label} to {options.method} failed: {message}")


def finish(source: Path, made: Path, report: Report) -> None:
    """Add the report, and the source's files that quantisation has no business with."""
    for name in KEPT:
        if (source / name).is_file():
            shutil.copyfile(source / name, made / name)
    text = json.dumps(report.to_json(), indent=2) + "\n"
    (made / REPORT_NAME).write_text(text, encoding="utf-8")
    for file in made.iterdir():
        file.chmod(0o644)


def weight_bytes(folder: Path) -> int:
    """Bytes of the safetensors files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def notes(options: Options, done: dict[str, Any]) -> tuple[str, ...]:
    """What a person should know of the result."""
    found = [f"{done['layers']} linear layers; embeddings, norms and head as they were"]
    if options.method == "awq":
        found.append(
            f"calibrated on {done['samples']} samples ({done['tokens']} tokens), groups of "
            f"{done['group_size']}"
        )
    elif options.calibration is not None:
        found.append(f"{options.method} needs no calibration: {options.calibration} was not read")
    return tuple(found)
