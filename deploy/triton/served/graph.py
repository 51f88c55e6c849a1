"""Triton model: an ONNX graph on onnxruntime, its inputs and outputs those of config.pbtxt.

Needs onnxruntime. Parameters: ``intra_op_thread_count`` (0: every core). Requests that the
dynamic batcher hands over together are run together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb
from kernel import session_entries


class TritonPythonModel:
    """One instance of the model, with a session of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph that lies beside this file's config, in this version's folder."""
        config = json.loads(args["model_config"])
        options = ort.SessionOptions()
        options.log_severity_level = 3
        threads = config["parameters"].get("intra_op_thread_count", {}).get("string_value", "0")
        options.intra_op_num_threads = int(threads)
        for key, value in session_entries().items():
            options.add_session_config_entry(key, value)
        place = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        path = place / "model.onnx" if place.is_dir() else place
        self._session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        self._batches = config["max_batch_size"] > 0
        self._inputs = [entry["name"] for entry in config["input"]]
        # Triton passes a scalar as one value where it adds no batch dimension.
        self._scalars = {node.name for node in self._session.get_inputs() if node.shape == []}
        self._outputs = [entry["name"] for entry in config["output"]]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order."""
        responses: list[Any] = [None] * len(requests)
        feeds = {}
        for i, request in enumerate(requests):
            tensors = {name: pb.get_input_tensor_by_name(request, name) for name in self._inputs}
            try:
                feeds[i] = {
                    name: readable(tensor.as_numpy()).reshape(
                        () if name in self._scalars else tensor.shape()
                    )
                    for name, tensor in tensors.items()
                }
            except UnicodeDecodeError as error:
                problem = pb.TritonError(
                    f"a text is not UTF-8: {error}", pb.TritonError.INVALID_ARG
                )
                responses[i] = pb.InferenceResponse(error=problem)
        for i, response in zip(feeds, self._run(list(feeds.values())), strict=True):
            responses[i] = response
        return responses

    def _run(self, feeds: list[dict[str, Any]]) -> list[Any]:
        if not self._batches or len(feeds) < 2:
            return [self._alone(feed) for feed in feeds]
        joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
        try:
            results = self._session.run(self._outputs, joined)
        except Exception:  # one request's values may be at fault: the others must not suffer
            return [self._alone(feed) for feed in feeds]
        ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
        rows = zip(*(np.split(result, ends) for result in results), strict=True)
        return [self._response(row) for row in rows]

    def _alone(self, feed: dict[str, Any]) -> Any:
        try:
            return self._response(self._session.run(self._outputs, feed))
        except Exception as error:  # onnxruntime's exceptions share no base
            return pb.InferenceResponse(error=pb.TritonError(str(error)))

    def _response(self, arrays: Sequence[Any]) -> Any:
        pairs = zip(self._outputs, arrays, strict=True)
        made = [(name, np.asarray(array)) for name, array in pairs]
        return pb.InferenceResponse([pb.Tensor(n, a if a.shape else a.reshape(1)) for n, a in made])


def readable(array: Any) -> Any:
    """onnxruntime takes texts as str, Triton gives bytes."""
    if array.dtype != np.object_:
        return array
    texts = [value.decode() for value in array.reshape(-1)]
    return np.array(texts, np.object_).reshape(array.shape)
