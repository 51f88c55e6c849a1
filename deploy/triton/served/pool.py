"""Triton model: token vectors float32 [B, S, H] and their mask [B, S] to one vector each, [B, H].

Parameters: ``pooling`` (mean, cls, lasttoken, max) and ``normalize`` (true, false).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb

TINY = np.float32(1e-12)


class TritonPythonModel:
    """One instance; pooling has no state between requests."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read how to pool from the config's parameters, and the name of the token vectors."""
        config = json.loads(args["model_config"])
        self._how = config["parameters"]["pooling"]["string_value"]
        self._normalize = config["parameters"]["normalize"]["string_value"] == "true"
        self._hidden = next(
            entry["name"] for entry in config["input"] if entry["name"] != "attention_mask"
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        hidden = pb.get_input_tensor_by_name(request, self._hidden).as_numpy()
        mask = pb.get_input_tensor_by_name(request, "attention_mask").as_numpy()
        vectors = pool(hidden, mask.astype(bool), self._how)
        if self._normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), TINY)
        return pb.InferenceResponse([pb.Tensor("embedding", vectors.astype(np.float32))])


def pool(hidden: Any, seen: Any, how: str) -> Any:
    """[B, H] from [B, S, H]; padding stands behind the tokens and does not count."""
    if how == "cls":
        return hidden[:, 0]
    if how == "lasttoken":
        last = np.maximum(seen.sum(axis=1) - 1, 0)
        return hidden[np.arange(len(hidden)), last]
    shown = seen[:, :, None]
    if how == "max":
        return np.where(shown, hidden, -np.inf).max(axis=1)
    return np.where(shown, hidden, 0).sum(axis=1) / np.maximum(shown.sum(axis=1), 1)
