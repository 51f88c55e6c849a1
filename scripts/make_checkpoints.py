"""Quantise a checkpoint on the CPU with llm-compressor, in an environment of its own.

    python scripts/make_checkpoints.py --install          # once: makes .venv-compress
    python scripts/make_checkpoints.py MODEL OUT int8     # or fp8, awq
    python scripts/make_checkpoints.py --tests            # tests/vllm/checkpoints again

``int8`` is INT8 weights and activations (W8A8), ``fp8`` is FP8_DYNAMIC, ``awq`` is
4-bit AWQ in compressed-tensors format (W4A16_ASYM, groups of 128).

``--tests`` quantises the bundled model in all three ways. It is due whenever that model has
been trained again: each folder says in ``source.json`` which weights it was made from, and a
test compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = ROOT / "engine" / "models" / "bundled" / "tiny-chat"
KEPT = ROOT / "tests" / "vllm" / "checkpoints"
ENVIRONMENT = ROOT / ".venv-compress"
PYTHON = ENVIRONMENT / "bin" / "python"
PACKAGES = ("llmcompressor==0.14.0.1", "torch==2.13.0")
SCHEMES = ("int8", "fp8", "awq")
# Enough for AWQ to tell large activations from small ones.
SAMPLES, SAMPLE_TOKENS = 16, 64


def install() -> None:
    """Make the environment; about 1.5 GB with CPU wheels of torch."""
    subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "-q", *PACKAGES], check=True)


def make(model: Path, out: Path, scheme: str) -> None:
    """Write ``model`` quantised by ``scheme`` to ``out``; runs in the environment."""
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(model)
    if scheme == "awq":
        _awq(loaded, tokenizer)
    else:
        name = {"int8": "INT8", "fp8": "FP8_DYNAMIC"}[scheme]
        oneshot(
            model=loaded,
            recipe=QuantizationModifier(targets="Linear", scheme=name, ignore=["lm_head"]),
        )
    loaded.save_pretrained(out, save_compressed=True)
    tokenizer.save_pretrained(out)


def _awq(loaded: Any, tokenizer: Any) -> None:
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    # llm-compressor 0.14.0.1 pins memory even where there is no accelerator, and fails.
    IntermediatesCache.pin_memory = lambda *args, **kwargs: None
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (SAMPLES, SAMPLE_TOKENS), generator=generator).tolist()
    data = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * SAMPLE_TOKENS] * SAMPLES})
    oneshot(
        model=loaded,
        tokenizer=tokenizer,
        dataset=data,
        recipe=[
            AWQModifier(duo_scaling="both"),
            QuantizationModifier(targets=["Linear"], scheme="W4A16_ASYM", ignore=["lm_head"]),
        ],
        max_seq_length=SAMPLE_TOKENS,
        num_calibration_samples=SAMPLES,
    )


def digest(model: Path) -> str:
    """What tells the weights of a checkpoint from those of another."""
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def make_for_tests() -> None:
    """Write the checkpoints that the tests serve."""
    source = {"source": "the bundled model", "sha256": digest(BUNDLED), "by": PACKAGES[0]}
    with tempfile.TemporaryDirectory() as scratch:
        for scheme in SCHEMES:
            made = Path(scratch) / scheme
            run_in_environment(BUNDLED, made, scheme)
            (made / "source.json").write_text(json.dumps(source | {"scheme": scheme}) + "\n")
            (made / "model.safetensors").chmod(0o644)
            shutil.rmtree(KEPT / scheme, ignore_errors=True)
            shutil.copytree(made, KEPT / scheme)


def run_in_environment(model: Path, out: Path, scheme: str) -> None:
    """Do ``make`` in the environment that has llm-compressor; ends the program when it fails."""
    command = [str(PYTHON), __file__, str(model), str(out), scheme]
    # Models as small as ours are slower on several threads.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    if status := subprocess.run(command, env=environment).returncode:
        sys.exit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--install", action="store_true", help="make the environment and stop")
    parser.add_argument("--tests", action="store_true", help="make those of the tests again")
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("scheme", nargs="?", choices=SCHEMES)
    args = parser.parse_args()
    if args.install:
        install()
        return
    if args.scheme is None and not args.tests:
        parser.error("give MODEL, OUT and a scheme, or --install, or --tests")
    if Path(sys.prefix).resolve() == ENVIRONMENT.resolve():
        make(args.model, args.out, args.scheme)
        return
    if not PYTHON.exists():
        parser.error("the environment is missing: run this with --install first")
    if args.tests:
        make_for_tests()
    else:
        run_in_environment(args.model, args.out, args.scheme)


if __name__ == "__main__":
    main()
