"""Triton model: generated token ids to the text that is new since the previous response.

Needs tokenizers. It keeps no state: every request brings all ids so far and how many of them
the previous response had, so any instance may serve any part of a stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb
from tokenizers import Tokenizer

UNFINISHED = "�"


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read tokenizer.json from this version's folder."""
        folder = Path(args["model_repository"]) / args["model_version"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        ids = pb.get_input_tensor_by_name(request, "output_ids").as_numpy().tolist()
        sent = int(pb.get_input_tensor_by_name(request, "sent").as_numpy()[0])
        final = bool(pb.get_input_tensor_by_name(request, "final").as_numpy()[0])
        before = self._text(ids[:sent])
        now = self._tokenizer.decode(ids) if final else self._text(ids)
        new = np.array([now[len(before) :].encode()], np.object_)
        return pb.InferenceResponse([pb.Tensor("text_output", new)])

    def _text(self, ids: list[int]) -> str:
        """Without a character whose bytes are not all there yet."""
        decoded: str = self._tokenizer.decode(ids)
        return decoded.rstrip(UNFINISHED)
