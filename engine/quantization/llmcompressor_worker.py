"""Quantises one checkpoint with llm-compressor, in the environment that has it.

    python -I llmcompressor_worker.py JOB

JOB is a JSON file: ``source``, ``out``, ``method`` (awq, fp8, w8a8), ``samples`` (conversations
or texts to calibrate with), ``sample_count`` and ``sample_tokens``. Standard output has lines
``@progress FRACTION STAGE``, at the end ``@done JSON``, or ``@error MESSAGE`` and exit status 1;
everything else is the libraries' own talk. It ends when its standard input closes. It runs by
itself (``-I``): nothing of this package can be imported in that environment.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

GROUPS = (128, 64, 32)
"""Weights per scale of 4-bit kernels, best first; a layer's width has to be a multiple."""
IGNORED = ["lm_head", "re:.*mlp.gate$", "re:.*block_sparse_moe.gate$"]
"""Left as they are: the head, and the routers of mixtures of experts."""


class Impossible(Exception):
    """This checkpoint cannot be quantised so; the text says why and what to do."""


def main() -> int:
    """Do the job that the command line names."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        done = run(job)
    except Impossible as error:
        sys.stdout.write(f"@error {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(f"@done {json.dumps(done)}\n")
    return 0


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Write the quantised checkpoint; returns what was done."""
    tell(0.05, "loading llm-compressor")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tell(0.2, "reading the weights")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            job["source"], dtype="auto", local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # whatever transformers meets in a folder it does not know
        raise Impossible(
            f"transformers cannot load it ({type(error).__name__}: {str(error)[:300]}): take a "
            "checkpoint whose architecture is part of transformers"
        ) from error
    layers = linear_layers(model)
    if not layers:
        raise Impossible(
            f"{type(model).__name__} has no linear layers that llm-compressor quantises: "
            "take a model of another family"
        )
    if job["method"] == "awq":
        tokenizer = AutoTokenizer.from_pretrained(job["source"], local_files_only=True)
        rows = token_rows(tokenizer, job)
        compress_awq(model, tokenizer, rows, group_size(layers))
    else:
        rows = []
        tell(0.4, "quantising")
        compress(model, "W8A8" if job["method"] == "w8a8" else "FP8_DYNAMIC")
    quantised = sum(hasattr(module, "quantization_scheme") for module in layers.values())
    if not quantised:
        raise Impossible("llm-compressor found no layer to quantise: take a model of another kind")
    tell(0.9, "writing the checkpoint")
    model.save_pretrained(job["out"], save_compressed=True)
    return {
        "layers": quantised,
        "samples": len(rows),
        "tokens": sum(map(len, rows)),
        "group_size": group_size(layers) if job["method"] == "awq" else None,
    }


def compress(model: Any, scheme: str) -> None:
    """Round the weights of every linear layer; activations are scaled per token when served."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    recipe = QuantizationModifier(targets="Linear", scheme=scheme, ignore=IGNORED)
    oneshot(model=model, recipe=recipe)


def compress_awq(model: Any, tokenizer: Any, rows: list[list[int]], group: int) -> None:
    """4-bit weights after Activation-aware Weight Quantization (Lin et al., 2023).

    Args:
        rows: token ids of the calibration samples.
        group: weights that share a scale and a zero point.
    """
    import torch
    from compressed_tensors.quantization import preset_name_to_scheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        # 0.14.0.1 pins memory even where there is no accelerator, and fails.
        IntermediatesCache.pin_memory = lambda *args, **kwargs: None
    scheme = preset_name_to_scheme("W4A16_ASYM", ["Linear"])
    scheme.weights.group_size = group
    data = Dataset.from_dict(
        {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
    )
    tell(0.4, f"measuring activations on {len(rows)} samples")
    oneshot(
        model=model,
        tokenizer=tokenizer,
        dataset=data,
        recipe=[
            AWQModifier(duo_scaling="both"),
            QuantizationModifier(config_groups={"group_0": scheme}, ignore=IGNORED),
        ],
        num_calibration_samples=len(rows),
        max_seq_length=max(map(len, rows)),
        shuffle_calibration_samples=False,
    )


def linear_layers(model: Any) -> dict[str, Any]:
    """The layers that will be quantised, by name."""
    import torch
    from compressed_tensors.utils import match_named_modules

    found = match_named_modules(model, ["Linear"], IGNORED)
    return {name: module for name, module in found if isinstance(module, torch.nn.Linear)}


def group_size(layers: dict[str, Any]) -> int:
    """The largest group that divides the width of every layer; raises Impossible."""
    widths = sorted({module.in_features for module in layers.values()})
    for size in GROUPS:
        if all(width % size == 0 for width in widths):
            return size
    raise Impossible(
        f"4-bit weights come in groups of at least {GROUPS[-1]}, and its layers are "
        f"{', '.join(map(str, widths))} wide: use w8a8 or fp8"
    )


def token_rows(tokenizer: Any, job: dict[str, Any]) -> list[list[int]]:
    """Token ids of the calibration samples; long texts make several. Raises Impossible."""
    most, longest = job["sample_count"], job["sample_tokens"]
    rows: list[list[int]] = []
    for sample in job["samples"]:
        ids = tokenizer(text_of(tokenizer, sample), add_special_tokens=False)["input_ids"]
        pieces = [ids[at : at + longest] for at in range(0, len(ids), longest)]
        rows += [piece for piece in pieces if len(piece) > 1]
        if len(rows) >= most:
            break
    if not rows:
        raise Impossible("the calibration text has no tokens: give one with some sentences")
    return rows[:most]


def text_of(tokenizer: Any, sample: dict[str, Any]) -> str:
    """A sample as the model would see it."""
    if "messages" not in sample:
        return str(sample["text"])
    if tokenizer.chat_template is None:
        return "\n".join(str(message.get("content") or "") for message in sample["messages"])
    try:
        return str(tokenizer.apply_chat_template(sample["messages"], tokenize=False))
    except Exception as error:  # a template refuses by raising what it likes
        raise Impossible(
            f"the model's chat template refuses a calibration conversation ({error}): give "
            "lines with 'text' instead of 'messages'"
        ) from error


def tell(fraction: float, stage: str) -> None:
    """Report progress to the parent process."""
    sys.stdout.write(f"@progress {fraction:.3f} {stage}\n")
    sys.stdout.flush()


def end_with_parent() -> None:
    """Block until standard input closes, then end the process at once."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
