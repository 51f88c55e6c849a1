"""Runs a prepared model on plain onnxruntime, the way an engine would, in few lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from engine.models.kernel import session_entries
from engine.onnx.prepared import Manifest


class Runner:
    """One session over shared caches [slots, kv_heads, max_len, head_dim], all zero at first.

    ``lengths`` is how many tokens each slot holds.
    """

    def __init__(self, folder: Path, *, slots: int = 4, max_len: int = 128, threads: int = 1):
        self.manifest = Manifest.read(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        for key, value in session_entries().items():
            options.add_session_config_entry(key, value)
        self.session = ort.InferenceSession(
            folder / "model.onnx", options, providers=["CPUExecutionProvider"]
        )
        shape = (slots, self.manifest.num_kv_heads, max_len, self.manifest.head_dim)
        self.names = [
            f"{i}.{part}" for i in range(self.manifest.num_layers) for part in ("key", "value")
        ]
        self.caches = [np.zeros(shape, np.float32) for _ in self.names]
        self.lengths = np.zeros(slots, np.int64)

    def _run(self, first: int, tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Feed tokens [B, S] to slots first..first+B, whose lengths already count them."""
        last = first + len(tokens)
        binding = self.session.io_binding()
        for name, cache in zip(self.names, self.caches, strict=True):
            part = cache[first:last]
            for bind, prefix in (
                (binding.bind_input, "past_key_values."),
                (binding.bind_output, "present."),
            ):
                bind(prefix + name, "cpu", 0, np.float32, part.shape, part.ctypes.data)
        lengths = self.lengths[first:last]
        binding.bind_cpu_input("input_ids", tokens.astype(np.int64))
        binding.bind_cpu_input("seqlens_k", (lengths - 1).astype(np.int32))
        binding.bind_cpu_input("total_sequence_length", np.array(lengths.max(), np.int32))
        binding.bind_cpu_input("logit_idx", rows.astype(np.int64))
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        return next(v.numpy() for v in binding.get_outputs() if len(v.shape()) == 2)

    def prefill(self, slot: int, tokens: list[int], *, chunk: int = 64) -> np.ndarray:
        """Logits [len(tokens), vocab] of a prompt fed in chunks."""
        parts = []
        for start in range(0, len(tokens), chunk):
            piece = np.array([tokens[start : start + chunk]])
            self.lengths[slot] += piece.shape[1]
            parts.append(self._run(slot, piece, np.arange(piece.shape[1])))
        return np.concatenate(parts)

    def decode(self, tokens: list[int]) -> np.ndarray:
        """Logits [B, vocab] after one more token for each of the first B slots."""
        self.lengths[: len(tokens)] += 1
        return self._run(0, np.array(tokens)[:, None], np.arange(len(tokens)))

    def reset(self) -> None:
        """Empty every slot, leaving stale cache contents behind on purpose."""
        self.lengths[:] = 0

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        """``count`` most likely tokens after ``prompt``, alone in slot 0."""
        self.reset()
        token = int(self.prefill(0, prompt)[-1].argmax())
        found = [token]
        while len(found) < count:
            token = int(self.decode([token])[0].argmax())
            found.append(token)
        return found


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Euclidean length of the difference over that of ``wanted``."""
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
