"""Exports one checked encoder checkpoint to ONNX, in a process of its own.

    python -m engine.models.export_encoder SOURCE OUT PRECISION LABEL [QUESTIONS]

Talks to its parent as ``engine.models.export`` does. The fp32 graph is compared with
transformers on texts of several lengths before anything is rounded.
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from engine.models.export import ExportError, main, save, tell
from engine.models.quantize import quantize
from engine.onnx.prepared import Precision
from engine.onnx_encoder.layout import (
    FORMAT,
    MANIFEST_NAME,
    EncoderModel,
    read_json,
    read_longest,
    read_modules,
    read_tokenizer,
)
from engine.onnx_encoder.session import EncoderSession, finish, pool

# Two ways to sum the same fp32 products differ by about 1e-6 on vectors of length 1.
TOLERANCE = 1e-4
OPSET = 20
COPIED = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
TEXTS = (
    "Hello",
    "The quick brown fox jumps over the lazy dog.",
    "Wie spät ist es? Es ist 14:05 Uhr.",
    "A gateway takes requests, checks them and passes them on to an engine that answers. " * 3,
    "今日はいい天気ですね。",
    " ".join(str(number) for number in range(150)),
)


def export(source: Path, out: Path, precision: Precision, label: str) -> None:
    """Fill the folder ``out``, the manifest last; raises ExportError."""
    scratch = out / "scratch"
    scratch.mkdir(parents=True)
    tell(0.05, "reading the weights")
    model = load(source)
    prompts = tokenized(source)
    tell(0.2, "exporting the graph")
    trace(model, prompts[:2], scratch / "exported.onnx")
    tell(0.5, "comparing with transformers")
    for name in COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    for path in source.glob("*/config.json"):
        (out / path.parent.name).mkdir(exist_ok=True)
        shutil.copyfile(path, out / path.parent.name / path.name)
    graph = ir.load(scratch / "exported.onnx")
    save(graph, out)
    wanted = reference(model, prompts, out)
    if not (error := distance(out, prompts, wanted)) < TOLERANCE:
        raise ExportError(
            f"the exported graph does not compute what transformers does (distance {error:.2g}): "
            "give a folder with a ready onnx/model.onnx, or use ENGINE=vllm"
        )
    if precision != "fp32":
        stage = f"making the {precision} variant"
        quantize(graph, precision, lambda part: tell(0.6 + 0.3 * part, stage))
        save(graph, out)
        error = distance(out, prompts, wanted)
        tell(0.95, f"the {precision} variant is within {error:.2g} of transformers")
    shutil.rmtree(scratch)
    manifest = {
        "format": FORMAT,
        "precision": precision,
        "source": label,
        "largest_distance": round(error, 7),
    }
    (out / MANIFEST_NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    tell(1.0, "converted")


def load(source: Path) -> Any:
    """The model in fp32, ready to run."""
    import torch
    import transformers

    try:
        model = transformers.AutoModel.from_pretrained(
            source, attn_implementation="eager", dtype=torch.float32, local_files_only=True
        )
    except Exception as error:
        raise ExportError(
            f"transformers cannot load it ({type(error).__name__}: {error}); if it brings code of "
            "its own, give a folder with a ready onnx/model.onnx"
        ) from error
    return model.eval()


def tokenized(source: Path) -> list[np.ndarray]:
    """The texts as ids int32, shortest first and each within the model's length."""
    tokenizer = read_tokenizer(source)
    config = read_json(source / "config.json")
    longest = read_longest(source, config)
    prompts = [np.array(tokenizer.encode(text).ids[:longest], np.int32) for text in TEXTS]
    if max(int(prompt.max()) for prompt in prompts) >= config["vocab_size"]:
        raise ExportError("its tokenizer has more tokens than the model: copy both again")
    return sorted(prompts, key=len)


def trace(model: Any, prompts: list[np.ndarray], path: Path) -> None:
    """Write the fp32 graph of ids and mask [B, S] to last_hidden_state [B, S, H]."""
    import torch

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    names = ["input_ids", "attention_mask", "last_hidden_state"]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Encoder().eval(),
            padded(prompts),
            str(path),
            input_names=names[:2],
            output_names=names[2:],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs one more package
        )


def padded(prompts: list[np.ndarray]) -> tuple[Any, Any]:
    """Tensors ids and mask int64 [B, S]."""
    import torch

    width = max(map(len, prompts))
    ids = [[*map(int, prompt)] + [0] * (width - len(prompt)) for prompt in prompts]
    mask = [[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def reference(model: Any, prompts: list[np.ndarray], folder: Path) -> np.ndarray:
    """What transformers makes of each prompt alone, pooled and of length 1, [n, H]."""
    import torch

    pooling, _ = read_modules(folder)
    rows = []
    for prompt in prompts:
        ids, mask = padded([prompt])
        with torch.no_grad():
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        rows.append(pool(hidden.numpy(), mask.numpy().astype(bool), pooling)[0])
    return finish(np.stack(rows), None, normalize=True)


def distance(folder: Path, prompts: list[np.ndarray], wanted: np.ndarray) -> float:
    """Largest Euclidean distance of the folder's vectors, made in one batch, from ``wanted``."""
    session = EncoderSession(EncoderModel.read(folder), threads=1)
    got = finish(session.run(prompts), None, normalize=True)
    return float(np.linalg.norm(got - wanted, axis=1).max())


if __name__ == "__main__":
    sys.exit(main(export, "engine.models.compare_encoder"))
