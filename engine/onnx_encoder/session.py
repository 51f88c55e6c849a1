"""Runs an encoder graph over padded batches and pools what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from engine.base import EngineStartError
from engine.models.kernel import session_entries
from engine.onnx_encoder.layout import EncoderModel, Pooling

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
_TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")
_POOLED_OUTPUT = "sentence_embedding"
_TINY = np.float32(1e-12)


class EncoderSession:
    """One onnxruntime session. ``run`` belongs to one thread; it lets go of the GIL.

    Attributes:
        pools: whether pooling is done here; else the graph does it, normalisation included.
    """

    def __init__(self, model: EncoderModel, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.enable_mem_pattern = False  # every batch has another shape
        for key, value in session_entries().items():
            options.add_session_config_entry(key, value)
        try:
            session = ort.InferenceSession(model.graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions share no base
            raise EngineStartError(
                f"onnxruntime cannot load {model.graph} ({error}): copy or convert it again"
            ) from error
        self._session = session
        self._model = model
        self._inputs = {value.name for value in session.get_inputs()}
        self._output = self._choose_output([value.name for value in session.get_outputs()])
        self.pools = self._output != _POOLED_OUTPUT
        if not {"input_ids"} <= self._inputs <= _INPUTS:
            raise EngineStartError(
                f"{model.graph} takes {', '.join(sorted(self._inputs))}; an encoder takes "
                "input_ids, attention_mask and token_type_ids"
            )

    def probe(self) -> int:
        """Run once and return the length of a vector; raises EngineStartError."""
        try:
            vectors = self.run([np.zeros(3, np.int32), np.zeros(5, np.int32)])
        except Exception as error:
            raise EngineStartError(
                f"{self._model.graph} does not run as an encoder ({error}): convert it again"
            ) from error
        return int(vectors.shape[1])

    def run(
        self, prompts: Sequence[NDArray[np.int32]], options: ort.RunOptions | None = None
    ) -> NDArray[np.float32]:
        """Pooled vectors float32 [prompts, hidden], not normalised here.

        Raises whatever onnxruntime raises, also when ``options.terminate`` is set meanwhile.
        """
        lengths = np.array([len(prompt) for prompt in prompts])
        ids = np.full((len(prompts), lengths.max()), self._model.pad_id, np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        seen = np.arange(ids.shape[1]) < lengths[:, None]
        feeds = {"input_ids": ids}
        if "attention_mask" in self._inputs:
            feeds["attention_mask"] = seen.astype(np.int64)
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(ids)
        if "position_ids" in self._inputs:
            feeds["position_ids"] = np.broadcast_to(np.arange(ids.shape[1]), ids.shape).copy()
        (found,) = self._session.run([self._output], feeds, options)
        found = found.astype(np.float32, copy=False)
        return pool(found, seen, self._model.pooling) if self.pools else found

    def _choose_output(self, names: list[str]) -> str:
        for name in (_POOLED_OUTPUT, *_TOKEN_OUTPUTS):
            if name in names:
                return name
        raise EngineStartError(
            f"{self._model.graph} gives {', '.join(names)}; an encoder gives last_hidden_state "
            "or sentence_embedding"
        )


def pool(hidden: NDArray[np.float32], seen: NDArray[np.bool_], how: Pooling) -> NDArray[np.float32]:
    """One vector per row.

    Args:
        hidden: [B, S, H]; what stands at unseen places does not matter.
        seen: [B, S], true for tokens, false for padding behind them.
    """
    last = seen.sum(axis=1) - 1
    if how == "cls":
        return np.ascontiguousarray(hidden[:, 0])
    if how == "lasttoken":
        return np.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    rows = (row[: end + 1] for row, end in zip(hidden, last, strict=True))
    if how == "max":
        return np.stack([row.max(axis=0) for row in rows])
    return np.stack([row.mean(axis=0) for row in rows])


def finish(
    vectors: NDArray[np.float32], dimensions: int | None, *, normalize: bool
) -> NDArray[np.float32]:
    """Cut vectors [n, H] to ``dimensions`` and give them length 1, in that order."""
    if dimensions is not None:
        vectors = vectors[:, :dimensions]
    if normalize:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
    return np.ascontiguousarray(vectors, np.float32)
