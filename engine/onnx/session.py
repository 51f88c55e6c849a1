"""One onnxruntime session over a prepared model, its buffers bound once.

Every tensor that goes in or out lives in memory that is allocated here and bound by
address, so a step writes a few integers in place, runs, and reads logits in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.base import EngineStartError
from engine.models.kernel import session_entries
from engine.onnx.chunks import attention_rows
from engine.onnx.kv_slots import KvSlots
from engine.onnx.prepared import PreparedModel

Logits = npt.NDArray[np.float32]

_REBUILD = "delete the folder so that the model is converted anew"


class ModelSession:
    """Runs prefill chunks of one slot and decode steps over the leading slots.

    ``run`` of onnxruntime releases the GIL. Not thread-safe: one thread owns it.

    Args:
        slots: rows of the KV buffers, and the widest decode step.
        max_len: tokens that one slot can hold.
        resident_tokens: tokens of KV memory to keep when slots are left.
        max_chunk: most tokens of one prefill run.
        threads: CPU threads inside a run.
        spin_us: microseconds that those threads stay awake waiting for the next operator.
        providers: onnxruntime's execution providers, first choice first.
    """

    def __init__(
        self,
        model: PreparedModel,
        *,
        slots: int,
        max_len: int,
        resident_tokens: int,
        max_chunk: int,
        threads: int,
        spin_us: int,
        providers: Sequence[Any] = ("CPUExecutionProvider",),
    ) -> None:
        manifest = model.manifest
        self._path = model.model_path
        self._session = _open_session(model, threads, spin_us, providers)
        self._layers = manifest.num_layers
        self.vocab_size = manifest.vocab_size
        self.attention_rows = attention_rows(manifest.head_dim)
        self.kv = KvSlots(
            layers=manifest.num_layers,
            slots=slots,
            heads=manifest.num_kv_heads,
            max_len=max_len,
            head_dim=manifest.head_dim,
            resident_tokens=resident_tokens,
        )
        rows = max(slots, max_chunk)
        self.max_chunk = max_chunk
        self._ids = np.zeros(rows, np.int64)
        self._seqlens = np.zeros(slots, np.int32)
        self._total = np.zeros((), np.int32)
        self._logit_idx = np.zeros(rows, np.int64)
        self._row_numbers = np.arange(rows, dtype=np.int64)
        self._logits: Logits = np.empty((slots, self.vocab_size), np.float32)
        self._decode_bindings: dict[int, Any] = {}
        self._prefill_bindings: dict[int, Any] = {}

    def warm_up(self) -> None:
        """Run once in each mode, so that the first request pays for no set-up.

        Raises EngineStartError when the model cannot run.
        """
        try:
            self.prefill(0, 0, [0] * min(16, self.max_chunk), wanted=1)
            self.decode([0], [1])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise EngineStartError(
                f"{self._path} loads but does not run ({error}); {_REBUILD}"
            ) from error

    def decode(self, tokens: Sequence[int], past: Sequence[int]) -> Logits:
        """Append one token to each of the slots ``0 .. len(tokens) - 1``.

        Args:
            tokens: the token to append, per slot.
            past: tokens that the slot holds already.

        Returns:
            Logits [len(tokens), vocab]; valid and writable until the next run.
        """
        width = len(tokens)
        self._ids[:width] = tokens
        self._seqlens[:width] = past
        self._total[...] = max(past) + 1
        written = self.kv.written[:width]
        np.maximum(written, self._seqlens[:width] + 1, out=written)
        self._logit_idx[:width] = self._row_numbers[:width]
        binding = self._decode_bindings.get(width)
        if binding is None:
            binding = self._bind(0, width)
            _bind_in(binding, "input_ids", self._ids, (width, 1))
            _bind_in(binding, "logit_idx", self._logit_idx, (width,))
            _bind_out(binding, "logits", self._logits, (width, self.vocab_size))
            self._decode_bindings[width] = binding
        self._session.run_with_iobinding(binding)
        return self._logits[:width]

    def prefill(self, slot: int, past: int, tokens: Sequence[int], wanted: int) -> Logits:
        """Append a chunk of tokens to one slot.

        Args:
            past: tokens that the slot holds already.
            tokens: the chunk, at most ``max_chunk``.
            wanted: how many of the chunk's last positions to return logits for.

        Returns:
            Logits [wanted, vocab]; valid and writable until the next run.
        """
        count = len(tokens)
        self._ids[:count] = tokens
        self._seqlens[slot] = past + count - 1
        self._total[...] = past + count
        self.kv.written[slot] = max(self.kv.written[slot], past + count)
        self._logit_idx[:wanted] = self._row_numbers[count - wanted : count]
        if wanted > len(self._logits):
            self._logits = np.empty((wanted, self.vocab_size), np.float32)
            self._decode_bindings.clear()
            self._prefill_bindings.clear()
        binding = self._prefill_bindings.get(slot)
        if binding is None:
            binding = self._prefill_bindings[slot] = self._bind(slot, slot + 1)
        _bind_in(binding, "input_ids", self._ids, (1, count))
        _bind_in(binding, "logit_idx", self._logit_idx, (wanted,))
        _bind_out(binding, "logits", self._logits, (wanted, self.vocab_size))
        self._session.run_with_iobinding(binding)
        return self._logits[:wanted]

    def _bind(self, first: int, last: int) -> Any:
        binding = self._session.io_binding()
        _bind_in(binding, "seqlens_k", self._seqlens[first:], (last - first,))
        _bind_in(binding, "total_sequence_length", self._total, ())
        for layer in range(self._layers):
            for kind, buffer in zip(("key", "value"), self.kv.layer(layer), strict=True):
                rows = buffer[first:last]
                _bind_in(binding, f"past_key_values.{layer}.{kind}", rows, rows.shape)
                _bind_out(binding, f"present.{layer}.{kind}", rows, rows.shape)
        return binding


def _bind_in(binding: Any, name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    binding.bind_input(name, "cpu", 0, array.dtype, shape, array.ctypes.data)


def _bind_out(binding: Any, name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    binding.bind_output(name, "cpu", 0, array.dtype, shape, array.ctypes.data)


def _open_session(
    model: PreparedModel, threads: int, spin_us: int, providers: Sequence[Any]
) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    entries = {
        "session.intra_op.allow_spinning": "1" if spin_us else "0",
        "session.intra_op.spin_duration_us": str(spin_us),
        # Between runs the threads have to leave the CPU to the event loop.
        "session.force_spinning_stop": "1",
    }
    for entry, value in (entries | session_entries()).items():
        options.add_session_config_entry(entry, value)
    try:
        session = ort.InferenceSession(str(model.model_path), options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise EngineStartError(
            f"{model.model_path} cannot be loaded ({error}): the file is damaged or was made "
            f"for another onnxruntime; {_REBUILD}"
        ) from error
    _check_signature(model, session)
    return session


def _check_signature(model: PreparedModel, session: Any) -> None:
    """Compare names and static sizes with the manifest, since bound memory is not checked."""
    manifest = model.manifest
    inputs = {node.name: node.shape for node in session.get_inputs()}
    outputs = {node.name: node.shape for node in session.get_outputs()}
    kv = [f"{i}.{kind}" for i in range(manifest.num_layers) for kind in ("key", "value")]
    expected_inputs = {"input_ids", "seqlens_k", "total_sequence_length", "logit_idx"}
    expected_inputs |= {f"past_key_values.{name}" for name in kv}
    expected_outputs = {"logits"} | {f"present.{name}" for name in kv}
    fault = None
    if inputs.keys() != expected_inputs or outputs.keys() != expected_outputs:
        fault = "its inputs and outputs are not those of the manifest's layers"
    elif any(
        _differs(inputs[f"past_key_values.{name}"][1], manifest.num_kv_heads)
        or _differs(inputs[f"past_key_values.{name}"][3], manifest.head_dim)
        for name in kv
    ):
        fault = "its KV heads are not those of the manifest"
    elif _differs(outputs["logits"][-1], manifest.vocab_size):
        fault = "its vocabulary is not that of the manifest"
    if fault:
        raise EngineStartError(f"{model.model_path}: {fault}; {_REBUILD}")


def _differs(size: int | str | None, expected: int) -> bool:
    return isinstance(size, int) and size != expected
