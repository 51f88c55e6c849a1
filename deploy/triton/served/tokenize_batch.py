"""Triton model: texts [B, 1] to token ids and an attention mask [B, S] for an encoder.

Needs tokenizers. Parameters: ``longest`` (tokens of a text, special tokens included),
``pad_id`` and ``bucket``: widths are multiples of it, so that requests of like length have
one shape and the encoder's dynamic batcher can join them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from tokenizers import Tokenizer


class TritonPythonModel:
    """One instance; a tokenizer has no state between requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read tokenizer.json from this version's folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        config = json.loads(args["model_config"])
        told = {key: int(value["string_value"]) for key, value in config["parameters"].items()}
        self._longest, self._pad, self._bucket = told["longest"], told["pad_id"], told["bucket"]
        self._outputs = [entry["name"] for entry in config["output"]]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request. A text that is too long is refused, not cut."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        raw = pb.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)
        try:
            texts = [text.decode() for text in raw]
        except UnicodeDecodeError as error:
            return refuse(f"text_input is not UTF-8: {error}")
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(texts)]
        width = max(1, *map(len, rows))
        if width > self._longest:
            return refuse(f"a text has {width} tokens and the model takes {self._longest}")
        width = min(self._longest, -(-width // self._bucket) * self._bucket)
        ids = np.full((len(rows), width), self._pad, np.int64)
        mask = np.zeros((len(rows), width), np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        made = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": np.tile(np.arange(width), (len(rows), 1)),
        }
        return pb.InferenceResponse([pb.Tensor(name, made[name]) for name in self._outputs])


def refuse(message: str) -> Any:
    """A response that tells the caller what to change."""
    return pb.InferenceResponse(error=pb.TritonError(message, pb.TritonError.INVALID_ARG))
