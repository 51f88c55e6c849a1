"""Lays a converted encoder beside its PyTorch original: one vector per text.

Runs at the end of an export, in its process, where transformers is loaded already.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engine.models.export_encoder import load, reference
from engine.onnx.hardware import physical_cores
from engine.onnx_encoder.layout import EncoderModel
from engine.onnx_encoder.session import EncoderSession, finish


@dataclass(frozen=True, slots=True)
class Nearness:
    """One text on both sides, pooled as the model says and of length 1.

    Attributes:
        tokens: of the text, cut to what the model takes.
        cosine: of the two vectors. distance: Euclidean.
    """

    prompt: str
    tokens: int
    cosine: float
    distance: float


def compare(source: Path, prepared: Path, questions: Path, report: Callable[[float], None]) -> None:
    """Embed the texts in ``questions`` on both sides and write the rows into the file.

    Args:
        questions: JSON with ``prompts``; gets ``rows``, Nearness as JSON.
    """
    asked = json.loads(questions.read_text(encoding="utf-8"))
    model = EncoderModel.read(prepared)
    prompts = [
        np.array(model.tokenizer.encode(text).ids[: model.max_model_len], np.int32)
        for text in asked["prompts"]
    ]
    wanted = reference(load(source), prompts, prepared)
    session = EncoderSession(model, threads=physical_cores())
    rows = []
    for text, prompt, theirs in zip(asked["prompts"], prompts, wanted, strict=True):
        ours = finish(session.run([prompt]), None, normalize=True)[0]
        distance = float(np.linalg.norm(ours - theirs))
        rows.append(asdict(Nearness(text, len(prompt), float(ours @ theirs), distance)))
        report(len(rows) / len(prompts))
    asked["rows"] = rows
    questions.write_text(json.dumps(asked), encoding="utf-8")
