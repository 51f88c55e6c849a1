"""Converts one checked Hugging Face folder into a prepared folder, in a process of its own.

    python -m engine.models.export SOURCE OUT PRECISION LABEL [QUESTIONS]

QUESTIONS is a file of prompts that the result and the original both answer in the end, see
``engine.models.compare``.

torch and the fp32 weights end with the process. Progress goes to standard output as lines
``@progress FRACTION STAGE``, a failure as ``@error MESSAGE`` with exit status 1; everything
else on the two streams is the exporter's own talk. Run it with HF_HUB_OFFLINE=1 and keep
its standard input open: the process ends when that closes, so it never outlives its parent.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import runpy
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import onnx_ir as ir

from engine.base import EngineStartError
from engine.models import gpt2
from engine.models.graph import Decoder, UnsupportedGraph, to_serving_form
from engine.models.quantize import quantize
from engine.models.verify import TOLERANCE, Reference, last_logits, reference, relative_error
from engine.onnx.prepared import MODEL_NAME, Manifest, Precision

DATA_NAME = MODEL_NAME + ".data"
SMALL = 1024  # bytes; tensors below stay inside model.onnx
ONE_FILE = 32 * 2**20  # bytes of weights; models below are a single file
COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
)
BUILDER = "onnxruntime_genai.models.builder"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ExportError(Exception):
    """The conversion failed for a reason that a person can act on."""


def export(source: Path, out: Path, precision: Precision, label: str) -> None:
    """Fill the folder ``out``, the manifest last; raises ExportError."""
    scratch = out / "scratch"
    scratch.mkdir(parents=True)
    tell(0.02, "reading the weights")
    expected = reference(source)
    tell(0.25, "exporting the graph")
    config = read_json(source / "config.json")
    architecture = config["architectures"][0]
    try:
        if architecture == gpt2.ARCHITECTURE:
            decoder = gpt2.decoder(source, config)
        else:
            decoder = run_builder(source, scratch)
        tell(0.55, "rewriting the graph")
        to_serving_form(decoder.model, decoder.head_dim, expected.windows)
    except UnsupportedGraph as error:
        raise ExportError(
            f"the ONNX engine cannot run this {architecture}: {error}; use ENGINE=vllm"
        ) from error
    manifest = describe(source, config, decoder, precision, label)
    model = decoder.model
    del decoder
    tell(0.6, "comparing with transformers")
    check(model, scratch, manifest, expected)
    stage = f"making the {precision} variant"
    tell(0.7, stage)
    quantize(model, precision, lambda part: tell(0.7 + 0.2 * part, stage))
    tell(0.9, "writing the model")
    save(model, out)
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    del model
    gc.collect()
    shutil.rmtree(scratch)
    manifest.write(out)
    tell(1.0, "converted")


def save(model: ir.Model, out: Path) -> None:
    """Write ``model.onnx`` and, for all but small models, its weights beside it."""
    tensors = [v.const_value for v in model.graph.initializers.values() if v.const_value]
    if sum(tensor.nbytes for tensor in tensors) < ONE_FILE:
        ir.external_data.load_to_model(model)
        ir.save(model, out / MODEL_NAME)
    else:
        ir.save(model, out / MODEL_NAME, external_data=DATA_NAME, size_threshold_bytes=SMALL)


def tell(fraction: float, stage: str) -> None:
    """Report progress to the parent process."""
    sys.stdout.write(f"@progress {fraction:.3f} {stage}\n")
    sys.stdout.flush()


def run_builder(source: Path, out: Path) -> Decoder:
    """Let the model builder write its fp32 graph into ``out``."""
    import transformers

    load = transformers.AutoConfig.from_pretrained

    def load_adapted(*args: Any, **kwargs: Any) -> Any:
        return adapt(load(*args, **kwargs))

    transformers.AutoConfig.from_pretrained = load_adapted
    arguments = ["-m", source, "-i", source, "-o", out, "-p", "fp32", "-e", "cpu"]
    arguments += ["-c", out / "cache"]
    arguments += ["--extra_options", "hf_token=false", "windowed_kv_cache=false"]
    before = sys.argv
    sys.argv = ["builder", *map(str, arguments)]
    try:
        runpy.run_module(BUILDER, run_name="__main__", alter_sys=True)
    except Exception as error:
        raise ExportError(
            f"onnxruntime-genai's model builder cannot export it ({type(error).__name__}: {error})"
            "; try a newer onnxruntime-genai, or use ENGINE=vllm"
        ) from error
    finally:
        sys.argv = before
        transformers.AutoConfig.from_pretrained = load
    built = json.loads((out / "genai_config.json").read_text(encoding="utf-8"))["model"]
    return Decoder(
        model=ir.load(out / MODEL_NAME),
        layers=built["decoder"]["num_hidden_layers"],
        kv_heads=built["decoder"]["num_key_value_heads"],
        head_dim=built["decoder"]["head_size"],
        vocab_size=built["vocab_size"],
        max_len=built["context_length"],
    )


def adapt(config: Any) -> Any:
    """Put what the builder looks for where it looks.

    transformers 5 holds one set of rotary parameters per kind of Gemma 3's layers, and Phi's
    epsilon has another name, in place of which the builder would take 1e-6.
    """
    nested = getattr(config, "rope_parameters", None)
    if isinstance(nested, dict) and "full_attention" in nested:
        config.rope_local_base_freq = nested["sliding_attention"]["rope_theta"]
        config.rope_parameters = dict(nested["full_attention"])
    if not hasattr(config, "rms_norm_eps") and hasattr(config, "layer_norm_eps"):
        config.rms_norm_eps = config.layer_norm_eps
    return config


def describe(
    source: Path, config: dict[str, Any], decoder: Decoder, precision: Precision, label: str
) -> Manifest:
    """The manifest, from what was exported and the checkpoint's own files."""
    return Manifest(
        num_layers=decoder.layers,
        num_kv_heads=decoder.kv_heads,
        head_dim=decoder.head_dim,
        vocab_size=decoder.vocab_size,
        max_model_len=decoder.max_len,
        precision=precision,
        eos_token_ids=eos_token_ids(source, config),
        source=label,
        architecture=config["architectures"][0],
    )


