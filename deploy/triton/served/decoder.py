"""The decoder graph that the gateway's ONNX engine serves, with keys and values in place.

Copied beside ``model.py``. Needs onnxruntime. The graph's inputs and outputs are those of
``engine/models/graph.py``: past and present of a layer are one buffer, bound by address.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from kernel import session_entries


class Decoder:
    """Prefills one slot, and appends a token to each of the leading slots. One thread owns it.

    Args:
        sizes: the manifest ``gateway_model.json``.
        slots: sequences that can be held at once.
        max_len: tokens that one of them can hold.
        threads: of one run; 0 takes every core.
    """

    def __init__(
        self, path: Path, sizes: dict[str, Any], slots: int, max_len: int, threads: int
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        for key, value in session_entries().items():
            options.add_session_config_entry(key, value)
        self._session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        self._vocab = sizes["vocab_size"]
        # The kernel reads no further than a sequence's length, but what it reads must be finite.
        shape = (slots, sizes["num_kv_heads"], max_len, sizes["head_dim"])
        self._caches = {
            f"{layer}.{kind}": np.zeros(shape, np.float32)
            for layer in range(sizes["num_layers"])
            for kind in ("key", "value")
        }

    def prefill(self, slot: int, ids: Sequence[int]) -> Any:
        """Fill a slot from its start; returns the logits [1, vocab] of the last position."""
        count = len(ids)
        return self._run(slot, slot + 1, [list(ids)], [count - 1], count, [count - 1])

    def decode(self, tokens: Sequence[int], held: Sequence[int]) -> Any:
        """Append a token to each of the first slots, which hold ``held`` tokens each.

        Returns logits [len(tokens), vocab].
        """
        width = len(tokens)
        columns = [[token] for token in tokens]
        return self._run(0, width, columns, list(held), max(held) + 1, list(range(width)))

    def move(self, source: int, target: int, held: int) -> None:
        """Copy what slot ``source`` holds into ``target``."""
        for cache in self._caches.values():
            cache[target, :, :held] = cache[source, :, :held]

    def _run(
        self,
        first: int,
        last: int,
        ids: list[list[int]],
        lengths: list[int],
        total: int,
        wanted: list[int],
    ) -> Any:
        logits = np.empty((len(wanted), self._vocab), np.float32)
        feeds = {
            "input_ids": np.array(ids, np.int64),
            "seqlens_k": np.array(lengths, np.int32),
            "total_sequence_length": np.array(total, np.int32),
            "logit_idx": np.array(wanted, np.int64),
        }
        binding = self._session.io_binding()
        for name, array in feeds.items():
            _bind(binding.bind_input, name, array)
        _bind(binding.bind_output, "logits", logits)
        for name, cache in self._caches.items():
            _bind(binding.bind_input, f"past_key_values.{name}", cache[first:last])
            _bind(binding.bind_output, f"present.{name}", cache[first:last])
        self._session.run_with_iobinding(binding)
        return logits


def _bind(bind: Any, name: str, array: Any) -> None:
    bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
