"""llama.cpp through llama-cpp-python's low-level API, batching with ``llama_batch``."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import llama_cpp as lc
import numpy as np

from benchmarks.workers.wire import Job, Sample, open_channel, read_job, serve


class LlamaCpp:
    """One context with a sequence per stream; greedy choice by numpy's argmax.

    numpy is faster here than llama.cpp's sampler chain, which first copies the whole
    vocabulary into candidate structures.
    """

    def __init__(self, job: Job) -> None:
        lc.llama_backend_init()
        params = lc.llama_model_default_params()
        params.n_gpu_layers = 0
        self._model = lc.llama_model_load_from_file(job.model.encode(), params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {job.model}")
        context = lc.llama_context_default_params()
        # Without a unified cache the context is divided among the sequences.
        context.n_ctx = job.max_len * (job.max_streams if not job.options["kv_unified"] else 4)
        context.kv_unified = job.options["kv_unified"]
        context.n_seq_max = job.max_streams
        context.n_batch = 2048
        context.n_ubatch = 512
        context.n_threads = job.threads
        context.n_threads_batch = job.threads
        context.no_perf = True
        if job.options.get("flash") is not None:
            context.flash_attn_type = int(job.options["flash"])
        self._ctx = lc.llama_init_from_model(self._model, context)
        if not self._ctx:
            raise RuntimeError("llama.cpp cannot make a context")
        self._vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self._model))
        self._batch = lc.llama_batch_init(2048, 0, 1)
        self._job = job

    def info(self) -> dict[str, Any]:
        """Version, system information and the size of the weights."""
        return {
            "version": f"llama-cpp-python {lc.__version__}",
            "system": lc.llama_print_system_info().decode(),
            "weight_bytes": int(lc.llama_model_size(self._model)),
            "variant": self._job.variant,
        }

    def _run(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Decode rows of (token, position, sequence, wants logits)."""
        batch = self._batch
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = wanted
        batch.n_tokens = len(rows)
        code = lc.llama_decode(self._ctx, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")

    def _choose(self, row: int) -> int:
        pointer = lc.llama_get_logits_ith(self._ctx, row)
        address = ctypes.cast(pointer, ctypes.c_void_p).value
        assert address is not None
        logits = np.ctypeslib.as_array((ctypes.c_float * self._vocab).from_address(address))
        return int(logits.argmax())

    def _clear(self) -> None:
        lc.llama_memory_clear(lc.llama_get_memory(self._ctx), False)

    def prefill(self, prompt: list[int]) -> Sample:
        """One ``llama_decode`` over the prompt, the first token included."""
        self._clear()
        last = len(prompt) - 1
        start = time.perf_counter()
        self._run([(token, i, 0, i == last) for i, token in enumerate(prompt)])
        self._choose(last)
        return Sample(len(prompt), time.perf_counter() - start)

    def decode(self, prompts: list[list[int]], tokens: int) -> Sample:
        """Prefill all, then time ``tokens`` steps that carry every sequence."""
        self._clear()
        current: list[int] = []
        for sequence, prompt in enumerate(prompts):
            last = len(prompt) - 1
            self._run([(token, i, sequence, i == last) for i, token in enumerate(prompt)])
            current.append(self._choose(last))
        position = len(prompts[0])
        made = 0
        start = time.perf_counter()
        for step in range(tokens):
            self._run([(token, position + step, s, True) for s, token in enumerate(current)])
            current = [self._choose(s) for s in range(len(current))]
            made += len(current)
        return Sample(made, time.perf_counter() - start)

    def close(self) -> None:
        """Nothing outlives the process."""


if __name__ == "__main__":
    channel = open_channel()
    serve(LlamaCpp(read_job()), channel)