def eos_token_ids(source: Path, config: dict[str, Any]) -> tuple[int, ...]:
    """Ids that end a generation: of the generation config, else the config, and the tokenizer's.

    Chat models often end a turn with the tokenizer's token and name only another one in the
    config.
    """
    generation = read_json(source / "generation_config.json")
    given = generation.get("eos_token_id", config.get("eos_token_id"))
    found = set(given if isinstance(given, list) else [given])
    token = read_json(source / "tokenizer_config.json").get("eos_token")
    text = token.get("content") if isinstance(token, dict) else token
    if isinstance(text, str):
        from tokenizers import Tokenizer

        found.add(Tokenizer.from_file(str(source / "tokenizer.json")).token_to_id(text))
    return tuple(sorted(i for i in found if isinstance(i, int)))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from ``path``, empty where there is no such file."""
    if not path.is_file():
        return {}
    return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8")))


def check(model: ir.Model, scratch: Path, manifest: Manifest, expected: Reference) -> None:
    """Raise ExportError unless the fp32 graph computes what transformers does."""
    path = scratch / "check.onnx"
    fresh = [
        value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and not isinstance(value.const_value, ir.ExternalTensor)
    ]
    large = [tensor for tensor in fresh if tensor.nbytes > SMALL]
    moved = ir.external_data.convert_tensors_to_external(large, scratch, "check.onnx.data")
    for before, after in zip(large, moved, strict=True):
        model.graph.initializers[before.name or ""].const_value = after
    ir.save(model, path)
    got = last_logits(
        path,
        expected.tokens,
        layers=manifest.num_layers,
        kv_heads=manifest.num_kv_heads,
        head_dim=manifest.head_dim,
    )
    error = relative_error(got, expected.logits)
    if not error < TOLERANCE:
        raise ExportError(
            "the exported graph does not compute what transformers does (relative error "
            f"{error:.2g}): the exporter does not cover this configuration; use ENGINE=vllm"
        )


def end_with_parent() -> None:
    """Block until standard input closes, then end the process at once."""
    sys.stdin.read()
    os._exit(1)


def main(run: Callable[[Path, Path, Precision, str], None], comparer: str) -> int:
    """Run an exporter as a process; see the module's text.

    Args:
        comparer: the module whose ``compare`` answers the questions.
    """
    threading.Thread(target=end_with_parent, daemon=True).start()
    source, out, precision, label, *questions = sys.argv[1:]
    try:
        run(Path(source), Path(out), cast("Precision", precision), label)
        if questions:
            stage = "comparing with PyTorch"
            tell(0.0, stage)
            compare = importlib.import_module(comparer).compare
            compare(Path(source), Path(out), Path(questions[0]), lambda part: tell(part, stage))
    except (ExportError, EngineStartError) as error:
        return refuse(str(error))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        return refuse(f"there is no room on the disk ({error.strerror}): make room and try again")
    return 0


def refuse(message: str) -> int:
    """Tell the parent process why, on one line; returns the exit status."""
    sys.stdout.write(f"@error {' '.join(message.split())}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(export, "engine.models.compare"))
